"""Which answers are right: images by what `read_scene` reads in them, words by what they say.

In: what was asked, and the answer. Out: a `Verdict`, its reason empty when the answer is right.

- A drawing is right by GenEval's rules (Ghosh et al. 2023, arXiv 2310.11513): what was asked for
  is there, every object serving once; more objects may be there, but no more of the kind that is
  counted; positions by its rule from boxes and centres. A scene that is read has no confidences:
  where GenEval looks at the detector's surest box of a kind, any object of that kind will do.
- An edit is right when it is done and nothing else touched.
- A drawing with boxes is right when each has an object that fits its words, with its centre within
  4 pixels of the box's, on a canvas of 64. How far the sides are apart is measured beside that.
- A caption is right when it can be parsed, states colour and shape of everything it claims, claims
  every object of the scene exactly once and nothing else, and all else that it states (sizes,
  places, the background) is so.
- An answer to a question is right when it is the expected one: case, article, final stop and
  synonyms do not matter.
- A refusal is right when it is one of the sentences of `data/scenes/refusals.py`; small talk is
  answered by any words.
- Words where an image is wanted, an image where words are wanted, and two images are wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unimodal.data.scenes.edits import Edit, done
from unimodal.data.scenes.layouts import Placed
from unimodal.data.scenes.questions import Question, accept
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.refusals import is_refusal
from unimodal.data.scenes.requests import Request as DrawingRequest
from unimodal.data.scenes.requests import grants
from unimodal.data.scenes.wording import Claim, agrees, ground_agrees, read_parts
from unimodal.data.scenes.world import Scene, SceneObject, is_held_out

from .answer import Answer
from .tokenizer import as_json

NEAR = 4  # 64ths of the canvas: what stands in its box is not further away
CENTRES, SIDES = "centres_64ths", "sides_64ths"
MOST_WORDS = 40  # of a reply to small talk: more are a loop


@dataclass(frozen=True)
class Verdict:
    """Says what was answered and why it is wrong; an empty reason means that it is right."""

    answer: Any  # JSON: words, or the scene read in an image; None: unreadable, or no one image
    reason: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What else a prediction tells, as JSON."""


def judge_drawing(wanted: DrawingRequest, answer: Answer) -> Verdict:
    """Judge whether the answer is one image that shows what was asked for."""
    return _judge_image(answer, lambda read: why_not_granted(wanted, read))


def judge_edit(wanted: Edit, answer: Answer) -> Verdict:
    """Judge whether the answer is one image with the edit done and nothing else touched."""
    return _judge_image(answer, lambda read: why_not_done(wanted, read))


def judge_layout(wanted: Sequence[Placed], answer: Answer) -> Verdict:
    """Judge whether the answer is one image with each thing in its box."""
    found: list[tuple[float, float] | None] = [None] * len(wanted)

    def why(read: Scene) -> str:
        found[:] = [_offsets(thing, read) for thing in wanted]
        wrong = [
            thing.text
            for thing, one in zip(wanted, found, strict=True)
            if not is_near(one and one[0])
        ]
        return f"not in place: {', '.join(wrong)}" if wrong else ""

    verdict = _judge_image(answer, why)
    centres, sides = ([one and round(one[at], 3) for one in found] for at in (0, 1))
    return replace(verdict, measured={CENTRES: centres, SIDES: sides})


def is_near(offset_64ths: float | None) -> bool:
    """Return whether something is there and near enough to where it was wanted."""
    return offset_64ths is not None and offset_64ths <= NEAR


def is_in_place(wanted: Placed, read: Scene) -> bool:
    """Return whether an object of the scene fits the words of a thing and stands in its box."""
    offsets = _offsets(wanted, read)
    return is_near(offsets and offsets[0])


def _offsets(wanted: Placed, read: Scene) -> tuple[float, float] | None:
    """Return how far the centre, and the farthest side, of the nearest object that fits is from
    where it was wanted, in 64ths of the canvas along an axis; None where none fits.
    """
    box = wanted.box
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    fitting = [obj for obj in read.objects if wanted.claim.fits(obj)]
    if not fitting:
        return None
    obj = min(fitting, key=lambda obj: max(abs(obj.x - x), abs(obj.y - y)))
    half = obj.width / 2
    sides = (
        obj.x - half - box.left, obj.x + half - box.right,
        obj.y - half - box.top, obj.y + half - box.bottom,
    )  # fmt: skip
    return 64 * max(abs(obj.x - x), abs(obj.y - y)), 64 * max(map(abs, sides))


def judge_question(asked: Question, answer: Answer) -> Verdict:
    """Judge whether the answer is the expected one, in words alone."""
    if answer.images:
        return Verdict(answer.text, num_images(answer))
    right = accept(asked, answer.text)
    return Verdict(answer.text, "" if right else f"{answer.text!r} instead of {asked.answer!r}")


def judge_caption(shown: Scene, answer: Answer) -> Verdict:
    """Judge whether the answer tells all objects and nothing false, in words alone."""
    if answer.images:
        return Verdict(answer.text, num_images(answer))
    return Verdict(answer.text, why_not_told(answer.text, shown))


def judge_refusal(answer: Answer) -> Verdict:
    """Judge whether the answer says, in words alone, that this cannot be granted."""
    if answer.images:
        return Verdict(answer.text, num_images(answer))
    return Verdict(answer.text, "" if is_refusal(answer.text) else f"{answer.text!r} is no refusal")


def judge_words(answer: Answer) -> Verdict:
    """Judge whether the answer is in words alone, whichever; a refusal to draw will do."""
    if answer.images:
        return Verdict(answer.text, num_images(answer))
    words = len(answer.text.split())
    right = 0 < words <= MOST_WORDS
    return Verdict(answer.text, "" if right else f"{words} words instead of 1 to {MOST_WORDS}")


def _judge_image(answer: Answer, why: Callable[[Scene], str]) -> Verdict:
    if len(answer.images) != 1:
        return Verdict(None, num_images(answer) + (f", {answer.text!r}" if answer.text else ""))
    read = read_scene(answer.images[0])
    if isinstance(read, Unreadable):
        return Verdict(None, f"unreadable: {read.reason}")
    return Verdict(as_json(read), why(read))


def why_not_granted(wanted: DrawingRequest, read: Scene) -> str:
    """Return why the scene is not what was asked for; '' when it is."""
    if grants(wanted, read):
        return ""
    for claim in wanted.claims:
        found = sum(claim.fits(obj) for obj in read.objects)
        if found < claim.count or (wanted.task == "counting" and found != claim.count):
            return f"{found} of {claim.count} {claim_words(claim)}"
    if wanted.background is not None and not ground_agrees(wanted.background, read.background):
        return "another background"
    if wanted.relation is not None:
        first, second = map(claim_words, wanted.claims)
        return f"{first} is not {wanted.relation} {second}"
    return "one thing would have to serve twice"


def why_not_done(wanted: Edit, read: Scene) -> str:
    """Return why the scene is not the result of the edit; '' when it is."""
    if done(wanted, read):
        return ""
    if read.background != wanted.before.background:
        return "the background changed"
    if len(read.objects) != len(wanted.after.objects):
        return f"{len(read.objects)} objects instead of {len(wanted.after.objects)}"
    missing = _missing(wanted.after.objects, read.objects)
    return f"no {missing}" if missing else "a thing is not where it should be"


def why_not_told(text: str, shown: Scene) -> str:
    """Return why the text is not a right caption of the scene; '' when it is."""
    parts = read_parts(text)
    if parts is None:
        return f"not a caption: {text!r}"
    claims, ground = parts
    vague = [claim for claim in claims if claim.colour is None or claim.shape is None]
    if vague:
        return f"no colour or shape of {claim_words(vague[0])}"
    if ground is not None and not ground_agrees(ground, shown.background):
        return "another background"
    return "" if agrees(claims, shown.objects) else _disagreement(claims, shown.objects)


def claim_words(claim: Claim) -> str:
    """Return the attributes of a claim in words, without its number."""
    words = [claim.size, claim.colour, claim.shape or "thing"]
    place = f" in the {claim.place}" if claim.place else ""
    return " ".join(word for word in words if word) + place


def expected_of(wanted: DrawingRequest) -> dict[str, Any]:
    """Return what a drawing must show, as JSON."""
    claims = [
        {"count": c.count, "size": c.size, "colour": c.colour, "shape": c.shape}
        for c in wanted.claims
    ]
    return {"claims": claims, "relation": wanted.relation}


def names_held_out_pair(wanted: DrawingRequest) -> bool:
    """Return whether two objects asked for, both of named shape and colour, are a held-out pair."""
    attribute_sets = [
        (claim.shape, claim.colour)
        for claim in wanted.claims
        for _ in range(claim.count)
        if claim.shape is not None and claim.colour is not None
    ]
    return any(
        is_held_out(a, b) for k, a in enumerate(attribute_sets) for b in attribute_sets[k + 1 :]
    )


def num_images(answer: Answer) -> str:
    """Return how many images an answer has, in words."""
    count = len(answer.images)
    return f"{count or 'no'} image{'s' if count != 1 else ''}"


def _disagreement(claims: Sequence[Claim], objects: Sequence[SceneObject]) -> str:
    told = sum(claim.count for claim in claims)
    if told != len(objects):
        return f"{told} of {len(objects)} objects told"
    for claim in claims:
        found = sum(claim.fits(obj) for obj in objects)
        if found < claim.count:
            return f"{found} of {claim.count} {claim_words(claim)}"
    return "one thing is told twice"


def _missing(wanted: Sequence[SceneObject], found: Sequence[SceneObject]) -> str:
    """Return the first attributes that are wanted more often than found; '' when none are."""
    attribute_sets = [f"{obj.size} {obj.colour} {obj.shape}" for obj in found]
    for obj in wanted:
        attributes = f"{obj.size} {obj.colour} {obj.shape}"
        if attributes not in attribute_sets:
            return attributes
        attribute_sets.remove(attributes)
    return ""
