"""What takes the room of a model's context, and what would have to go for a reply."""

from bisect import bisect_left

from .document import Document, Image, Part, Text
from .sequencer import Sequencer


class NoRoom(ValueError):
    """A document cannot be answered within the model's context."""


def exchanges(document: Document) -> list[tuple[Part, ...]]:
    """Return the turns of the user, each with the replies that follow it; what comes before the
    first one belongs to it.
    """
    found: list[tuple[Part, ...]] = []
    for role, parts in document.turns():
        is_next = role == "user" and found and any(part.role == "user" for part in found[-1])
        if is_next or not found:
            found.append(())
        found[-1] = (*found[-1], *parts)
    return found


def asked(document: Document) -> str:
    """Return the user's words in the latest turn, and behind them the things of its boxes."""
    latest = exchanges(document)[-1]
    said = [part for part in latest if isinstance(part, Text) and part.role == "user"]
    words = " ".join(part.text for part in said if part.box is None)
    return ", ".join([words] * bool(words) + [part.text for part in said if part.box is not None])


def refusal(sequencer: Sequencer, document: Document, context: int, needed: int) -> str | None:
    """Return why a document cannot be answered within `context` tokens, of which its reply needs so
    many: what takes the room, and what would have to go. None where it can.
    """
    used = len(sequencer.prompt(document))
    if used + needed <= context:
        return None
    if len(sequencer.prompt(Document(()))) + needed > context:
        return (
            f"a reply needs up to {needed:,} of the model's {context:,} tokens, for which no prompt"
            " is short enough: ask for a smaller image, or for words alone"
        )
    return (
        f"the conversation would take {used:,} of the model's {context:,} tokens, and a reply needs"
        f" up to {needed:,}: {_taken(sequencer, document.parts)};"
        f" {_way_out(sequencer, exchanges(document), context - needed)}"
    )


def _taken(sequencer: Sequencer, parts: tuple[Part, ...]) -> str:
    """Say how many tokens images and words take."""
    images = [part for part in parts if isinstance(part, Image)]
    words = [part for part in parts if not isinstance(part, Image)]
    of_images, of_words = (sum(map(sequencer.part_length, some)) for some in (images, words))
    said = [f"{_counted(len(images), 'image')} take{'s' * (len(images) == 1)} {of_images:,} tokens"]
    return " and ".join([*(said if images else []), f"words take {of_words:,}"])


def num_too_many(sequencer: Sequencer, found: list[tuple[Part, ...]], most: int) -> int:
    """Return how many of the oldest turns would have to go, so that the prompt takes at most so
    many tokens; all of them, where the latest alone takes more.
    """

    def fits(num_gone: int) -> bool:
        kept = tuple(part for one in found[num_gone:] for part in one)
        return len(sequencer.prompt(Document(kept))) <= most

    # The fewer turns, the fewer tokens: a prompt is laid out for some of them alone.
    return bisect_left(range(len(found)), True, key=fits)


def _way_out(sequencer: Sequencer, found: list[tuple[Part, ...]], most: int) -> str:
    """Say what would have to go, so that the prompt takes at most so many tokens."""

    def length(parts: tuple[Part, ...]) -> int:
        return len(sequencer.prompt(Document(parts)))

    num_gone = num_too_many(sequencer, found, most)
    if num_gone < len(found):
        gone = tuple(part for one in found[:num_gone] for part in one)
        return (
            f"the oldest {_counted(num_gone, 'turn')} would have to go"
            f" ({_taken(sequencer, gone)}): forget {num_gone}, or start a new conversation"
        )
    begin = "start a new conversation and " if len(found) > 1 else ""
    latest = found[-1]
    images = [number for number, part in enumerate(latest) if isinstance(part, Image)]
    for num_shown in range(len(images) - 1, -1, -1):
        left = tuple(part for n, part in enumerate(latest) if n not in images[num_shown:])
        if left and length(left) <= most:
            return f"{begin}show at most {_counted(num_shown, 'image')}"
    return f"{begin}shorten the prompt by some {_counted(length(latest) - most, 'token')}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
