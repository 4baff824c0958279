"""The sequencer converts documents to tokens, in the same way for training, evaluation and chat.

The label of a token is the id of the next token, with the loss weight of the part that the next
token belongs to. Tokens that the grammar of a reply leaves no choice for (roles, ends of rows and
of images) are never learned; the end of a turn is learned with the weight of the turn's last part.
The image head decides how an image is laid out and what is learned of it.

Guidance dropout replaces the user's texts, images or both by what the layout gives the
unconditional branch (where that is a prompt, all that comes before the reply), in training as in
drawing (classifier-free guidance, arXiv:2207.12598, alg. 1). In a document with dropped parts, text
answers are not learned: without its question an answer is noise.

A text with a box says what is to stand where; a model that was not trained on boxes refuses it.

With a vision tower (tower.py) an image that is given enters as soft vectors; it is context then,
whatever its weight.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from unimodal.tokenizer.grid import Grid

from .assembly import Assembly
from .document import Document, Image, Part, Text, with_words
from .heads.head import ImageInputs, ImageTokens
from .layout import Layout, Piece
from .sequence import Sequence, Span
from .text import TextTokenizer
from .tower import Tower, is_given
from .vocabulary import Vocabulary

DROPS = (None, "text", "images", "both")
"""Which of the user's parts guidance dropout removes; also the names of branches in drawing."""
NO_BOXES = "this model was not trained on boxes (`model.boxes` of its recipe): leave them out"
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
        boxes: bool = False,
        two_way: bool = False,
    ):
        """Bind the layout. inputs: the image head's `inputs`. max_side: that of the architecture,
        which a grid's sides may not exceed. tower: the vision tower by which images that are given
        enter; None: they enter as drawn ones do. layout: None: the image head's own. boxes: whether
        texts may have boxes. two_way: whether the tokens of a user's turn, which is context then
        whatever its weight, see each other both ways.

        Raise ValueError where the text tokenizer does not fit the vocabulary.
        """
        if text.num_ids != vocabulary.num_text:
            raise ValueError(
                f"{text.num_ids} text ids, but the vocabulary holds {vocabulary.num_text}"
            )
        self.vocabulary, self.text_tokenizer, self.codec_hash = vocabulary, text, codec_hash
        self.inputs, self.tower, self.boxes, self.two_way = inputs, tower, boxes, two_way
        self.layout = (layout or inputs.layout).bind(vocabulary, text, max_side)

    @cached_property
    def drawing(self) -> "Sequencer":
        """Return the sequencer of requests for an image alone: this one, unless the layout has
        another for these.
        """
        layout = self.layout.layout.drawing
        return self if layout is None else self._with(layout)

    def _drawing_of(self, grid: Grid | None) -> "Sequencer":
        """Return the sequencer of requests for an image of a grid."""
        drawing = self.drawing
        if drawing is self or grid is None:
            return drawing
        layout = drawing.layout.layout.sized(grid)
        return drawing if layout is drawing.layout.layout else self._with(layout)

    def _with(self, layout: Layout) -> "Sequencer":
        return Sequencer(
            self.vocabulary, self.text_tokenizer, self.codec_hash, self.inputs,
            self.layout.max_side, self.tower, layout, self.boxes, self.two_way,
        )  # fmt: skip

    def of(self, document: Document) -> "Sequencer":
        """Return the sequencer by which a whole document is laid out: `drawing` where it is words
        and the image that grants them.
        """
        match document.turns():
            case [("user", words), ("assistant", [Image(grid=grid)])] if not _images(words):
                return self._drawing_of(grid)
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
        if self.takes_boxes:
            found += " boxes"
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
        made = Assembly(self.text_tokenizer, self.layout.layout.joined)
        said = tuple(words if isinstance(piece, str) else piece for piece in pieces)
        self._add_pieces(made, said, 0)
        return made.sequence()

    def measure(self, document: Document) -> dict[str | None, int]:
        """Return the length in tokens of `sequence(document, drop)` for each of DROPS.

        The sequences are not made; of images only the grid is used.
        """
        own = self.of(document)
        if own is not self:
            return own.measure(document)
        layout = self.layout.layout
        unconditional = layout.unconditional
        if layout.joined or unconditional.replaces_prompt or unconditional.kind == "masked":
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

        Raise ValueError for an image whose grid the layout cannot name, and for a box where there
        are none.
        """
        if isinstance(part, Text):
            return len(self._box(part)) + len(self.text_tokenizer.encode(part.text))
        soft = len(self._soft_ids()[0]) if self.is_soft(part) else 0
        if not self.has_codes(part):
            return soft
        assert part.grid is not None, "an image that is measured has a grid"
        learned = part.weight > 0 and not soft
        return soft + self.layout.length(part.grid) + self.inputs.extra_length(part.grid, learned)

    @property
    def takes_boxes(self) -> bool:
        """Return whether texts may have boxes."""
        return self.boxes and self.layout.layout.box is not None

    def _box(self, part: Text) -> list[int]:
        """Return the ids that say where the box of a text is; none where it has no box. Raise
        ValueError for a box where there are none.
        """
        if part.box is None:
            return []
        if not self.takes_boxes:
            raise ValueError(f"{part.text[:80]!r} has a box, and {NO_BOXES}")
        return self.layout.box(part.box)

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
        made = Assembly(self.text_tokenizer, layout.joined)
        if self._is_replaced(document, options):
            # The unconditional prompt, then the reply alone, whose opening is part of the prompt.
            first = len(document.parts) - (len(turns[-1][1]) if options.closed else 0)
            self._add_pieces(made, layout.unconditional.pieces, 0)
            self._add_kept(made, document.parts[:first], options)
            if options.closed:
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
        if options.drop is None or not self.layout.layout.unconditional.replaces_prompt:
            return False
        return not options.closed or bool(document.parts and document.parts[-1].role == REPLY_ROLE)

    def _add_turn(
        self,
        made: Assembly,
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
        is_two_way, start = self.two_way and role == "user", made.length if self.two_way else 0
        if is_two_way:
            parts = [replace(part, weight=0.0) for part in parts]
        for number, part in enumerate(parts, start=first):
            self._add_part(made, part, options, number)
        if is_two_way:
            made.two_way(start)
        if role == REPLY_ROLE:
            made.end_words()
        if around is not None:
            self._add_pieces(made, around.after, options.weight(parts[-1]))

    def _add_kept(self, made: Assembly, parts: tuple[Part, ...], options: "_Options") -> None:
        """Add the images before the reply, where the unconditional prompt keeps them."""
        if self.layout.layout.unconditional.kind != "images" or options.drop != "text":
            return
        for number, part in enumerate(parts):
            if isinstance(part, Image):
                self._add_part(made, part, options, number)

    def _mask(self, made: Assembly, options: "_Options") -> None:
        """Mask all but the first token so far, where that is what the unconditional branch reads
        in place of the prompt.
        """
        unconditional = self.layout.layout.unconditional
        if options.drop is not None and unconditional.kind == "masked":
            made.mask(self._ids(unconditional.pieces))

    def _add_pieces(self, made: Assembly, pieces: tuple[Piece, ...], weight: float) -> None:
        """Add pieces of the layout; only those that end a reply are learned, with `weight`."""
        for piece in pieces:
            if isinstance(piece, str):
                made.add_text(piece, 0)
            else:
                made.add(self._ids((piece,)), weight if piece in self.layout.layout.stops else 0)

    def _add_part(self, made: Assembly, part: Part, options: "_Options", number: int) -> None:
        masked = self.layout.layout.unconditional.kind == "masked"
        if _is_dropped(part, options.drop) and not masked:
            self._add_dropped(made, part)
        elif isinstance(part, Text):
            made.add(self._box(part), options.weight(part))
            made.add_text(part.text, options.weight(part))
        elif options.measured:
            made.add([0] * self.part_length(part), 0)
        else:
            if self.is_soft(part):
                made.add_image(self._soft_image(part))
            if self.has_codes(part):
                learned = options.weight(part) > 0 and not self.is_soft(part)
                made.add_image(self.image(part, (*options.key, number), learned))

    def _add_dropped(self, made: Assembly, part: Part) -> None:
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


def _images(parts: list[Part]) -> list[Image]:
    return [part for part in parts if isinstance(part, Image)]


def _is_dropped(part: Part, drop: str | None) -> bool:
    kind = "text" if isinstance(part, Text) else "images"
    return part.role == "user" and drop in (kind, "both")
