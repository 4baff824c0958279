"""Is a reply right? Images are judged by what `read_scene` reads in them, words by what they say.

In: what was asked, and the reply. Out: a `Verdict`, its reason empty when the reply is right.

- A drawing is right by GenEval's rules (Ghosh et al. 2023, arXiv 2310.11513): what was asked for
  is there, every object serving once; more objects may be there, but no more of the kind that is
  counted; positions by its rule from boxes and centres. A scene that is read has no confidences:
  where GenEval looks at the detector's surest box of a kind, any object of that kind will do.
- An edit is right when it is done and nothing else touched.
- A caption is right when it can be parsed, states colour and shape of everything it claims, claims
  every object of the scene exactly once and nothing else, and all else that it states (sizes,
  places, the background) is so.
- An answer is right when it is the one answer: case, article, final stop and synonyms do not
  matter.
- Words where a image is wanted, a image where words are wanted, and two images are wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unimodal.data.scenes.edits import Edit, done
from unimodal.data.scenes.questions import Question, accept
from unimodal.data.scenes.reading import Unreadable, read_scene
from unimodal.data.scenes.requests import Request, grants
from unimodal.data.scenes.wording import Claim, agrees, ground_agrees, read_parts
from unimodal.data.scenes.world import Scene, SceneObject, is_held_out

from .tokenizer import as_json


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model replied: words, images uint8 (H, W, 3) as decoded, and their codes."""

    text: str
    images: tuple[np.ndarray, ...] = ()
    codes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The answer as JSON (words; the scene read, None: unreadable), and why it is wrong, or ''."""

    answer: Any
    reason: str


def judge_drawing(wanted: Request, reply: Answer) -> Verdict:
    """Whether the one image of the reply shows what was asked for."""
    return _judge_image(reply, lambda read: why_not_granted(wanted, read))


def judge_edit(wanted: Edit, reply: Answer) -> Verdict:
    """Whether the one image of the reply shows the edit done and nothing else touched."""
    return _judge_image(reply, lambda read: why_not_done(wanted, read))


def judge_question(asked: Question, reply: Answer) -> Verdict:
    """Whether the reply is the answer, in words alone."""
    if reply.images:
        return Verdict(reply.text, _num_images(reply))
    right = accept(asked, reply.text)
    return Verdict(reply.text, "" if right else f"{reply.text!r} instead of {asked.answer!r}")


def judge_caption(shown: Scene, reply: Answer) -> Verdict:
    """Whether the reply tells all objects of the scene and nothing false, in words alone."""
    if reply.images:
        return Verdict(reply.text, _num_images(reply))
    return Verdict(reply.text, why_not_told(reply.text, shown))


def _judge_image(reply: Answer, why: Callable[[Scene], str]) -> Verdict:
    if len(reply.images) != 1:
        return Verdict(None, _num_images(reply) + (f", {reply.text!r}" if reply.text else ""))
    read = read_scene(reply.images[0])
    if isinstance(read, Unreadable):
        return Verdict(None, f"unreadable: {read.reason}")
    return Verdict(as_json(read), why(read))


def why_not_granted(wanted: Request, read: Scene) -> str:
    """Why the scene is not what was asked for; '' when it is."""
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
    """Why the scene is not the result of the edit; '' when it is."""
    if done(wanted, read):
        return ""
    if read.background != wanted.before.background:
        return "the background changed"
    if len(read.objects) != len(wanted.after.objects):
        return f"{len(read.objects)} objects instead of {len(wanted.after.objects)}"
    missing = _missing(wanted.after.objects, read.objects)
    return f"no {missing}" if missing else "a thing is not where it should be"


def why_not_told(text: str, shown: Scene) -> str:
    """Why the text is not a right caption of the scene; '' when it is."""
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
    """The attributes of a claim, without its number."""
    words = [claim.size, claim.colour, claim.shape or "thing"]
    place = f" in the {claim.place}" if claim.place else ""
    return " ".join(word for word in words if word) + place


def expected_of(wanted: Request) -> dict[str, Any]:
    """What a drawing must show, as JSON."""
    claims = [
        {"count": c.count, "size": c.size, "colour": c.colour, "shape": c.shape}
        for c in wanted.claims
    ]
    return {"claims": claims, "relation": wanted.relation}


def names_held_out_pair(wanted: Request) -> bool:
    """True when two objects asked for, both of named shape and colour, are a held-out pair."""
    attribute_sets = [
        (claim.shape, claim.colour)
        for claim in wanted.claims
        for _ in range(claim.count)
        if claim.shape is not None and claim.colour is not None
    ]
    return any(
        is_held_out(a, b) for k, a in enumerate(attribute_sets) for b in attribute_sets[k + 1 :]
    )


def _num_images(reply: Answer) -> str:
    count = len(reply.images)
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
    """The first look that is wanted more often than found; '' when none is."""
    attribute_sets = [f"{obj.size} {obj.colour} {obj.shape}" for obj in found]
    for obj in wanted:
        attributes = f"{obj.size} {obj.colour} {obj.shape}"
        if attributes not in attribute_sets:
            return attributes
        attribute_sets.remove(attributes)
    return ""
