"""The model as a new user finds it: prompts in free words, pictures drawn in other programs.

    python tests/real_input/try_it.py [--model PATH] [--seed N]

In: `prompts.json`, and `pictures/` with their truth in `pictures/pictures.json`. Out, in
`came_back/`: every picture drawn (three times enlarged), a contact sheet, and a table of what was
asked, what came back and whether it was right.

1. Every prompt opens a conversation of its own. So does every picture: it is shown with DESCRIBE,
   and its questions follow in the same conversation.
2. The scene read in a drawing is held against what was meant, by the rules of `eval/verdicts.py`.
   A prompt that asks for what the world lacks has no right drawing.
3. A description is right when it tells colour and shape of everything that the picture shows and
   of nothing else; sizes, places and backgrounds that it tells are not judged. An answer is right
   when it is the one answer.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import unimodal
from unimodal.bundle import Model
from unimodal.chat import Chat
from unimodal.chat import Reply as Said
from unimodal.data.scenes.questions import Question
from unimodal.data.scenes.requests import Request
from unimodal.data.scenes.wording import Claim, read_caption
from unimodal.eval.intervals import share
from unimodal.eval.report import Cell, contact_sheet, progress, recipe_line, save_sheet
from unimodal.eval.score import write_bytes
from unimodal.eval.tokenizer import reconstruct
from unimodal.eval.verdicts import Reply, judge_drawing, judge_question
from unimodal.tokenizer.pixels import fit, open_picture
from unimodal.transcript import save_picture

HERE = Path(__file__).resolve().parent
PICTURES = HERE / "pictures"
DESCRIBE = "describe this picture"
SEED = 1
SCALE = 3  # of the pictures kept
COLUMNS = 6  # of the contact sheet
MARKS = {True: "right", False: "wrong", None: "for people to judge"}

INTRODUCTION = """# What came back

Written by `python tests/real_input/try_it.py`, which also says how each reply was judged: by
program, drawings as `read_scene` reads them, descriptions by what they claim, answers by the one
answer. "For people to judge" stands where no program can.

{counts}

Model {model}; {recipe}.
"""


@dataclass(frozen=True, eq=False)
class Tried:
    """One thing said to the model, what it replied, and the verdict."""

    kind: str  # drawing, hopeless, description, answer
    name: str  # of the files that keep its pictures
    prompt: str
    wanted: str  # in plain words
    reply: Reply
    right: bool | None  # None: for people to judge
    reason: str


def prompts() -> list[dict[str, Any]]:
    """The entries of prompts.json."""
    return json.loads((HERE / "prompts.json").read_text(encoding="utf-8"))


def pictures() -> list[dict[str, Any]]:
    """The entries of pictures.json."""
    return json.loads((PICTURES / "pictures.json").read_text(encoding="utf-8"))


def request_of(entry: dict[str, Any]) -> Request:
    """What a prompt means, as the evaluation knows it; one claim of several things is counted."""
    claims = tuple(
        Claim(c["count"], c.get("size"), c.get("colour"), c.get("shape")) for c in entry["claims"]
    )
    relation = entry.get("relation")
    task = "position" if relation else "several"
    if len(claims) == 1:
        task = "counting" if claims[0].count > 1 else "colours"
    return Request(task, claims, relation, None, entry["prompt"], 0)


def judge_prompt(entry: dict[str, Any], reply: Reply) -> tuple[bool | None, str]:
    """(right, why not or what was seen) of the reply to a prompt."""
    if not entry["claims"]:
        return (False, "it drew something else") if reply.pictures else (None, "")
    verdict = judge_drawing(request_of(entry), reply)
    reason = verdict.reason or entry.get("beyond", "")
    if not reason or verdict.answer is None:
        return not reason, reason
    seen = [f"{t['size']} {t['colour']} {t['shape']}" for t in verdict.answer["things"]]
    return False, f"{reason}; drawn: {', '.join(seen) or 'nothing'}"


def judge_description(things: Sequence[dict[str, Any]], reply: Reply) -> tuple[bool, str]:
    """(right, why not) of a description, by colour, shape and number of things alone."""
    claims = read_caption(reply.text)
    if reply.pictures or claims is None:
        return False, "not a description"
    told: Counter[str] = Counter()
    for claim in claims:
        told[f"{claim.colour} {claim.shape}"] += claim.count
    true = Counter({f"{thing['colour']} {thing['shape']}": thing["count"] for thing in things})
    parts = (("missing", true - told), ("invented", told - true))
    wrong = [f"{word} {n} {look}" for word, looks in parts for look, n in looks.items()]
    return not wrong, ", ".join(wrong)


def try_prompts(model: Model, seed: int) -> list[Tried]:
    """Every prompt, each in a conversation of its own."""
    tried = []
    for number, entry in enumerate(progress(prompts(), "prompts"), 1):
        reply = reply_of(_chat(model, seed)(entry["prompt"]))
        right, reason = judge_prompt(entry, reply)
        kind = "drawing" if entry["claims"] else "hopeless"
        name = f"prompt_{number:02d}"
        tried.append(Tried(kind, name, entry["prompt"], entry["means"], reply, right, reason))
    return tried


def try_pictures(model: Model, seed: int) -> list[list[Tried]]:
    """For every picture its description and the answers about it, all in one conversation."""
    return [try_picture(_chat(model, seed), entry) for entry in progress(pictures(), "pictures")]


def try_picture(chat: Chat, entry: dict[str, Any]) -> list[Tried]:
    """The description of one picture and the answers to its questions."""
    path = PICTURES / entry["file"]
    reply = reply_of(chat(DESCRIBE, [path]))
    verdict = judge_description(entry["things"], reply)
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


def reply_of(said: Said) -> Reply:
    """A reply of the chat as the verdicts take it."""
    return Reply(said.text, tuple(np.asarray(image) for image in said.images))


def cells(model: Model, drawn: Sequence[Tried], described: Sequence[Sequence[Tried]]) -> list[Cell]:
    """What each prompt drew; each picture as fitted to the canvas and as its codes keep it."""
    width, height = model.canvas
    empty = np.full((height, width, 3), 255, dtype=np.uint8)
    found = [
        Cell(t.reply.pictures or (empty,), t.prompt, t.reply.text or t.reason, t.right)
        for t in drawn
    ]
    opened = [open_picture(PICTURES / entry["file"]).image for entry in pictures()]
    fitted = [np.asarray(fit(image, model.canvas)) for image in opened]
    kept, _ = reconstruct(model.tokenizer, fitted)
    for seen, code_view, entry, tried in zip(fitted, kept, pictures(), described, strict=True):
        words = " / ".join(f"{t.prompt} {said_of(t)} ({MARKS[t.right]})" for t in tried)
        right = all(t.right for t in tried)
        found.append(Cell((seen, code_view), f"{entry['file']}: {entry['shows']}", words, right))
    return found


def said_of(tried: Tried) -> str:
    """The words of the reply, and how many pictures stand beside them."""
    count = len(tried.reply.pictures)
    shown = f"[{count} picture{'s' if count > 1 else ''}]" if count else ""
    return " ".join(word for word in (tried.reply.text, shown) if word) or "[nothing]"


def verdict_of(tried: Tried) -> str:
    """The verdict in words."""
    return ": ".join(word for word in (MARKS[tried.right], tried.reason) if word)


def counts(tried: Sequence[Tried]) -> str:
    """A table of how many replies of each kind were right, with 95 % intervals."""
    lines = ["| | right | of | share, 95 % interval |", "| --- | ---: | ---: | --- |"]
    for kind, words in (
        ("drawing", "prompts in free words"),
        ("description", "pictures of other programs, described"),
        ("answer", "questions about them"),
    ):
        verdicts = [bool(t.right) for t in tried if t.kind == kind]
        score = share(verdicts)
        interval = f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"
        lines.append(f"| {words} | {sum(verdicts)} | {len(verdicts)} | {interval} |")
    return "\n".join(lines)


def page(
    model: Model, seed: int, drawn: Sequence[Tried], described: Sequence[Sequence[Tried]]
) -> str:
    """The table of everything said and replied, as Markdown."""
    everything = [*drawn, *(one for tried in described for one in tried)]
    sampling = model.sampling
    recipe = recipe_line(
        {
            "seed": seed,
            "guidance": "off" if sampling.guidance is None else sampling.guidance,
            "image_temperature": sampling.image_temperature,
            "text_temperature": sampling.text_temperature,
        }
    )
    head = INTRODUCTION.format(counts=counts(everything), model=f"`{model.hash}`", recipe=recipe)
    parts = (head, "## Prompts", prompt_table(drawn), "## Pictures", picture_table(described))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def prompt_table(drawn: Sequence[Tried]) -> str:
    """A row for every prompt."""
    lines = ["| prompt | means | came back | verdict |", "| --- | --- | --- | --- |"]
    lines += [_row(t.prompt, t.wanted, _shown(t), _plain(verdict_of(t))) for t in drawn]
    return "\n".join(lines)


def picture_table(described: Sequence[Sequence[Tried]]) -> str:
    """A row for everything said to every picture."""
    lines = ["| picture | said to it | truth | came back | verdict |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for entry, tried in zip(pictures(), described, strict=True):
        shown = f'<img src="../pictures/{entry["file"]}" width="160"> {entry["program"]}'
        for number, t in enumerate(tried):
            first = "" if number else shown
            lines.append(_row(first, t.prompt, t.wanted, _shown(t), _plain(verdict_of(t))))
    return "\n".join(lines)


def write(output: Path, model: Model, seed: int) -> str:
    """Try everything, write what came back into `output`, and return the counts."""
    drawn, described = try_prompts(model, seed), try_pictures(model, seed)
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("drawn_*.png"):  # by an earlier model
        old.unlink()
    everything = [*drawn, *(one for tried in described for one in tried)]
    for tried in everything:
        for name, picture in zip(_files(tried), tried.reply.pictures, strict=True):
            height, width = picture.shape[:2]
            size = (SCALE * width, SCALE * height)
            image = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
            save_picture(image, output / name)
    sheet = contact_sheet(cells(model, drawn, described), COLUMNS)
    save_sheet(sheet, output / "sheet.png")
    write_bytes(output / "README.md", page(model, seed, drawn, described).encode())
    return counts(everything)


def _chat(model: Model, seed: int) -> Chat:
    return Chat(model, replace(model.sampling, seed=seed))


def _files(tried: Tried) -> list[str]:
    """Names of the files of its pictures; the second is numbered, and so on."""
    count = len(tried.reply.pictures)
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
@click.option("--output", default=HERE / "came_back", type=click.Path(path_type=Path))
def main(model: Path | None, seed: int, output: Path) -> None:
    """Try the model on real input and keep what came back."""
    click.echo(write(output, unimodal.load(model), seed))


if __name__ == "__main__":
    main()
