"""The model as a new user finds it: prompts in free words, images drawn in other programs.

    python tests/real_input/try_it.py [--model PATH] [--seed N] [--output FOLDER]
    python tests/real_input/try_it.py --prompts tests/real_input/free_words.json

In: `prompts.json`, and `images/` with their truth in `images/images.json`. Out, in
`came_back/`: every image drawn (three times enlarged), a contact sheet, and a table of what was
asked, what came back and whether it was right. With `--prompts` in: that file alone; out, in
`came_back/` and the file's name: a contact sheet, and a table of the share right of each kind.

1. Every prompt opens a conversation of its own. So does every image: it is shown with DESCRIBE,
   and its questions follow in the same conversation.
2. The scene read in a drawing is held against what was meant, by the rules of `eval/verdicts.py`.
   A prompt that asks for what the world lacks has no right drawing.
3. A description is right when it tells colour and shape of everything that the image shows and
   of nothing else; sizes, places and backgrounds that it tells are not judged. An answer is right
   when it is the one answer.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import unimodal
from unimodal.atomic import write_bytes
from unimodal.chat import Chat
from unimodal.chat_events import Reply as Said
from unimodal.data.scenes.questions import Question
from unimodal.data.scenes.requests import RELATIONS, Request
from unimodal.data.scenes.wording import Claim, read_parts
from unimodal.data.scenes.world import COLOURS, SHAPES, SIZES
from unimodal.document import Document, Text
from unimodal.eval.answer import Answer
from unimodal.eval.intervals import share
from unimodal.eval.report import Cell, bar, contact_sheet, progress, recipe_line
from unimodal.eval.round_trip import round_trip
from unimodal.eval.verdicts import judge_drawing, judge_question
from unimodal.events import ReplyDone
from unimodal.generation import stream
from unimodal.model import Model
from unimodal.tokenizer.pixels import fit, open_image
from unimodal.transcript import save_image

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images"
CAME_BACK = HERE / "came_back"
DESCRIBE = "describe this picture"
SEED = 1
SCALE = 3  # of the images kept
MAX_SHOWN = 160  # characters of a reply on the sheet
COLUMNS = 6  # of the contact sheet
COLUMNS_OF_MANY = 12  # where hundreds of prompts are tried
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
MARKS = {True: "right", False: "wrong", None: "for people to judge"}

KINDS = {
    "drawing": "prompts in free words",
    "description": "images of other programs, described",
    "answer": "questions about them",
}

INTRODUCTION = """# What came back

Written by `python tests/real_input/try_it.py`, which also says how each reply was judged: by
program, drawings as `read_scene` reads them, descriptions by what they claim, answers by the one
answer. "For people to judge" stands where no program can.

{counts}

Model {model}; {recipe}.
"""

SUMMARY = """# What came back for {file}

Written by `python tests/real_input/try_it.py --prompts {file}`: drawings as `read_scene` reads
them, each held against what was meant. `sheet.png` beside this page shows all of them.

{counts}

Model {model}; {recipe}.
"""


@dataclass(frozen=True, eq=False)
class Tried:
    """One object said to the model, what it replied, and the verdict."""

    kind: str  # one of KINDS, hopeless, or the kind that the file of prompts names
    name: str  # of the files that keep its images
    prompt: str
    wanted: str  # in plain words
    reply: Answer
    right: bool | None  # None: for people to judge
    reason: str


def prompts(file: Path = HERE / "prompts.json") -> list[dict[str, Any]]:
    """Return a file's entries; raise ValueError for one that asks for what the world lacks."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    for number, entry in enumerate(entries, 1):
        if wrong := unknown_words(entry):
            raise ValueError(f"{file}: prompt {number} claims {', '.join(wrong)}: not of the world")
    return entries


def unknown_words(entry: dict[str, Any]) -> list[str]:
    """Return what an entry claims and the world does not have."""
    known = {"size": SIZES, "colour": COLOURS, "shape": SHAPES}
    claimed = [
        (c[name], words) for c in entry["claims"] for name, words in known.items() if name in c
    ]
    claimed += [(entry["relation"], RELATIONS)] if "relation" in entry else []
    return [repr(word) for word, words in claimed if word not in words]


def images() -> list[dict[str, Any]]:
    """The entries of images.json."""
    return json.loads((IMAGES / "images.json").read_text(encoding="utf-8"))


def request_of(entry: dict[str, Any]) -> Request:
    """What a prompt means, as the evaluation knows it; one claim of several objects is counted."""
    claims = tuple(
        Claim(c["count"], c.get("size"), c.get("colour"), c.get("shape")) for c in entry["claims"]
    )
    relation = entry.get("relation")
    task = "position" if relation else "several"
    if len(claims) == 1:
        task = "counting" if claims[0].count > 1 else "colours"
    return Request(task, claims, relation, None, entry["prompt"], 0)


def judge_prompt(entry: dict[str, Any], reply: Answer) -> tuple[bool | None, str]:
    """(right, why not or what was seen) of the reply to a prompt."""
    if not entry["claims"]:
        return (False, "it drew something else") if reply.images else (None, "")
    verdict = judge_drawing(request_of(entry), reply)
    reason = verdict.reason or entry.get("beyond", "")
    if not reason or verdict.answer is None:
        return not reason, reason
    seen = [f"{t['size']} {t['colour']} {t['shape']}" for t in verdict.answer["objects"]]
    return False, f"{reason}; drawn: {', '.join(seen) or 'nothing'}"


def judge_description(objects: Sequence[dict[str, Any]], reply: Answer) -> tuple[bool, str]:
    """(right, why not) of a description, by colour, shape and number of objects alone."""
    parts = read_parts(reply.text)
    if reply.images or parts is None:
        return False, "not a description"
    claims, _ = parts
    told: Counter[str] = Counter()
    for claim in claims:
        told[f"{claim.colour} {claim.shape}"] += claim.count
    true = Counter({f"{obj['colour']} {obj['shape']}": obj["count"] for obj in objects})
    parts = (("missing", true - told), ("invented", told - true))
    wrong = [
        f"{word} {n} {attributes}"
        for word, attribute_sets in parts
        for attributes, n in attribute_sets.items()
    ]
    return not wrong, ", ".join(wrong)


def try_prompts(model: Model, seed: int, entries: Sequence[dict[str, Any]]) -> list[Tried]:
    """Every prompt, each in a conversation of its own, many of them answered together."""
    tried = []
    for number, (entry, reply) in enumerate(
        zip(entries, replies(model, seed, [entry["prompt"] for entry in entries]), strict=True), 1
    ):
        right, reason = judge_prompt(entry, reply)
        kind = entry.get("kind", "drawing") if entry["claims"] else "hopeless"
        name = f"prompt_{number:02d}"
        tried.append(Tried(kind, name, entry["prompt"], entry["means"], reply, right, reason))
    return tried


def replies(model: Model, seed: int, texts: Sequence[str]) -> list[Answer]:
    """Return what the model replies to each text, as in a chat that has just begun."""
    documents = [Document((Text(text, role="user"),)) for text in texts]
    found: dict[int, Answer] = {}
    with bar(len(texts), "prompts") as advance:
        for event in stream(model, documents, replace(model.sampling, seed=seed)):
            if isinstance(event, ReplyDone):
                reply = model.codec.decode_document(Document(event.parts))
                found[event.request] = Answer.of(reply.parts)
                advance()
    return [found[number] for number in range(len(texts))]


def try_images(model: Model, seed: int) -> list[list[Tried]]:
    """For every image its description and the answers about it, all in one conversation."""
    return [try_image(_chat(model, seed), entry) for entry in progress(images(), "images")]


def try_image(chat: Chat, entry: dict[str, Any]) -> list[Tried]:
    """The description of one image and the answers to its questions."""
    path = IMAGES / entry["file"]
    reply = reply_of(chat(DESCRIBE, [path]))
    verdict = judge_description(entry["objects"], reply)
    tried = [Tried("description", path.stem, DESCRIBE, entry["shows"], reply, *verdict)]
    for number, asked in enumerate(entry["questions"], 1):
        reply = reply_of(chat(asked["text"]))
        question = Question("", "", asked["text"], asked["answer"], 0)
        reason = judge_question(question, reply).reason
        name = f"{path.stem}_{number}"
        tried.append(
            Tried("answer", name, asked["text"], asked["answer"], reply, not reason, reason)
        )
    return tried


def reply_of(said: Said) -> Answer:
    """A reply of the chat as the verdicts take it."""
    return Answer(said.text, tuple(np.asarray(image) for image in said.images))


def cells(model: Model, described: Sequence[Sequence[Tried]]) -> list[Cell]:
    """Each image as fitted to the canvas and as its codes keep it."""
    found = []
    opened = [open_image(IMAGES / entry["file"]).image for entry in images()]
    fitted = [np.asarray(fit(image, model.canvas)) for image in opened]
    kept = round_trip(model.image_tokenizer, fitted).images
    for seen, code_view, entry, tried in zip(fitted, kept, images(), described, strict=True):
        words = " / ".join(f"{t.prompt} {said_of(t)} ({MARKS[t.right]})" for t in tried)
        right = all(t.right for t in tried)
        found.append(Cell((seen, code_view), f"{entry['file']}: {entry['shows']}", words, right))
    return found


def drawn_cells(model: Model, drawn: Sequence[Tried]) -> list[Cell]:
    """What each prompt drew."""
    width, height = model.canvas
    empty = np.full((height, width, 3), 255, dtype=np.uint8)
    return [
        Cell(t.reply.images or (empty,), t.prompt, _first(t.reply.text) or t.reason, t.right)
        for t in drawn
    ]


def said_of(tried: Tried) -> str:
    """Return the first words of the reply, and how many images stand beside them."""
    count = len(tried.reply.images)
    shown = f"[{count} image{'s' if count > 1 else ''}]" if count else ""
    return " ".join(word for word in (_first(tried.reply.text), shown) if word) or "[nothing]"


def verdict_of(tried: Tried) -> str:
    """The verdict in words."""
    return ": ".join(word for word in (MARKS[tried.right], tried.reason) if word)


def counts(tried: Sequence[Tried], kinds: Mapping[str, str]) -> str:
    """A table of how many replies of each kind were right, with 95 % intervals."""
    lines = ["| | right | of | share, 95 % interval |", "| --- | ---: | ---: | --- |"]
    lines += [count(words, [t for t in tried if t.kind == kind]) for kind, words in kinds.items()]
    return "\n".join(lines)


def count(words: str, tried: Sequence[Tried]) -> str:
    """A row of that table."""
    verdicts = [bool(t.right) for t in tried]
    score = share(verdicts)
    interval = f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"
    return _row(words, str(sum(verdicts)), str(len(verdicts)), interval)


def recipe(model: Model, seed: int) -> str:
    """What the replies depend on beside the model."""
    sampling = model.sampling
    return recipe_line(
        {
            "seed": seed,
            "guidance": "off" if sampling.guidance is None else sampling.guidance,
            "image_temperature": sampling.image_temperature,
            "text_temperature": sampling.text_temperature,
        }
    )


def page(
    model: Model, seed: int, drawn: Sequence[Tried], described: Sequence[Sequence[Tried]]
) -> str:
    """The table of everything said and replied, as Markdown."""
    everything = [*drawn, *(one for tried in described for one in tried)]
    head = INTRODUCTION.format(
        counts=counts(everything, KINDS), model=f"`{model.hash}`", recipe=recipe(model, seed)
    )
    parts = (head, "## Prompts", prompt_table(drawn), "## Images", image_table(described))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def prompt_table(drawn: Sequence[Tried]) -> str:
    """A row for every prompt."""
    lines = ["| prompt | means | came back | verdict |", "| --- | --- | --- | --- |"]
    lines += [_row(t.prompt, t.wanted, _shown(t), _plain(verdict_of(t))) for t in drawn]
    return "\n".join(lines)


def image_table(described: Sequence[Sequence[Tried]]) -> str:
    """A row for everything said to every image."""
    lines = ["| image | said to it | truth | came back | verdict |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for entry, tried in zip(images(), described, strict=True):
        shown = f'<img src="../images/{entry["file"]}" width="160"> {entry["program"]}'
        for number, t in enumerate(tried):
            first = "" if number else shown
            lines.append(_row(first, t.prompt, t.wanted, _shown(t), _plain(verdict_of(t))))
    return "\n".join(lines)


def write(output: Path, model: Model, seed: int) -> str:
    """Try everything, write what came back into `output`, and return the counts."""
    drawn, described = try_prompts(model, seed, prompts()), try_images(model, seed)
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("drawn_*.png"):  # by an earlier model
        old.unlink()
    everything = [*drawn, *(one for tried in described for one in tried)]
    for tried in everything:
        for name, image in zip(_files(tried), tried.reply.images, strict=True):
            height, width = image.shape[:2]
            size = (SCALE * width, SCALE * height)
            enlarged = Image.fromarray(image).resize(size, Image.Resampling.NEAREST)
            save_image(enlarged, output / name)
    sheet = contact_sheet([*drawn_cells(model, drawn), *cells(model, described)], COLUMNS)
    save_image(sheet, output / "sheet.png")
    write_bytes(output / "README.md", page(model, seed, drawn, described).encode())
    return counts(everything, KINDS)


def write_summary(output: Path, model: Model, seed: int, file: Path) -> str:
    """Try a file of prompts, write a sheet and the share right into `output`; return the table."""
    tried = try_prompts(model, seed, prompts(file))
    judged = [t for t in tried if t.kind != "hopeless"]
    table = counts(judged, {t.kind: t.kind for t in judged})
    table += "\n" + count("all", judged)
    output.mkdir(parents=True, exist_ok=True)
    save_image(contact_sheet(drawn_cells(model, tried), COLUMNS_OF_MANY), output / "sheet.png")
    made = {"model": f"`{model.hash}`", "recipe": recipe(model, seed)}
    text = SUMMARY.format(file=file.name, counts=table, **made)
    write_bytes(output / "README.md", text.encode())
    return table


def _chat(model: Model, seed: int) -> Chat:
    return Chat(model, replace(model.sampling, seed=seed))


def _first(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _files(tried: Tried) -> list[str]:
    """Names of the files of its images; the second is numbered, and so on."""
    count = len(tried.reply.images)
    return [f"drawn_{tried.name}{f'-{k + 1}' if k else ''}.png" for k in range(count)]


def _shown(tried: Tried) -> str:
    images = [f'<img src="{name}" width="96">' for name in _files(tried)]
    return " ".join([*images, _plain(tried.reply.text)]).strip() or "nothing"


def _plain(text: str) -> str:
    """A model's words, which may hold anything, as text of a Markdown table."""
    return "".join(f"&#{ord(c)};" if c in "|<>&`*_[]\\" else c for c in " ".join(text.split()))


def _row(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="A bundle [default: the shipped].")
@click.option("--seed", default=SEED, show_default=True, help="Of every conversation.")
@click.option("--prompts", "file", type=FILE, help="Prompts to try alone, for a table and a sheet.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="[default: came_back, or a folder in it.]"
)
def main(model: Path | None, seed: int, file: Path | None, output: Path | None) -> None:
    """Try the model on real input and keep what came back."""
    if file is None:
        click.echo(write(output or CAME_BACK, unimodal.load(model), seed))
    else:
        folder = output or CAME_BACK / file.stem
        click.echo(write_summary(folder, unimodal.load(model), seed, file))


if __name__ == "__main__":
    main()
