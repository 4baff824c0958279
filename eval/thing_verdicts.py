"""Which answers about things are right: images by what `read_things` reads in them, words by words.

In: what was asked, and the answer. Out: a `Verdict`, its reason empty when the answer is right.

- A drawing is right by GenEval's rules (`data/things/requests.py:grants`): more things than were
  asked for may be there, but no more of what is counted.
- An answer in words is right when it is the expected one: case, article, final stop and digits do
  not matter. A thing may go by any of its names; its colour may be left out, but not be wrong.
"""

from typing import Any

from unimodal.data.scenes.questions import bare
from unimodal.data.scenes.reading import Unreadable
from unimodal.data.scenes.wording import COLOUR_WORDS, NUMBERS, SHAPE_WORDS
from unimodal.data.things.reading import read_things
from unimodal.data.things.requests import ThingRequest, grants
from unimodal.data.things.table import Things
from unimodal.data.things.wording import ThingClaim, name_of, noun
from unimodal.data.things.world import Item, ThingScene

from .answer import Answer
from .verdicts import Verdict, num_images

OTHER_WORDS = {str(number): word for number, word in enumerate(NUMBERS)} | {
    "none": "zero", "gray": "grey", "violet": "purple",
}  # fmt: skip


def judge_thing_drawing(wanted: ThingRequest, things: Things, answer: Answer) -> Verdict:
    """Judge whether the answer is one image that shows what was asked for."""
    if len(answer.images) != 1:
        said = f", {answer.text!r}" if answer.text else ""
        return Verdict(None, num_images(answer) + said)
    read = read_things(answer.images[0], things)
    if isinstance(read, Unreadable):
        return Verdict(None, f"unreadable: {read.reason}")
    return Verdict(as_json(read), why_not_granted(wanted, read))


def judge_thing_answer(expected: str, item: Item | None, answer: Answer) -> Verdict:
    """Judge whether the answer is the expected one, in words alone.

    item: what the answer names, where it names one; None: the expected words alone are right.
    """
    if answer.images:
        return Verdict(answer.text, num_images(answer))
    said = bare(answer.text)
    right = OTHER_WORDS.get(said, said) == bare(expected) or (
        item is not None and said.removeprefix("some ") in names_of(item)
    )
    return Verdict(answer.text, "" if right else f"{answer.text!r} instead of {expected!r}")


def names_of(item: Item) -> set[str]:
    """Return all that an item may be called, with its colour and without."""
    words = name_of(item.name).words if item.is_icon else SHAPE_WORDS[item.name]
    colours = COLOUR_WORDS[item.colour] if item.colour is not None else ()
    return {*words, *(f"{colour} {word}" for colour in colours for word in words)}


def why_not_granted(wanted: ThingRequest, read: ThingScene) -> str:
    """Return why the scene is not what was asked for; '' when it is."""
    if grants(wanted, read):
        return ""
    for claim in wanted.claims:
        found = sum(claim.fits(item) for item in read.items)
        if found < claim.count or (wanted.task == "counting" and found != claim.count):
            return f"{found} of {noun(claim)}; {what_is_there(read)}"
    first, second = map(noun, wanted.claims)
    return f"{first} is not {wanted.relation} {second}"


def what_is_there(read: ThingScene) -> str:
    """Return the things of a scene in words, also those that have the same name."""
    claims = [ThingClaim(1, (item.name,), item.is_icon, item.colour) for item in read.items]
    return ", ".join(map(noun, claims))


def expected_of(wanted: ThingRequest) -> dict[str, Any]:
    """Return what a drawing must show, as JSON."""
    claims = [
        {"count": c.count, "colour": c.colour, "names": list(c.names), "icon": c.is_icon}
        for c in wanted.claims
    ]
    return {"claims": claims, "relation": wanted.relation}


def as_json(read: ThingScene) -> dict[str, Any]:
    """Return a scene as JSON, coordinates to 4 digits."""
    items = [
        {
            "name": item.name, "icon": item.is_icon, "colour": item.colour,
            **{at: round(getattr(item, at), 4) for at in ("x", "y", "width")},
        }
        for item in read.items
    ]  # fmt: skip
    return {"page": read.page, "style": read.style, "items": items}


def from_json(told: dict[str, Any]) -> ThingScene:
    """Return the scene that `as_json` told of."""
    items = tuple(
        Item(one["name"], one["icon"], one["colour"], one["x"], one["y"], one["width"])
        for one in told["items"]
    )
    return ThingScene(told["page"], items, told["style"])
