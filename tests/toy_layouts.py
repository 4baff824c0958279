"""Layouts like those of published models, over vocabularies of a few hundred ids.

They differ from ours in what a reader or a grammar might take for granted: codes lie below the
text, in runs of any order, or far from everything; sizes are digits, or unsaid; rows and images end
otherwise or not at all; words are joined before they are encoded; roles go unnamed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unimodal.document import Document, Image
from unimodal.heads.next_code import NextCodeInputs
from unimodal.layout import OWN_LAYOUT, ImageLayout, Layout, Side, Special, Turn, Unconditional
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

NUM_CODES = 64
HASH = "ab" * 32
TEXTS = [  # with words that are one token only where they are not cut
    "a red star", "draw it, please", "You are a helpful assistant. USER: x. ASSISTANT: y",
    ":: ::: a:: b:: c:::", "a\n\n:", "x.. y.. z..",
] * 9  # fmt: skip


class ShiftedText(TextTokenizer):
    """A text tokenizer whose ids begin at `first`: below lie ids that no text can hold."""

    def __init__(self, inner: TextTokenizer, first: int) -> None:
        self.inner, self.first = inner, first
        self.num_ids = first + inner.num_ids

    @property
    def spelled(self) -> np.ndarray:
        return np.arange(self.num_ids) >= self.first

    def encode(self, text: str) -> list[int]:
        return [token + self.first for token in self.inner.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode([token - self.first for token in ids])


@dataclass(frozen=True, eq=False, repr=False)
class Toy:
    """A layout with a vocabulary and the grids that its images may have."""

    layout: Layout
    vocabulary: Vocabulary
    text: TextTokenizer
    grids: tuple[Grid, ...]
    names_roles: bool = True

    @property
    def sequencer(self) -> Sequencer:
        return Sequencer(self.vocabulary, self.text, HASH, NextCodeInputs(self.layout))

    @property
    def untold(self) -> tuple[Grid, ...]:
        """The grids, where the layout does not say them."""
        sides = [piece for piece in self.layout.image.opening if isinstance(piece, Side)]
        return () if sides else self.grids

    def image(self, role: str, seed: int, weight: float = 1.0) -> Image:
        rng = np.random.default_rng(seed)
        grid = self.grids[seed % len(self.grids)]
        codes = rng.integers(0, NUM_CODES, (grid.size, 1))
        return Image(codes=codes, grid=grid, codec_hash=HASH, role=role, weight=weight)

    def spelled(self, *pieces: str | int | list[int]) -> list[int]:
        """Ids by hand: a special token as <name>, a code by its number, other words as one text."""
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, list):
                ids += self.vocabulary.code_ids[piece].tolist()
            elif isinstance(piece, int):
                ids.append(piece)
            elif piece.startswith("<") and piece.endswith(">"):
                ids.append(self.vocabulary.special_tokens[piece[1:-1]])
            else:
                ids += self.text.encode(piece)
        return ids


def content(document: Document, roles: bool = True) -> list[tuple]:
    """(role, text or grid and codes), neighbouring texts of a role joined: ids cannot tell them
    apart.
    """
    found: list[tuple] = []
    for part in document.parts:
        role = part.role if roles else None
        if isinstance(part, Image):
            found.append((role, part.grid, tuple(part.codes[:, 0].tolist())))
        elif found and found[-1][0] == role and isinstance(found[-1][1], str):
            found[-1] = (role, found[-1][1] + part.text)
        else:
            found.append((role, part.text))
    return found


def special(names: str, first: int) -> dict[str, int]:
    return {name: first + k for k, name in enumerate(names.split())}


BPE = TextTokenizer.train(TEXTS, 300)


def chameleon() -> Toy:
    """Ids 0 to 3 special, then codes, then special tokens, then text; one size, which goes unsaid;
    no row ends; turns by their ends alone; an unconditional prompt that keeps images.
    """
    tokens = special("begin pad end null", 0) | special("image_end image turn_end", 4 + NUM_CODES)
    text = ShiftedText(BPE, 80)
    turn = Turn((), (Special("turn_end"),))
    layout = Layout(
        begin=(Special("begin"),),
        end=(Special("end"),),
        turns={"user": turn, "assistant": turn},
        reply=(),
        stops=(Special("turn_end"), Special("end")),
        image=ImageLayout(opening=(Special("image"),), closing=(Special("image_end"),)),
        unconditional=Unconditional("images", (Special("begin"),)),
    )
    vocabulary = Vocabulary(text.num_ids, tokens, ((4, NUM_CODES),))
    return Toy(layout, vocabulary, text, (Grid(2, 3),), names_roles=False)


def lumina() -> Toy:
    """As Chameleon's, with sizes of two codes a step, rows that end, and an unconditional prompt
    of nothing at all.
    """
    base = chameleon()
    sizes = special("size_1 size_2 size_3 row_end", 76)
    text = ShiftedText(BPE, 90)
    image = ImageLayout(
        opening=(Special("image"), Side("height", "size_", 2), Side("width", "size_", 2)),
        row_end=Special("row_end"),
        closing=(Special("image_end"),),
    )
    layout = replace(base.layout, image=image, unconditional=Unconditional("prompt"))
    tokens = base.vocabulary.special_tokens | sizes
    vocabulary = Vocabulary(text.num_ids, tokens, ((4, NUM_CODES),))
    return Toy(layout, vocabulary, text, (Grid(2, 6), Grid(4, 2)), names_roles=False)


def emu3(last_row_ends: bool = True) -> Toy:
    """Sizes in digits, which are text; roles in words, joined with what is said; an image ends its
    reply; codes in runs that descend.
    """
    n = BPE.num_ids
    tokens = special("pad bos eos image image_token image_end row_end file_end", n)
    image = ImageLayout(
        opening=(
            Special("image"), Side("height"), "*", Side("width"), Special("image_token")
        ),
        row_end=Special("row_end"),
        last_row_ends=last_row_ends,
        closing=(Special("file_end"), Special("image_end")),
        ends_reply=True,
    )  # fmt: skip
    layout = Layout(
        begin=(Special("bos"), "You are a helpful assistant."),
        end=(),
        turns={
            "user": Turn((" USER: ",), (". ",)),
            "assistant": Turn(("ASSISTANT:",), (Special("eos"),)),
        },
        reply=("ASSISTANT:",),
        stops=(Special("eos"),),
        image=image,
        unconditional=Unconditional("null"),
        joined=True,
    )
    runs = ((n + 50, 10), (n + 40, 10), (n + 100, NUM_CODES - 21), (n + 8, 1))
    vocabulary = Vocabulary(n, tokens, runs)
    return Toy(layout, vocabulary, BPE, (Grid(1, 2), Grid(12, 1), Grid(2, 3)))


def janus() -> Toy:
    """Codes far above all else, a space of their own; nothing closes an image, which ends its
    reply; the unconditional prompt is as long as what it stands for.
    """
    n = BPE.num_ids
    tokens = special("begin end pad user assistant image", n)
    layout = Layout(
        begin=(Special("begin"), "You draw.\n\n"),
        end=(),
        turns={
            "user": Turn((Special("user"), ": "), ("\n\n",)),
            "assistant": Turn((Special("assistant"), ":"), (Special("end"),)),
        },
        reply=(Special("assistant"), ":"),
        stops=(Special("end"),),
        image=ImageLayout(opening=(Special("image"),), ends_reply=True),
        unconditional=Unconditional("padded", (Special("pad"),)),
        joined=True,
    )
    return Toy(layout, Vocabulary(n, tokens, ((1000, NUM_CODES),)), BPE, (Grid(3, 2),))


def own() -> Toy:
    """Ours."""
    vocabulary = Vocabulary.new(BPE.num_ids, NUM_CODES)
    return Toy(OWN_LAYOUT, vocabulary, BPE, (Grid(2, 3), Grid(1, 2), Grid(1, 4)))


TOYS = {
    "own": own(),
    "chameleon": chameleon(),
    "lumina": lumina(),
    "emu3": emu3(),
    "emu3.5": emu3(last_row_ends=False),
    "janus": janus(),
}
