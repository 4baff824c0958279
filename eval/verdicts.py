"""Which answers are right: images by what `read_scene` reads in them, words by what they say.

In: what was asked, and the answer. Out: a `Verdict`, its reason empty when the answer is right.

- A drawing is right by GenEval's rules (Ghosh et al. 2023, arXiv 2310.11513): what was asked for
  is there, every object serving once; more objects may be there, but no more of the kind that is
  counted; positions by its rule from boxes and centres. A scene that is read has no confidences:
  where GenEval looks at the detector's surest box of a kind, any object of that kind will do.
- An edit is right when it is done and nothing else touched.
- A caption is right when it can be parsed, states colour and shape of everything it claims, claims
  every object of the scene exactly once and nothing else, and all else that it states (sizes,
  places, the background) is so.
- An answer to a question is right when it is the expected one: case, article, final stop and
  synonyms do not matter.
- A refusal is right when it is one of the sentences of `data/scenes/refusals.py`; small talk is
  answered by any words.
- Words where an image is wanted, an image where words are wanted, and two images are wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from unimodal.data.scenes.edits import Edit, done
from unimodal.data.scenes.questions import Question, accept
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.refusals import is_refusal
from unimodal.data.scenes.requests import Request as DrawingRequest
from unimodal.data.scenes.requests import grants
from unimodal.data.scenes.wording import Claim, agrees, ground_agrees, read_parts
from unimodal.data.scenes.world import Scene, SceneObject, is_held_out

from .answer import Answer
from .tokenizer import as_json

MOST_WORDS = 40  # of a reply to small talk: more are a loop


@dataclass(frozen=True)
class Verdict:
    """Says what was answered and why it is wrong; an empty reason means that it is right."""

    answer: Any  # JSON: words, or the scene read in an image; None: unreadable, or no one image
    reason: str


def judge_drawing(wanted: DrawingRequest, answer: Answer) -> Verdict:
    """Judge whether the answer is one image that shows what was asked for."""
    return _judge_image(answer, lambda read: why_not_granted(wanted, read))


def judge_edit(wanted: Edit, answer: Answer) -> Verdict:
    """Judge whether the answer is one image with the edit done and nothing else touched."""
    return _judge_image(answer, lambda read: why_not_done(wanted, read))


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
