"""Document -> tokens, by a layout and an image head: the same for training, evaluation and chat.

The label of a token is the id of the next one, weighted by the part that this belongs to. Tokens
that a reply's grammar forces (roles, ends of rows and of images) are never learned; a turn's end
is, with the weight of its turn's last part. How an image stands in the sequence, and what is
learned of it, is the image head's to say.

Guidance dropout replaces each of the user's texts, images or both by what the layout has for the
unconditional branch (where that is a prompt, all that comes before the reply), in training and in
drawing alike. Text answers of a document with dropped parts are not learned: without its question
an answer is noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from .document import Document, Image, Part, Text
from .heads.head import ImageInputs, ImageTokens
from .layout import Piece
from .sequence import IGNORE, Sequence, Span
from .sequence import TEXT as TEXT_TARGET
from .text import TextTokenizer
from .vocabulary import Vocabulary

DROPS = (None, "text", "images", "both")
"""What guidance dropout takes of the user's parts; also the names of a drawing's branches."""
REPLY_ROLE = "assistant"
"""The role whose turn is sampled."""


class Sequencer:
    """Turns documents into sequences."""

    def __init__(
        self, vocabulary: Vocabulary, text: TextTokenizer, codec_hash: str, inputs: ImageInputs
    ):
        """inputs: the image head's side of a sequence. ValueError where the parts do not fit."""
        if text.num_ids != vocabulary.num_text:
            raise ValueError(
                f"{text.num_ids} text ids, but the vocabulary holds {vocabulary.num_text}"
            )
        self.vocabulary, self.text_tokenizer, self.codec_hash = vocabulary, text, codec_hash
        self.inputs = inputs
        self.layout = inputs.layout.bind(vocabulary, text)

    @property
    def key(self) -> str:
        """Return what, beside the tokenizers, the number of a document's tokens depends on: the
        layout, and the image head's own key.
        """
        return f"{self.layout.layout} {self.inputs.key}".strip()

    def sequence(
        self, document: Document, drop: str | None = None, key: tuple[int, ...] = ()
    ) -> Sequence:
        """Return the whole document, with the user's `drop` (one of DROPS) taken out.

        key: what noise on its images is drawn with, as (seed, epoch, unit).
        """
        return self._assemble(document, _Options(drop, key))

    def prompt(self, document: Document, drop: str | None = None) -> Sequence:
        """Return the document so far with what opens the assistant's turn: what a reply is sampled
        after. Nothing of it is learned.
        """
        return self._assemble(document, _Options(drop, closed=False))

    def measure(self, document: Document) -> dict[str | None, int]:
        """Return the tokens of `sequence(document, drop)` for each of DROPS, without making one.

        Images need their grid alone.
        """
        layout = self.layout.layout
        if layout.joined or layout.unconditional.kind == "prompt":
            all_options = (_Options(drop, measured=True) for drop in DROPS)
            return {options.drop: len(self._assemble(document, options)) for options in all_options}
        sizes = [self.part_length(part) for part in document.parts]
        around = self.ends_length
        for role, _ in groupby(part.role for part in document.parts):
            around += self.turn_length(role)
        return {
            drop: around + sum(
                len(self.layout.dropped(size)) if _is_dropped(part, drop) else size
                for part, size in zip(document.parts, sizes, strict=True)
            )
            for drop in DROPS
        }  # fmt: skip

    @property
    def ends_length(self) -> int:
        """Return the tokens that open and close a document."""
        return len(self._ids(self.layout.layout.begin)) + len(self._ids(self.layout.layout.end))

    def turn_length(self, role: str | None) -> int:
        """Return the tokens around the parts of a turn."""
        turn = self.layout.layout.turns.get(role) if role is not None else None
        if turn is None:
            return 0
        return len(self._ids(turn.before)) + len(self._ids(turn.after))

    def part_length(self, part: Part) -> int:
        """Return the tokens of a part that is not dropped; ValueError for a grid without a name."""
        if isinstance(part, Text):
            return len(self.text_tokenizer.encode(part.text))
        assert part.grid is not None, "an image that is measured has a grid"
        learned = part.weight > 0
        return self.layout.length(part.grid) + self.inputs.extra_length(part.grid, learned)

    def image(self, image: Image, key: tuple[int, ...] = (), learned: bool = False) -> ImageTokens:
        """Return the tokens of an image with what opens and closes it; ValueError for an image of
        another codec, or one that is not encoded.
        """
        if image.grid is None or (image.codes is None and image.latents is None):
            raise ValueError("an image must be encoded before it can enter a sequence")
        if image.codec_hash != self.codec_hash:
            raise ValueError(
                f"codes of tokenizer {image.codec_hash}, but the model reads {self.codec_hash}: "
                "encode the image again"
            )
        return self.inputs(self.layout, image, learned, key)

    def _ids(self, pieces: tuple[Piece, ...]) -> list[int]:
        return self.layout.ids(pieces)

    def _assemble(self, document: Document, options: "_Options") -> Sequence:
        if options.drop not in DROPS:
            raise ValueError(f"drop {options.drop!r}: one of {DROPS}")
        layout, turns = self.layout.layout, document.turns()
        made = _Assembly(self.text_tokenizer, layout.joined)
        if self._is_replaced(document, options):
            self._add_pieces(made, layout.unconditional.pieces, 0)
            if options.closed:
                first = len(document.parts) - len(turns[-1][1])
                self._add_turn(made, turns[-1], options, first, opened=True)
        else:
            self._add_pieces(made, layout.begin, 0)
            first = 0
            for turn in turns:
                self._add_turn(made, turn, options, first)
                first += len(turn[1])
            self._add_pieces(made, () if options.closed else layout.reply, 0)
        if options.closed:
            last = document.parts[-1] if document.parts else None
            weight = last.weight if last is not None and last.role is None else 0.0
            made.add(self._ids(layout.end), weight)
        return made.sequence()

    def _is_replaced(self, document: Document, options: "_Options") -> bool:
        """Tell whether the unconditional prompt stands for all that comes before the reply."""
        if options.drop is None or self.layout.layout.unconditional.kind != "prompt":
            return False
        return not options.closed or bool(document.parts and document.parts[-1].role == REPLY_ROLE)

    def _add_turn(
        self,
        made: "_Assembly",
        turn: tuple[str | None, list[Part]],
        options: "_Options",
        first: int,
        opened: bool = False,
    ) -> None:
        """Add a turn whose first part is number `first` of the document; `opened`: without what
        comes before its parts.
        """
        role, parts = turn
        around = self.layout.layout.turns.get(role) if role is not None else None
        if around is not None and not opened:
            self._add_pieces(made, around.before, 0)
        if role == REPLY_ROLE:  # is sampled behind the prompt, so never joined with it
            made.end_words()
        for number, part in enumerate(parts, start=first):
            self._add_part(made, part, options, number)
        if role == REPLY_ROLE:
            made.end_words()
        if around is not None:
            self._add_pieces(made, around.after, options.weight(parts[-1]))

    def _add_pieces(self, made: "_Assembly", pieces: tuple[Piece, ...], weight: float) -> None:
        """Add what stands around a turn; of it only what ends a reply is learned."""
        for piece in pieces:
            if isinstance(piece, str):
                made.add_text(piece, 0)
            else:
                made.add(self._ids((piece,)), weight if piece in self.layout.layout.stops else 0)

    def _add_part(self, made: "_Assembly", part: Part, options: "_Options", number: int) -> None:
        if _is_dropped(part, options.drop):
            self._add_dropped(made, part)
        elif isinstance(part, Text):
            made.add_text(part.text, options.weight(part))
        elif options.measured:
            made.add([0] * self.part_length(part), 0)
        else:
            made.add_image(self.image(part, (*options.key, number), options.weight(part) > 0))

    def _add_dropped(self, made: "_Assembly", part: Part) -> None:
        unconditional = self.layout.layout.unconditional
        if unconditional.kind == "padded":
            made.add(self.layout.dropped(self.part_length(part)), 0)
        elif unconditional.kind == "null":
            self._add_pieces(made, unconditional.pieces, 0)


@dataclass(frozen=True)
class _Options:
    """How a document is assembled: whole and learned from, or not `closed`, as a prompt; images as
    they are, or, where it is only measured, by their length.
    """

    drop: str | None = None
    key: tuple[int, ...] = ()
    closed: bool = True
    measured: bool = False

    def weight(self, part: Part) -> float:
        """Return what a part's targets weigh."""
        if not self.closed or (self.drop is not None and isinstance(part, Text)):
            return 0.0
        return part.weight


class _Assembly:
    """A sequence in the making: tokens, each with the weight with which it is learned."""

    def __init__(self, text: TextTokenizer, joined: bool) -> None:
        self._text, self._joined = text, joined
        self._words, self._words_weight = "", 0.0  # not encoded yet
        self._ids: list[int] = []  # causal tokens that are in no piece yet
        self._weights: list[float] = []
        self._pieces: list[ImageTokens] = []
        self._blocks = self._privates = 0  # numbers that are taken

    def add(self, ids: list[int], weight: float) -> None:
        """Add causal tokens."""
        if not ids:
            return
        self.end_words()
        self._ids += ids
        self._weights += [weight] * len(ids)

    def add_text(self, text: str, weight: float) -> None:
        """Add words; where words are joined, with those before them that weigh the same."""
        if not self._joined:
            self.add(self._text.encode(text), weight)
            return
        if weight != self._words_weight:
            self.end_words()
        self._words, self._words_weight = self._words + text, weight

    def end_words(self) -> None:
        """Join no words to those that were added."""
        words, self._words = self._words, ""
        if words:
            self.add(self._text.encode(words), self._words_weight)

    def add_image(self, tokens: ImageTokens) -> None:
        """Add an image's tokens; its blocks and private numbers become those of no other image."""
        self._end_run()
        self._pieces.append(tokens.numbered(self._blocks, self._privates))
        self._blocks += int(tokens.block.max(initial=0))
        self._privates += int(tokens.private.max(initial=0))

    def _end_run(self) -> None:
        self.end_words()
        if self._ids:
            self._pieces.append(ImageTokens.causal(self._ids, self._weights))
        self._ids, self._weights = [], []

    def sequence(self) -> Sequence:
        """Return all tokens with their labels: the next token's id, or a token's own target."""
        self._end_run()
        pieces = self._pieces = self._pieces or [ImageTokens.causal([], [])]
        ids, weights, own, block, private, address = (
            np.concatenate([getattr(piece, name) for piece in pieces])
            for name in ("ids", "weights", "own_labels", "block", "private", "address")
        )
        is_image, own_weights = (
            np.concatenate([getattr(piece, name) for piece in pieces])
            for name in ("is_image", "own_weights")
        )
        next_weights = _ahead(weights, 0)
        labels = np.where(next_weights > 0, _ahead(ids, IGNORE), IGNORE)
        modality = np.where(next_weights > 0, TEXT_TARGET + _ahead(is_image, False), 0)
        has_own = own_weights > 0
        return Sequence(
            ids=ids,
            labels=np.where(has_own, own, labels),
            weights=np.where(has_own, own_weights, next_weights).astype(np.float32),
            modality=np.where(has_own, TEXT_TARGET + 1, modality).astype(np.int8),
            block=block,
            private=private,
            positions=self._positions(),
            address=address,
            spans=tuple(self._spans()),
        )

    def _positions(self) -> np.ndarray:
        """Return each token's position; an image's private tokens share those of the others."""
        starts = np.cumsum([0, *(piece.num_positions for piece in self._pieces)])
        moved = [
            piece.positions + start for piece, start in zip(self._pieces, starts, strict=False)
        ]
        return np.concatenate(moved).astype(np.int64)

    def _spans(self) -> Iterator[Span]:
        start = 0
        for piece in self._pieces:
            yield from (span.moved(start) for span in piece.spans)
            start += len(piece.ids)


def _ahead(values: np.ndarray, last: float) -> np.ndarray:
    """Return for each token the value of the next one."""
    return np.append(values[1:], np.array(last, values.dtype))[: len(values)]


def _is_dropped(part: Part, drop: str | None) -> bool:
    kind = "text" if isinstance(part, Text) else "images"
    return part.role == "user" and drop in (kind, "both")


def encoded(document: Document, images: Iterator[Image]) -> Document:
    """Return the document with each image that has neither codes nor latents replaced by the next
    of `images`, its role and weight kept.
    """
    parts = [
        replace(next(images), role=part.role, weight=part.weight) if needs_codec(part) else part
        for part in document.parts
    ]
    return Document(tuple(parts))


def needs_codec(part: Part) -> bool:
    """Tell whether a part is an image that has not been encoded."""
    return isinstance(part, Image) and part.codes is None and part.latents is None
