"""The sequencer converts documents to tokens, in the same way for training, evaluation and chat.

The label of a token is the id of the next token, with the loss weight of the part that the next
token belongs to. Tokens that the grammar of a reply leaves no choice for (roles, ends of rows and
of images) are never learned; the end of a turn is learned with the weight of the turn's last part.
The image head decides how an image is laid out and what is learned of it.

Guidance dropout replaces the user's texts, images or both by what the layout gives the
unconditional branch (where that is a prompt, all that comes before the reply), in training as in
drawing (classifier-free guidance, arXiv:2207.12598, alg. 1). In a document with dropped parts, text
answers are not learned: without its question an answer is noise.

With a vision tower (tower.py) an image that is given enters as soft vectors; it is context then,
whatever its weight.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np

from .document import Document, Image, Part, Text, with_words
from .heads.head import ImageInputs, ImageTokens
from .layout import Layout, Piece
from .sequence import IGNORE, Sequence, Span
from .sequence import IMAGE as IMAGE_TARGET
from .sequence import TEXT as TEXT_TARGET
from .text import TextTokenizer
from .tower import Tower, is_given
from .vocabulary import Vocabulary

DROPS = (None, "text", "images", "both")
"""Which of the user's parts guidance dropout removes; also the names of branches in drawing."""
REPLY_ROLE = "assistant"
"""The role whose turns the model samples."""


class Sequencer:
    """A Sequencer converts documents to sequences, for one vocabulary and one image head."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        text: TextTokenizer,
        codec_hash: str,
        inputs: ImageInputs,
        max_side: int | None = None,
        tower: Tower | None = None,
        layout: Layout | None = None,
    ):
        """Bind the layout. inputs: the image head's `inputs`. max_side: that of the architecture,
        which a grid's sides may not exceed. tower: the vision tower by which images that are given
        enter; None: they enter as drawn ones do. layout: None: the image head's own.

        Raise ValueError where the text tokenizer does not fit the vocabulary.
        """
        if text.num_ids != vocabulary.num_text:
            raise ValueError(
                f"{text.num_ids} text ids, but the vocabulary holds {vocabulary.num_text}"
            )
        self.vocabulary, self.text_tokenizer, self.codec_hash = vocabulary, text, codec_hash
        self.inputs, self.tower = inputs, tower
        self.layout = (layout or inputs.layout).bind(vocabulary, text, max_side)

    @cached_property
    def drawing(self) -> "Sequencer":
        """Return the sequencer of requests for an image alone: this one, unless the layout has
        another for these.
        """
        layout = self.layout.layout.drawing
        if layout is None:
            return self
        return Sequencer(
            self.vocabulary, self.text_tokenizer, self.codec_hash, self.inputs,
            self.layout.max_side, self.tower, layout,
        )  # fmt: skip

    def of(self, document: Document) -> "Sequencer":
        """Return the sequencer by which a whole document is laid out: `drawing` where it is words
        and the image that grants them.
        """
        match document.turns():
            case [("user", words), ("assistant", [Image()])] if not _images(words):
                return self.drawing
        return self

    @property
    def key(self) -> str:
        """Return a key of all, but the tokenizers, that the lengths of documents depend on.

        It consists of the layout, the image head's own key, and that of a vision tower.
        """
        # The layout's repr, so renaming a class or field of layout.py would void stored lengths.
        sides = f"sides to {self.layout.max_side}" if self.layout.max_side else ""
        found = f"{self.layout.layout} {self.inputs.key} {sides}".strip()
        if self.drawing is not self:
            found = f"{found} {self.drawing.layout.layout}"
        if self.tower is None:
            return found
        codes = " and codes" if self.tower.codes else ""
        return f"{found} tower of {len(self._soft_ids()[0])} tokens{codes}"

    def sequence(
        self, document: Document, drop: str | None = None, key: tuple[int, ...] = ()
    ) -> Sequence:
        """Return the sequence of a whole document.

        drop: which of the user's parts are dropped, one of DROPS. key: the key, such as
        (seed, epoch, unit), of the generator that draws noise on its images.
        """
        return self.of(document)._assemble(document, _Options(drop, key))

    def prompt(self, document: Document, drop: str | None = None) -> Sequence:
        """Return the sequence that a reply is sampled after; nothing of it is learned.

        It is the document so far and the opening of the assistant's turn. drop: as for `sequence`.
        """
        return self._assemble(document, _Options(drop, closed=False))

    def negative(self, document: Document, words: str) -> Sequence:
        """Return the prompt that guidance leads away from, where that says `words`: they take the
        place of the layout's own, or else of the user's latest ones.
        """
        pieces = self.layout.layout.unconditional.pieces
        if not any(isinstance(piece, str) for piece in pieces):
            return self.prompt(with_words(document, words))
        made = _Assembly(self.text_tokenizer, self.layout.layout.joined)
        said = tuple(words if isinstance(piece, str) else piece for piece in pieces)
        self._add_pieces(made, said, 0)
        return made.sequence()

    def measure(self, document: Document) -> dict[str | None, int]:
        """Return the length in tokens of `sequence(document, drop)` for each of DROPS.

        The sequences are not made; of images only the grid is used.
        """
        if self.of(document) is not self:
            return self.drawing.measure(document)
        layout = self.layout.layout
        if layout.joined or layout.unconditional.kind in ("prompt", "masked"):
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
        """Return how many tokens open and close a document."""
        return len(self._ids(self.layout.layout.begin)) + len(self._ids(self.layout.layout.end))

    def turn_length(self, role: str | None) -> int:
        """Return how many tokens stand around the parts of a turn."""
        turn = self.layout.layout.turns.get(role) if role is not None else None
        if turn is None:
            return 0
        return len(self._ids(turn.before)) + len(self._ids(turn.after))

    def part_length(self, part: Part) -> int:
        """Return how many tokens a part takes that is not dropped.

        Raise ValueError for an image whose grid the layout cannot name.
        """
        if isinstance(part, Text):
            return len(self.text_tokenizer.encode(part.text))
        soft = len(self._soft_ids()[0]) if self.is_soft(part) else 0
        if not self.has_codes(part):
            return soft
        assert part.grid is not None, "an image that is measured has a grid"
        learned = part.weight > 0 and not soft
        return soft + self.layout.length(part.grid) + self.inputs.extra_length(part.grid, learned)

    def has_codes(self, part: Part) -> bool:
        """Return whether an image enters as what the image tokenizer makes of it."""
        return self.tower is None or self.tower.codes or not self.is_soft(part)

    def is_soft(self, part: Part) -> bool:
        """Return whether a part is an image that enters by the vision tower: it is given, or it was
        drawn, where requests to draw are laid out in a way of their own and this is the other one.
        """
        if self.tower is None or not isinstance(part, Image):
            return False
        return is_given(part) or self.layout.layout.drawing is not None

    def _soft_ids(self) -> tuple[list[int], int]:
        assert self.tower is not None, "only a vision tower makes soft vectors"
        return self.layout.soft_image(self.tower.grid.size)

    def _soft_image(self, image: Image) -> ImageTokens:
        """Return the tokens of an image that enters as soft vectors. Nothing of it is learned.

        Raise ValueError for an image without pixels.
        """
        assert self.tower is not None, "only a vision tower makes soft vectors"
        if image.pixels is None:
            raise ValueError(
                "the model's vision tower reads the pixels of an image that it is given, and this "
                "one has codes alone: give the image itself"
            )
        (ids, first), grid = self._soft_ids(), self.tower.grid
        span = Span(first, first + grid.size, grid, pixels=self.tower.view(image.pixels))
        return ImageTokens.causal(ids, [0] * len(ids), spans=(span,))

    def image(self, image: Image, key: tuple[int, ...] = (), learned: bool = False) -> ImageTokens:
        """Return the tokens of an image, its opening and closing included.

        key: as for `sequence`, with the part's number. learned: whether the image is predicted.
        Raise ValueError for an image that is not encoded, or was encoded by another codec.
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
        """Return the sequence of a document; raise ValueError where `drop` is unknown."""
        if options.drop not in DROPS:
            raise ValueError(f"drop {options.drop!r}: one of {DROPS}")
        layout, turns = self.layout.layout, document.turns()
        made = _Assembly(self.text_tokenizer, layout.joined)
        if self._is_replaced(document, options):
            # The unconditional prompt, then the reply alone, whose opening is part of the prompt.
            self._add_pieces(made, layout.unconditional.pieces, 0)
            if options.closed:
                first = len(document.parts) - len(turns[-1][1])
                self._add_turn(made, turns[-1], options, first, opened=True)
        else:
            self._add_pieces(made, layout.begin, 0)
            first = 0
            for number, turn in enumerate(turns, start=1):
                self._add_turn(made, turn, options, first, last=number == len(turns))
                first += len(turn[1])
            if not options.closed:
                self._add_pieces(made, layout.reply, 0)
                self._mask(made, options)
        if options.closed:
            last = document.parts[-1] if document.parts else None
            weight = last.weight if last is not None and last.role is None else 0.0
            made.add(self._ids(layout.end), weight)
        return made.sequence()

    def _is_replaced(self, document: Document, options: "_Options") -> bool:
        """Return whether the unconditional prompt replaces all that comes before the reply."""
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
        last: bool = False,
    ) -> None:
        """Add a turn. first: the number of its first part in the document. opened: whether what
        stands before its parts is there already. last: whether no turn follows.
        """
        role, parts = turn
        around = self.layout.layout.turns.get(role) if role is not None else None
        if around is not None and not opened:
            self._add_pieces(made, around.before, 0)
        if role == REPLY_ROLE:  # a reply is sampled behind an encoded prompt: never join them
            made.end_words()
            if last and options.closed:
                self._mask(made, options)
        for number, part in enumerate(parts, start=first):
            self._add_part(made, part, options, number)
        if role == REPLY_ROLE:
            made.end_words()
        if around is not None:
            self._add_pieces(made, around.after, options.weight(parts[-1]))

    def _mask(self, made: "_Assembly", options: "_Options") -> None:
        """Mask all but the first token so far, where that is what the unconditional branch reads
        in place of the prompt.
        """
        unconditional = self.layout.layout.unconditional
        if options.drop is not None and unconditional.kind == "masked":
            made.mask(self._ids(unconditional.pieces))

    def _add_pieces(self, made: "_Assembly", pieces: tuple[Piece, ...], weight: float) -> None:
        """Add pieces of the layout; only those that end a reply are learned, with `weight`."""
        for piece in pieces:
            if isinstance(piece, str):
                made.add_text(piece, 0)
            else:
                made.add(self._ids((piece,)), weight if piece in self.layout.layout.stops else 0)

    def _add_part(self, made: "_Assembly", part: Part, options: "_Options", number: int) -> None:
        masked = self.layout.layout.unconditional.kind == "masked"
        if _is_dropped(part, options.drop) and not masked:
            self._add_dropped(made, part)
        elif isinstance(part, Text):
            made.add_text(part.text, options.weight(part))
        elif options.measured:
            made.add([0] * self.part_length(part), 0)
        else:
            if self.is_soft(part):
                made.add_image(self._soft_image(part))
            if self.has_codes(part):
                learned = options.weight(part) > 0 and not self.is_soft(part)
                made.add_image(self.image(part, (*options.key, number), learned))

    def _add_dropped(self, made: "_Assembly", part: Part) -> None:
        unconditional = self.layout.layout.unconditional
        if unconditional.kind == "padded":
            made.add(self.layout.dropped(self.part_length(part)), 0)
        elif unconditional.kind == "null":
            self._add_pieces(made, unconditional.pieces, 0)


@dataclass(frozen=True)
class _Options:
    """_Options say how a document is assembled.

    closed: a whole document that is learned from; False: a prompt. measured: images are replaced by
    placeholders of the same length. drop and key: as for Sequencer.sequence.
    """

    drop: str | None = None
    key: tuple[int, ...] = ()
    closed: bool = True
    measured: bool = False

    def weight(self, part: Part) -> float:
        """Return the loss weight of a part's targets."""
        if not self.closed or (self.drop is not None and isinstance(part, Text)):
            return 0.0
        return part.weight


class _Assembly:
    """An _Assembly collects the tokens of a sequence, each with the weight of its loss."""

    def __init__(self, text: TextTokenizer, joined: bool) -> None:
        self._text, self._joined = text, joined
        self._words, self._words_weight = "", 0.0  # joined text that is not encoded yet
        self._ids: list[int] = []  # causal tokens that are not in self._runs yet
        self._weights: list[float] = []
        self._runs: list[ImageTokens] = []  # images, and runs of text between them
        self._blocks = self._privates = 0  # the largest numbers in use

    def add(self, ids: list[int], weight: float) -> None:
        """Add causal tokens."""
        if not ids:
            return
        self.end_words()
        self._ids += ids
        self._weights += [weight] * len(ids)

    def add_text(self, text: str, weight: float) -> None:
        """Add a text; a joined layout encodes it together with texts before it of equal weight."""
        if not self._joined:
            self.add(self._text.encode(text), weight)
            return
        if weight != self._words_weight:
            self.end_words()
        self._words, self._words_weight = self._words + text, weight

    def end_words(self) -> None:
        """Encode the texts that wait to be joined: what follows is not joined with them."""
        words, self._words = self._words, ""
        if words:
            self.add(self._text.encode(words), self._words_weight)

    def add_image(self, tokens: ImageTokens) -> None:
        """Add an image's tokens, with block and private numbers that no other image has."""
        self._end_run()
        self._runs.append(tokens.numbered(self._blocks, self._privates))
        self._blocks += int(tokens.block.max(initial=0))
        self._privates += int(tokens.private.max(initial=0))

    def mask(self, ids: list[int]) -> None:
        """Replace each token so far but the first by `ids`, which are one; none is learned."""
        self._end_run()
        first, *others = np.concatenate([run.ids for run in self._runs]).tolist()
        self._runs, self._ids = [], [first, *ids * len(others)]
        self._weights = [0.0] * len(self._ids)

    def _end_run(self) -> None:
        self.end_words()
        if self._ids:
            self._runs.append(ImageTokens.causal(self._ids, self._weights))
        self._ids, self._weights = [], []

    def sequence(self) -> Sequence:
        """Return all tokens with their labels.

        A label is the id of the next token, or a token's own target (ImageTokens.own_labels).
        """
        self._end_run()
        runs = self._runs = self._runs or [ImageTokens.causal([], [])]
        ids, weights, own, block, private, address = (
            np.concatenate([getattr(run, name) for run in runs])
            for name in ("ids", "weights", "own_labels", "block", "private", "address")
        )
        is_image, own_weights = (
            np.concatenate([getattr(run, name) for run in runs])
            for name in ("is_image", "own_weights")
        )
        next_weights = _ahead(weights, 0)
        labels = np.where(next_weights > 0, _ahead(ids, IGNORE), IGNORE)
        next_modality = np.where(_ahead(is_image, False), IMAGE_TARGET, TEXT_TARGET)
        modality = np.where(next_weights > 0, next_modality, 0)
        has_own = own_weights > 0
        return Sequence(
            ids=ids,
            labels=np.where(has_own, own, labels),
            weights=np.where(has_own, own_weights, next_weights).astype(np.float32),
            modality=np.where(has_own, IMAGE_TARGET, modality).astype(np.int8),
            block=block,
            private=private,
            positions=self._positions(),
            address=address,
            spans=tuple(self._spans()),
        )

    def _positions(self) -> np.ndarray:
        """Return each token's RoPE position, int64 (n,).

        Private tokens of an image share positions with its public ones, so that what follows an
        image has the same positions in training and in chat.
        """
        starts = np.cumsum([0, *(run.num_positions for run in self._runs)])
        moved = [run.positions + start for run, start in zip(self._runs, starts, strict=False)]
        return np.concatenate(moved).astype(np.int64)

    def _spans(self) -> Iterator[Span]:
        start = 0
        for run in self._runs:
            yield from (span.moved(start) for span in run.spans)
            start += len(run.ids)


def _ahead(values: np.ndarray, last: float) -> np.ndarray:
    """Return for each token the value of the next token, and `last` for the last one."""
    return np.append(values[1:], np.array(last, values.dtype))[: len(values)]


def _images(parts: list[Part]) -> list[Image]:
    return [part for part in parts if isinstance(part, Image)]


def _is_dropped(part: Part, drop: str | None) -> bool:
    kind = "text" if isinstance(part, Text) else "images"
    return part.role == "user" and drop in (kind, "both")


def encoded(
    document: Document,
    images: Iterator[Image],
    replaces: Callable[[Part], bool] | None = None,
) -> Document:
    """Return the document with its images that are not encoded replaced by `images`, in order.

    Roles and weights are kept. replaces: which parts are replaced, instead.
    """
    is_replaced = replaces or needs_codec
    parts = [
        replace(next(images), role=part.role, weight=part.weight) if is_replaced(part) else part
        for part in document.parts
    ]
    return Document(tuple(parts))


def needs_codec(part: Part) -> bool:
    """Return whether a part is an image that has neither codes nor latents."""
    return isinstance(part, Image) and part.codes is None and part.latents is None
