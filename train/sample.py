"""Show what a run's model says and draws so far, beside its training: `unimodal train sample RUN`.

In: a run's directory. Out: a page of documents from its data, and the same as JSON: conversations,
each answered by the newest checkpoint (its averaged weights where it keeps them) beside the answer
that the data has, and other documents, of which it is given the beginning and goes on. Training is
not touched: this process reads the checkpoint's files and no more.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from unimodal import bundle, config
from unimodal.data.loader import Loader
from unimodal.data.sheet import document_sheet
from unimodal.data.windows import planned_rows
from unimodal.document import Document, Part, Text
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.room import refusal
from unimodal.transcript import save_image

from . import checkpoint, continuing
from .continuing import Continuing
from .lm import snapshot
from .run import LmRun

LOOKED_THROUGH = 500  # documents, among which those to be shown are looked for
APART = 5  # rows from one to the next


@dataclass(frozen=True, eq=False)
class Asked:
    """What a model is given of a document, and what the data has behind it."""

    given: Document
    answer: tuple[Part, ...]
    goes_on: bool
    """Whether the document is no conversation."""


def sample(run: Path, count: int, seed: int) -> Path:
    """Answer, or go on with, `count` documents and return the page, RUN/samples/step_N.png.

    They are the first of the run's held-out sources, or else of its sources. Raises ValueError
    where the run has no checkpoint yet, or its data nothing that could be asked.
    """
    if not (run / "config.yaml").exists():
        raise ValueError(f"{run} is no run of `unimodal train lm`: it has no config.yaml")
    # It is answered in float32, whatever the run is trained in and wherever it is looked at.
    recipe = replace(config.saved(LmRun, run / "config.yaml"), output=run, precision="fp32")
    newest = checkpoint.newest(run)
    if newest is None:
        raise ValueError(f"{run} has no checkpoint yet; they come every "
                         f"{recipe.loop.save_every_steps} steps")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=run, prefix=".sample-") as folder:
        model = bundle.load(snapshot(recipe, Path(folder) / "bundle"))
    asked = [*islice(_asked(recipe, model), count)]
    replies = _replies(model, asked, seed)
    page = run / "samples" / f"step_{newest.step:08d}.png"
    pairs = [*zip(asked, replies, strict=True)]
    save_image(document_sheet([_shown(model, *pair) for pair in pairs]), page)
    lines = [_spoken(*pair) for pair in pairs]
    page.with_suffix(".json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    return page


def _replies(model: Model, asked: Sequence[Asked], seed: int) -> list[tuple[Part, ...]]:
    """Return the reply to each, with a seed of its own."""
    settings = [replace(model.sampling, seed=seed + number) for number in range(len(asked))]
    found: dict[int, tuple[Part, ...]] = {}
    for goes_on in (False, True):
        numbers = [number for number, one in enumerate(asked) if one.goes_on is goes_on]
        if numbers:
            speaker = Continuing.of(model) if goes_on else model
            given = [asked[number].given for number in numbers]
            replies = generate(speaker, given, [settings[number] for number in numbers])
            found |= zip(numbers, replies, strict=True)
    return [found[number] for number in range(len(asked))]


def _asked(recipe: LmRun, model: Model) -> Iterator[Asked]:
    """Yield what is asked of the documents that can be, some rows apart from one another."""
    sources = recipe.held_out.sources or recipe.sources
    settings = replace(
        recipe.loader, caption_dropout=0.0, unread_share=0.0, code_noise=0.0, stages=()
    )
    loader = Loader(sources, model.sequencer, model.codec, settings)
    needed = model.sequencer.layout.length(model.grid) + 1
    found = 0
    # Neighbours are alike, for they cost the same.
    apart = islice(planned_rows(loader.planner, loader.state), 0, None, APART)
    places = (row[0] for row, _ in apart if row)
    for place in islice(places, LOOKED_THROUGH):
        document = loader.row_builder.document(place)
        one = _turned(document) or _begun(document)
        if one is None:
            continue
        given = model.codec.encode_document(one.given)
        if refusal(model.sequencer, given, model.usable_context, needed) is None:
            found += 1
            yield replace(one, given=given)
    if not found:
        raise ValueError(
            "the run's data has no conversation that ends with an answer, and no document of more "
            "than one word or image to go on with"
        )


def _turned(document: Document) -> Asked | None:
    """Return what is asked of a conversation that ends with an answer."""
    parts = document.parts
    begin = len(parts)
    while begin and parts[begin - 1].role == "assistant":
        begin -= 1
    if begin in (0, len(parts)):
        return None
    return Asked(Document(parts[:begin]), parts[begin:], goes_on=False)


def _begun(document: Document) -> Asked | None:
    """Return the beginning of a document that is no conversation."""
    found = continuing.cut(document)
    return Asked(*found, goes_on=True) if found is not None else None


def _shown(model: Model, asked: Asked, reply: Sequence[Part]) -> Document:
    """Return what was given, what the model answers, and the data's own answer in black."""
    given = [replace(part, role=part.role or "user") for part in asked.given.parts]
    truth = [replace(part, role=None) for part in asked.answer]
    said = [*reply] or [Text("(nothing)", role="assistant")]
    return model.codec.decode_document(Document((*given, *said, *truth)))


def _spoken(asked: Asked, reply: Sequence[Part]) -> dict[str, Any]:
    def words(parts: Sequence[Part]) -> str:
        return " ".join(p.text if isinstance(p, Text) else "(image)" for p in parts)

    return {
        "question": words(asked.given.parts),
        "reply": words(reply),
        "answer": words(asked.answer),
    }
