"""Conversations of three to six exchanges about one picture that changes.

In: a `Talk`. Out: its turns: edits, undo, 'the same but', corrections, questions about what was
drawn, its description, small talk between.

1. `Chain` keeps what was drawn as a stack: 'undo that' pops it and draws what is then on top; 'the
   first one' and 'again' draw a scene once more, pixel for pixel.
2. A step that the scene does not offer is passed over, and another one is drawn.
3. 'It' is the object last spoken of, as everywhere.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from unimodal.document import Text

from . import edits, questions
from .chain_phrasings import (
    AGAIN,
    ANOTHER,
    CHANGED,
    DREW,
    EARLIER,
    FIRST,
    OTHER,
    RATHER,
    SAME,
    UNDO,
)
from .changes import change_words
from .counting import count_question
from .free_phrasings import EDITS as FREE_EDITS
from .phrasings import EDITS
from .references import pointed, with_reference
from .refusals import absent, beyond
from .small_talk import small_talk
from .talk import Talk, possible_edit, question_turn, request_turn
from .wording import caption, pick, pick_phrasing, with_article
from .world import COLOURS, SHAPES, SIZES, Scene, SceneObject, fits, has_held_out_pair

FEWEST, MOST = 3, 6  # exchanges
CORRECTED = 0.3  # of edits are corrected where that can be
WHICH_ONE = "which one do you mean?"
REMARKS = ("thanks", "praise", "feelings", "who", "hello")


class Chain:
    """A conversation with its stack of scenes and the last edit, of which corrections speak."""

    def __init__(self, talk: Talk, exchanges: int) -> None:
        self.talk, self.exchanges = talk, exchanges
        self.drawn: list[Scene] = []
        self.last: edits.Edit | None = None  # the change of the exchange before, if it was one
        self.target: int | None = None  # index in `last.before` of the object it changed

    @property
    def scene(self) -> Scene:
        """Return the scene last shown."""
        return self.drawn[-1]

    @property
    def left(self) -> int:
        """Return how many exchanges are still to come."""
        said = sum(isinstance(part, Text) and part.role == "user" for part in self.talk.parts)
        return self.exchanges - said

    def say(self, text: str) -> None:
        """Let the user say something."""
        self.talk.say(text)

    def phrase(self, table: tuple[str, ...], **slots: str) -> None:
        """Let the user say one of the templates of a table that are not held out."""
        self.say(pick_phrasing(self.talk.rng, table, held_out=False)[1].format(**slots))

    def draw(self, drawn: Scene) -> None:
        """Draw a scene in place of the one last shown and put it onto the stack."""
        self.talk.draw_planned(drawn, self.talk.scene)
        self.drawn.append(drawn)


Step = Callable[[Chain], bool]
"""Writes an exchange; False, and nothing is written, where the conversation offers none."""


def chain(talk: Talk) -> None:
    """Write a conversation that begins with a picture, drawn or shown, and goes on about it."""
    one = Chain(talk, int(talk.rng.integers(FEWEST, MOST + 1)))
    if talk.chance(0.75):
        request_turn(talk)
        assert talk.scene is not None, "a request was drawn"
        one.drawn.append(talk.scene)
    else:
        _begin_with_image(one)
    while one.left > 0:
        last = one.last
        step = _correct if last and talk.chance(CORRECTED) else _drawn_step(talk.rng)
        if step(one) and one.last is last:
            one.last = None


def _begin_with_image(one: Chain) -> None:
    """Let the user show an image and have it changed, or described where that cannot be."""
    talk = one.talk
    one.drawn.append(talk.new_scene())
    change = possible_edit(talk, None)
    if change is None:
        talk.show("what do you see?")
        talk.reply(caption(one.scene, talk.rng))
        return
    talk.show(change.instruction)
    talk.draw_planned(change.after, change.before)
    one.drawn.append(change.after)
    talk.subject = change.subject


def _edit(one: Chain) -> bool:
    """Change an object that is 'it', named, or pointed at."""
    talk, rng = one.talk, one.talk.rng
    words, target = None, talk.subject if talk.chance(0.5) else None
    if target is None and talk.chance(0.4):
        index = int(rng.integers(len(one.scene.objects))) if one.scene.objects else None
        words = pointed(one.scene, index, rng) if index is not None else None
        target = index if words is not None else None
    change = possible_edit(talk, target)
    if change is None:
        return False
    one.say(with_reference(change.instruction, words) if words else change.instruction)
    one.draw(change.after)
    talk.subject, one.last = change.subject, change
    one.target = _target(change)
    return True


def _target(change: edits.Edit) -> int | None:
    """Return which object of the scene before was recoloured, resized or removed."""
    if change.kind in ("recolour", "resize"):
        return change.subject
    if change.kind != "remove":
        return None
    kept = [id(obj) for obj in change.after.objects]
    return next(k for k, obj in enumerate(change.before.objects) if id(obj) not in kept)


def _undo(one: Chain) -> bool:
    """Take the last picture back, or go back to the first one."""
    if len(one.drawn) < 2:
        return False
    if len(one.drawn) > 2 and one.talk.chance(0.4):
        one.phrase(FIRST)
        one.draw(one.drawn[0])
    else:
        one.phrase(FIRST if len(one.drawn) == 2 and one.talk.chance(0.4) else UNDO)
        one.drawn.pop()
        one.talk.draw(one.scene)
    one.talk.subject = 0 if len(one.scene.objects) == 1 else None
    return True


def _again(one: Chain) -> bool:
    """Draw the same picture once more."""
    one.phrase(AGAIN)
    one.talk.draw(one.scene)
    return True


def _same(one: Chain) -> bool:
    """Draw 'the same but blue': one attribute of the object last spoken of changes."""
    talk, rng = one.talk, one.talk.rng
    if talk.subject is None:
        return False
    obj = one.scene.objects[talk.subject]
    attribute = pick(rng, ("colour", "colour", "size", "shape"))
    value = pick(rng, [v for v in _VALUES[attribute] if v != getattr(obj, attribute)])
    drawn = changed(one.scene, talk.subject, replace(obj, **{attribute: value}))
    if drawn is None:
        return False
    one.phrase(SAME[attribute], new=with_article(value) if attribute == "shape" else value)
    one.draw(drawn)
    return True


_VALUES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS), "size": tuple(SIZES), "shape": SHAPES,
}  # fmt: skip


def changed(scene: Scene, index: int, obj: SceneObject | None) -> Scene | None:
    """Return the scene with one object replaced, or taken away; None where that is no scene."""
    others = (*scene.objects[:index], *scene.objects[index + 1 :])
    if obj is None:
        return Scene(scene.background, others)
    objects = (*scene.objects[:index], obj, *scene.objects[index + 1 :])
    if not fits(obj, others) or has_held_out_pair(objects):
        return None
    return Scene(scene.background, objects)


def _correct(one: Chain) -> bool:
    """Correct the last change: another value, or another object."""
    if one.last is None or one.target is None:
        return False
    before, rng = one.last.before, one.talk.rng
    rest = [k for k in range(len(before.objects)) if k != one.target]
    alike = [k for k in rest if before.objects[k].shape == before.objects[one.target].shape]
    only = alike if len(alike) == 1 else rest if len(rest) == 1 else []
    if one.last.kind != "remove" and one.talk.chance(0.4):
        return _rather(one)
    if only and one.talk.chance(0.7):
        same_shape = only == alike
        table = OTHER if same_shape else tuple(t for t in OTHER if "{shape}" not in t)
        return _instead(one, only[0], table, shape=before.objects[only[0]].shape)
    if not rest:
        return False
    index = pick(rng, rest)
    words = pointed(before, index, rng) if one.talk.chance(0.4) else None
    if words is None:
        name = questions.named(before, before.objects[index], rng)
        words = f"the {name}" if name is not None else None
    return words is not None and _instead(one, index, ANOTHER, one=words)


def _rather(one: Chain) -> bool:
    """Take another value for the attribute that was changed: 'no, i meant blue'."""
    assert one.last is not None and one.target is not None, "there is a change to correct"
    attribute = "colour" if one.last.kind == "recolour" else "size"
    before, after = one.last.before.objects[one.target], one.last.after.objects[one.target]
    old = getattr(after, attribute)
    values = [v for v in _VALUES[attribute] if v not in (old, getattr(before, attribute))]
    new = pick(one.talk.rng, values)
    drawn = changed(one.last.before, one.target, replace(before, **{attribute: new}))
    if drawn is None:
        return False
    one.phrase(RATHER, new=new, old=old)
    _redraw(one, drawn, one.target)
    return True


def _instead(one: Chain, index: int, table: tuple[str, ...], /, **slots: str) -> bool:
    """Undo the last change and do it to another object."""
    assert one.last is not None and one.target is not None, "there is a change to correct"
    before, obj = one.last.before, one.last.before.objects[index]
    if one.last.kind == "remove":
        drawn = changed(before, index, None)
    else:
        attribute = "colour" if one.last.kind == "recolour" else "size"
        value = getattr(one.last.after.objects[one.target], attribute)
        if value == getattr(obj, attribute):
            return False
        drawn = changed(before, index, replace(obj, **{attribute: value}))
    if drawn is None or has_held_out_pair(drawn.objects):
        return False
    one.phrase(table, **slots)
    _redraw(one, drawn, None if one.last.kind == "remove" else index)
    return True


def _redraw(one: Chain, drawn: Scene, subject: int | None) -> None:
    """Draw what a correction asks for in place of what was wrong."""
    one.drawn.pop()
    one.draw(drawn)
    one.talk.subject = subject


def _describe(one: Chain) -> bool:
    one.phrase(DREW)
    one.talk.reply(caption(one.scene, one.talk.rng))
    return True


def _question(one: Chain) -> bool:
    before = len(one.talk.parts)
    question_turn(one.talk)
    return len(one.talk.parts) > before


def _count(one: Chain) -> bool:
    asked = count_question(one.scene, one.talk.rng)
    one.say(asked.text)
    one.talk.reply(asked.answer)
    return True


def _earlier(one: Chain) -> bool:
    """Ask about the first picture when another is shown."""
    if len(one.drawn) < 2:
        return False
    asked = count_question(one.drawn[0], one.talk.rng)
    one.phrase(EARLIER, question=asked.text.lower())
    one.talk.reply(asked.answer)
    return True


def _told_change(one: Chain) -> bool:
    """Ask what the last change was."""
    if one.last is None:
        return False
    one.phrase(CHANGED)
    one.talk.reply(change_words(one.last))
    return True


def _remark(one: Chain) -> bool:
    said, answer = small_talk(one.talk.rng, topics=REMARKS)
    one.say(said)
    one.talk.reply(answer)
    return True


def _impossible(one: Chain) -> bool:
    """Ask for what the picture does not allow."""
    rng = one.talk.rng
    if one.talk.chance(0.3):
        refusal = beyond(rng)
    else:
        refusal = absent(one.scene, rng, FREE_EDITS if one.talk.is_free() else EDITS)
    one.say(refusal.text)
    one.talk.reply(refusal.answer)
    return True


def _unclear(one: Chain) -> bool:
    """Ask for a change of one of several objects without saying which, and then say which."""
    talk, rng, scene = one.talk, one.talk.rng, one.scene
    if talk.subject is not None or len(scene.objects) < 2 or one.left < 2:
        return False
    index = int(rng.integers(len(scene.objects)))
    words = pointed(scene, index, rng)
    table = FREE_EDITS if talk.is_free() else EDITS
    kind = pick(rng, ("recolour", "resize", "remove"))
    change = edits.edit(
        scene, kind, rng, seen_only=True, world=talk.world, subject=index, phrasings=table
    )
    if words is None or change is None:
        return False
    shape = scene.objects[index].shape
    is_shared = sum(obj.shape == shape for obj in scene.objects) > 1
    said = with_reference(change.instruction, f"the {shape}") if is_shared else change.instruction
    one.say(said)
    talk.reply(WHICH_ONE)
    one.say(words)
    one.draw(change.after)
    talk.subject = change.subject
    return True


def _new(one: Chain) -> bool:
    """Ask for another picture."""
    request_turn(one.talk)
    assert one.talk.scene is not None, "a request was drawn"
    one.drawn.append(one.talk.scene)
    return True


_WEIGHTS: dict[Step, float] = {
    _edit: 3.0, _undo: 2.4, _same: 1.6, _correct: 0.6, _describe: 1.3, _count: 1.0, _question: 1.0,
    _told_change: 0.6, _new: 0.6, _impossible: 0.6, _earlier: 0.5, _again: 0.3, _remark: 0.4,
    _unclear: 0.7,
}  # fmt: skip
_STEPS = tuple(_WEIGHTS)
_EDGES = np.cumsum(tuple(_WEIGHTS.values())) / sum(_WEIGHTS.values())


def _drawn_step(rng: np.random.Generator) -> Step:
    """Draw a step by weight."""
    return _STEPS[int(np.searchsorted(_EDGES, rng.random(), side="right"))]
