"""Documents that are no conversations: a model goes on with one, as it learned it.

In: a model, and a document. Out: a beginning of the document, and a model whose replies are what
follows it: no turn is opened, and what ends a document ends the reply.
"""

from dataclasses import fields, replace
from functools import cached_property
from typing import Any

from unimodal.document import Document, Part, Text
from unimodal.layout import Special
from unimodal.model import Model
from unimodal.sequencer import Sequencer

SHOWN = 1 / 3  # of a text that stands alone, how much is its beginning


class Continuing(Model):
    """A Continuing model is one whose replies go on with a document."""

    @classmethod
    def of(cls, model: Model) -> "Continuing":
        """Return the same model; ValueError where its layout has nothing that ends a document."""
        made = cls(**{field.name: getattr(model, field.name) for field in fields(model)})
        if not made.sequencer.layout.stops:
            raise ValueError("a document of this layout has no end: there is nothing to go on to")
        return made

    @cached_property
    def sequencer(self) -> Sequencer:
        inputs: Any = self.transformer.head.inputs  # a dataclass, as all of them are
        ends = tuple(piece for piece in inputs.layout.end if isinstance(piece, Special))
        bare = replace(inputs.layout, reply=(), stops=ends)
        codec_hash, architecture = self.image_tokenizer.hash, self.transformer.architecture
        return Sequencer(
            self.vocabulary, self.text_tokenizer, codec_hash, replace(inputs, layout=bare),
            architecture.max_side, architecture.image.tower, boxes=architecture.image.boxes,
            two_way=architecture.image.two_way,
        )  # fmt: skip


def cut(document: Document) -> tuple[Document, tuple[Part, ...]] | None:
    """Return a document's beginning and what follows it: its first part and the others, or the
    first third of a text that stands alone. None for a conversation, and for one image or word.
    """
    first, *others = document.parts or (Text(""),)
    if any(part.role is not None for part in document.parts):
        return None
    if others:
        return Document((first,)), tuple(others)
    if not isinstance(first, Text):
        return None
    words = first.text.split(" ")
    begin = " ".join(words[: max(1, round(SHOWN * len(words)))])
    if len(begin) == len(first.text):
        return None
    rest = first.text[len(begin) :]
    return Document((replace(first, text=begin),)), (replace(first, text=rest),)
