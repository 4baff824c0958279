"""Prompts from the user's own shards, conversations up to their last reply; or those of scenes."""

from collections.abc import Mapping

import numpy as np

from unimodal.codec import ImageCodec
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.scenes.world import generator
from unimodal.data.sources import SourceConfig
from unimodal.data.streams import Stream
from unimodal.data.windows import Placement
from unimodal.document import Document, Image
from unimodal.eval.scenes import canvas_of
from unimodal.grammar import Modality
from unimodal.model import Model
from unimodal.room import refusal
from unimodal.sequencer import NO_BOXES, REPLY_ROLE

from . import kinds
from .prompts import KIND, Prompt, Prompts, ScenePrompts
from .run import PromptsConfig

TRIED = 256  # documents, of which one must be a prompt


def prompts_of(
    config: PromptsConfig, model: Model, modality: Modality | None, seed: int
) -> Prompts:
    """Return what a config asks a model that is to reply so; `seed` orders the documents of shards.

    Raise ValueError where the model's context, or its vocabulary, has no room for some kind.
    """
    if kinds.LAYOUT in config.mix and not model.takes_boxes:
        raise ValueError(f"prompts.mix.{kinds.LAYOUT}: {NO_BOXES}")
    draws = modality != "text"
    least = 1 + (model.sequencer.layout.length(model.grid) if draws else 1)
    if config.mix:
        return ScenePrompts(config, model, canvas_of(model), least)
    return ShardPrompts(config.sources, model, seed, least)


class ShardPrompts:
    """ShardPrompts are drawn from sources by their weights; passes over each are in random orders,
    as the loader's are. A document that cannot be asked is passed over.
    """

    def __init__(
        self, sources: Mapping[str, SourceConfig], model: Model, seed: int, least: int
    ) -> None:
        """Measure the shards. `least`: how many tokens a reply must have room for."""
        settings = LoaderConfig(sequence_length=model.context, caption_dropout=0.0, seed=seed)
        loader = Loader(sources, model.sequencer, model.codec, settings)
        self._model, self._seed, self._least = model, seed, least
        self._rows, self._streams = loader.row_builder, loader.planner.streams
        total = sum(sources[stream.name].weight for stream in self._streams)
        self._shares = {
            stream.name: sources[stream.name].weight / total for stream in self._streams
        }
        self.kinds = tuple(self._shares)

    def __call__(self, number: int) -> Prompt:
        """Return the prompt of a number. Raise ValueError where its source has none to ask."""
        kind = kinds.draw(self._shares, generator(self._seed, number, KIND))
        at = self.kinds.index(kind)
        stream = self._streams[at]
        for attempt in range(TRIED):
            # The same place of a later pass: the next one is that of another prompt.
            unit = number + attempt * sum(stream.sizes)
            place = _place(stream, at, unit, self._seed)
            document = asked_of(self._rows.document(place))
            if document is None:
                continue
            encoded = self._model.codec.encode_document(document)
            if refusal(self._model.sequencer, encoded, self._model.context, self._least) is None:
                return Prompt(kind, seen(encoded, self._model.codec))
        raise ValueError(
            f"prompts.sources.{kind}: {TRIED} documents have nothing to ask: a conversation that "
            "a user begins, and that leaves the model's context room for a reply, is wanted"
        )


def seen(document: Document, codec: ImageCodec) -> Document:
    """Return a document whose images have pixels, to be judged: their own, or those of codes that
    were stored alone.
    """
    parts = (
        codec.decode([part])[0] if isinstance(part, Image) and part.pixels is None else part
        for part in document.parts
    )
    return Document(tuple(parts))


def asked_of(document: Document) -> Document | None:
    """Return a conversation up to its last reply; None for a document that asks nothing."""
    parts = document.parts
    end = len(parts)
    while end and parts[end - 1].role == REPLY_ROLE:
        end -= 1
    return Document(parts[:end]) if end and parts[end - 1].role == "user" else None


def _place(stream: Stream, number: int, unit: int, seed: int) -> Placement:
    """Return the unit that has this number in the endless passes over a stream."""
    groups, alone = stream.sizes
    assert not groups, "units of rows that are planned alone stand alone"
    units = stream.units((0, unit), 1, seed, 0.0)
    first = (column[0] for column in (units.epochs, units.numbers, units.records))
    epoch, at, record = (int(np.int64(value)) for value in first)
    return Placement(number, epoch, at, record, 0, int(units.lengths[0]))
