"""What the evaluation asks as people type, and of what cannot be had.

In: a part (free, counts, refusals, words), a kind, a number and a seed. Out: requests.

- free: drawings, questions and edits in free words; a third in words of held-out families, a third
  in held-out phrasings, the rest in words and phrasings that training has.
- counts: how many of a kind, as many requests of each number, zero included.
- refusals: what cannot be granted, said in held-out ways; any honest sentence is right.
- words: small talk in held-out sayings, where words are wanted and no picture.
"""

from functools import partial

from unimodal.data.scenes.counting import counted_scene, question_of
from unimodal.data.scenes.edits import KINDS as EDITS
from unimodal.data.scenes.edits import edit
from unimodal.data.scenes.free_phrasings import EDITS as FREE_EDITS
from unimodal.data.scenes.free_questions import QUESTIONS as FREE_QUESTIONS
from unimodal.data.scenes.free_words import Unseen, asked_freely, free_request, said_freely
from unimodal.data.scenes.phrasings import EDITS as PLAIN_EDITS
from unimodal.data.scenes.questions import KINDS as QUESTIONS
from unimodal.data.scenes.questions import ask
from unimodal.data.scenes.refusals import REASONS, about_strange, absent, beyond, refused
from unimodal.data.scenes.requests import TASKS, granted
from unimodal.data.scenes.small_talk import TALK, small_talk
from unimodal.data.scenes.strange import strange
from unimodal.data.scenes.wording import NUMBERS, pick
from unimodal.data.scenes.world import World, generator, has_held_out_pair, scene

from .scene_request import SceneRequest
from .tokenizer import as_json
from .verdicts import (
    expected_of,
    judge_drawing,
    judge_edit,
    judge_question,
    judge_refusal,
    judge_words,
    names_held_out_pair,
)

FREE = (*TASKS, "question", "edit")
ABOUT_IMAGES = ("absent", "beyond", "strange")
REFUSALS = (*dict.fromkeys(REASONS), *ABOUT_IMAGES)
TOPICS = tuple(TALK)
SIDES = {
    "nothing": Unseen(),
    "words": Unseen(words=True),
    "phrasings": Unseen(phrasings=True),
}
CANVAS = 64  # of images that are no scenes; the tokenizer fits them


def numbers(world: World) -> tuple[str, ...]:
    """Return the numbers that are counted, zero included."""
    return NUMBERS[: world.max_objects + 1]


def free(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest | None:
    """Make a request in free words: a task of drawing, a question or an edit."""
    rng = generator(seed, index, part=1)
    side = pick(rng, tuple(SIDES))
    unseen, held_out = SIDES[side], side != "nothing"
    if kind in TASKS:
        wanted = free_request(kind, rng, unseen, pairs=None)
        if kind == "counting" and wanted.claims[0].count < 2:
            return None
        return SceneRequest(
            "free", number, kind, wanted.text, None, granted(wanted, rng, world),
            expected_of(wanted), partial(judge_drawing, wanted),
            held_out, names_held_out_pair(wanted), unseen=side,
        )  # fmt: skip
    shown = scene(seed, index, world)
    pair = has_held_out_pair(shown.objects)
    if kind == "question":
        asked = ask(shown, pick(rng, QUESTIONS), rng, unseen.phrasings, FREE_QUESTIONS)
        if asked is None:
            return None
        text = asked_freely(asked.text, rng, unseen)
        return SceneRequest(
            "free", number, kind, text, shown, None, asked.answer,
            partial(judge_question, asked), held_out, pair, unseen=side,
        )  # fmt: skip
    change = edit(shown, pick(rng, EDITS), rng, unseen.phrasings, world=world, phrasings=FREE_EDITS)
    if change is None:
        return None
    text = said_freely(change.instruction, rng, unseen)
    return SceneRequest(
        "free", number, kind, text, shown, change.after, as_json(change.after),
        partial(judge_edit, change), held_out,
        pair or has_held_out_pair(change.after.objects), unseen=side,
    )  # fmt: skip


def count(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest:
    """Make a question of how many, whose answer is `kind`."""
    rng = generator(seed, index, part=1)
    shown, claim = counted_scene(rng, world, NUMBERS.index(kind))
    held_out = bool(rng.random() < 0.2)
    asked = question_of(shown, claim, rng, held_out)
    return SceneRequest(
        "counts", number, kind, asked.text, shown, None, asked.answer,
        partial(judge_question, asked), held_out, has_held_out_pair(shown.objects),
    )  # fmt: skip


def refusal(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest:
    """Make a request that cannot be granted, for a reason."""
    rng, shown = generator(seed, index, part=1), scene(seed, index, world)
    image = strange(rng, CANVAS) if kind == "strange" else None
    if kind == "absent":
        one = absent(shown, rng, PLAIN_EDITS, held_out=True)
    elif kind == "beyond":
        one = beyond(rng, held_out=True)
    elif kind == "strange":
        one = about_strange(rng, held_out=True)
    else:
        one = refused(rng, world, CANVAS, held_out=True, reason=kind)
    is_about = kind in ("absent", "beyond")
    return SceneRequest(
        "refusals", number, kind, one.text, shown if is_about else None, None, one.answer,
        judge_refusal, True, is_about and has_held_out_pair(shown.objects), image,
    )  # fmt: skip


def words(kind: str, world: World, number: int, seed: int, index: int) -> SceneRequest:
    """Make a saying of small talk on a topic."""
    said, answer = small_talk(generator(seed, index, part=1), held_out=True, topics=(kind,))
    return SceneRequest("words", number, kind, said, None, None, answer, judge_words, True, False)
