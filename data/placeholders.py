"""Find the images in the words of a conversation: each `<image>` stands for one of the sample's.

In: the turns, and how many images the sample has for them. Out: turns with the images at their
places. How many there are decides what a placeholder is:

1. Those in the words of the user and the system are images, and so are those of an answer that
   holds nothing else: the assistant draws. They must be as many as the images, or the sample is
   bad: an image is never guessed a place, least of all one of the user's in an answer.
2. `<image>` among the words of an answer is words.
3. LLaVA's conversations may have no placeholder at all: then the user's first turn begins with all
   images.
4. Words stay as they are written, but for the line end of LLaVA's own `<image>\\n` at the start of
   a turn.
5. A placeholder of another kind, `<video>`, `<audio>`, `<image_1>`, `<|image_pad|>`, stands for
   what is not read: the sample is bad.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .sample_error import SampleError
from .turns import Piece, Shown, Turn

IMAGE = "<image>"
FOREIGN = re.compile(
    r"<\s*(?:(?:video|audio|image)(?:_\w+|here)?|speech|sound|img_\w+|bbox|ref-object)[ _-]?\d*"
    r"\s*/?>"
    r"|<(?:start_of_image|start_of_audio|image_soft_token|audio_soft_token)>"
    r"|<\|(?:image|video|audio|vision)[^<>|]*\|>|<img>[^<]*</img>|\[IMG\]|</(?:image|video|audio)>",
    re.IGNORECASE,
)


def check_words(words: str) -> str:
    """Return words of a conversation; SampleError where they hold a placeholder of another kind."""
    for found in FOREIGN.finditer(words):
        if found[0] != IMAGE:
            raise SampleError(
                "placeholder",
                f"{found[0]} in {words[:80]!r}: {IMAGE} alone is read, and stands for an image",
            )
    return words


def check_no_images(words: str) -> str:
    """Return words that nothing can be shown in; SampleError where a placeholder is among them."""
    if IMAGE in check_words(words):
        raise SampleError("placeholder", f"{IMAGE} in {words[:80]!r}, where no image can stand")
    return words


def placed(turns: Sequence[Turn], images: int, may_lead: bool) -> list[Turn]:
    """Return the turns with a `Shown` for each placeholder that stands for an image.

    `images`: how many are there for placeholders. `may_lead`: without any placeholder all images
    stand first. SampleError where the placeholders are not as many as the images.
    """
    for turn in turns:
        for words in _words(turn):
            check_words(words)
    asked = sum(_count(turn) for turn in turns if _is_places(turn))
    said = sum(_count(turn) for turn in turns if not _is_places(turn))
    if asked == images:
        return [_cut(turn) if _is_places(turn) else turn for turn in turns]
    if may_lead and not asked and not said:
        return _led(turns, images)
    words = f"{asked} {IMAGE} among the words, and {images} images that nothing else places"
    more = f", and {said} among the words of answers, where it is no image" if said else ""
    raise SampleError("missing member" if asked > images else "unplaced image", words + more)


def _words(turn: Turn) -> Iterator[str]:
    yield from (piece for piece in turn.pieces if isinstance(piece, str))


def _count(turn: Turn) -> int:
    return sum(words.count(IMAGE) for words in _words(turn))


def _is_places(turn: Turn) -> bool:
    """Return whether placeholders of the turn are images: the user's, or an answer of no words."""
    return turn.role != "assistant" or not "".join(_words(turn)).replace(IMAGE, "").strip()


def _cut(turn: Turn) -> Turn:
    """Return the turn with its words cut at the placeholders; empty words are left out."""
    pieces: list[Piece] = []
    for piece in turn.pieces:
        if isinstance(piece, Shown):
            pieces.append(piece)
            continue
        for at, words in enumerate(piece.split(IMAGE)):
            if at:
                is_first = all(isinstance(before, Shown) for before in pieces)
                words = words.removeprefix("\n") if is_first else words
                pieces.append(Shown())
            if words:
                pieces.append(words)
    return replace(turn, pieces=tuple(pieces))


def _led(turns: Sequence[Turn], images: int) -> list[Turn]:
    """Return the turns with all images before the words of the user's first turn."""
    shown = (Shown(),) * images
    first = next((at for at, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return [Turn("user", shown), *turns] if images else list(turns)
    led = replace(turns[first], pieces=shown + turns[first].pieces)
    return [*turns[:first], led, *turns[first + 1 :]]
