"""Show what a run's model says and draws so far, beside its training: `unimodal train sample RUN`.

In: a run's directory. Out: a page of conversations from its data, each answered by the newest
checkpoint (its averaged weights where it keeps them) beside the answer that the data has, and the
same as JSON. Training is not touched: this process reads the checkpoint's files and no more.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from unimodal.transcript import save_image

from . import checkpoint
from .lm import snapshot
from .run import LmRun

LOOKED_THROUGH = 500  # documents, among which conversations are looked for
APART = 5  # rows from one to the next


def sample(run: Path, count: int, seed: int) -> Path:
    """Answer `count` conversations and return the page, RUN/samples/step_N.png.

    They are the first of the run's held-out sources, or else of its sources. Raises ValueError
    where the run has no checkpoint yet, or its data no answered conversation.
    """
    if not (run / "config.yaml").exists():
        raise ValueError(f"{run} is no run of `unimodal train lm`: it has no config.yaml")
    recipe = replace(config.saved(LmRun, run / "config.yaml"), output=run)
    newest = checkpoint.newest(run)
    if newest is None:
        raise ValueError(f"{run} has no checkpoint yet; they come every "
                         f"{recipe.loop.save_every_steps} steps")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=run, prefix=".sample-") as folder:
        model = bundle.load(snapshot(recipe, Path(folder) / "bundle"))
    asked, answers = zip(*islice(_conversations(recipe, model), count), strict=True)
    settings = [replace(model.sampling, seed=seed + number) for number in range(len(asked))]
    replies = generate(model, asked, settings)
    page = run / "samples" / f"step_{newest.step:08d}.png"
    shown = [
        _shown(model, question, reply, answer)
        for question, reply, answer in zip(asked, replies, answers, strict=True)
    ]
    save_image(document_sheet(shown), page)
    lines = [_spoken(*one) for one in zip(asked, replies, answers, strict=True)]
    page.with_suffix(".json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    return page


def _conversations(recipe: LmRun, model: Model) -> Iterator[tuple[Document, tuple[Part, ...]]]:
    """(what comes before the last answer, that answer) of documents that end with one."""
    sources = recipe.held_out.sources or recipe.sources
    settings = replace(recipe.loader, caption_dropout=0.0, stages=())
    loader = Loader(sources, model.sequencer, model.codec, settings)
    found = 0
    # Neighbours are alike, for they cost the same.
    apart = islice(planned_rows(loader.planner, loader.state), 0, None, APART)
    places = (row[0] for row, _ in apart if row)
    for place in islice(places, LOOKED_THROUGH):
        document = loader.row_builder.document(place)
        question, answer = _cut(document)
        if question is None:
            continue
        found += 1
        yield model.codec.encode_document(question), answer
    if not found:
        raise ValueError("the run's data has no conversation that ends with an answer")


def _cut(document: Document) -> tuple[Document | None, tuple[Part, ...]]:
    parts = document.parts
    begin = len(parts)
    while begin and parts[begin - 1].role == "assistant":
        begin -= 1
    if begin in (0, len(parts)):
        return None, ()
    return Document(parts[:begin]), parts[begin:]


def _shown(
    model: Model, question: Document, reply: Sequence[Part], answer: Sequence[Part]
) -> Document:
    """Return the question, what the model answers, and the data's own answer in black."""
    truth = [replace(part, role=None) for part in answer]
    said = [*reply] or [Text("(nothing)", role="assistant")]
    return model.codec.decode_document(Document((*question.parts, *said, *truth)))


def _spoken(question: Document, reply: Sequence[Part], answer: Sequence[Part]) -> dict[str, Any]:
    def words(parts: Sequence[Part]) -> str:
        return " ".join(p.text if isinstance(p, Text) else "(image)" for p in parts)

    return {
        "question": words(question.parts),
        "reply": words(reply),
        "answer": words(answer),
    }
