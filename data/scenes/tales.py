"""Several pictures in one reply: stories of a wished number of pictures, and pictures of one thing.

In: a `Talk`. Out: its turns. The number is one to four, in digits or words; more are refused.
"""

from . import edits
from .requests import TASKS, granted, request, what_words
from .talk import Talk, granted_by
from .wording import NUMBERS, noun, pick, pick_phrasing
from .world import Scene

MOST = 4  # pictures of a reply, as `Sampling.max_images` has it
SPELLED = (*NUMBERS, "seven", "eight", "nine", "ten", "eleven", "twelve")
TOO_LONG = "that is too long: i draw up to four pictures at once."
STORIES = (
    "spin a yarn about {one}, {number} pictures long",
    "tell me a story about {one} in {number} pictures",
    "a story about {one} in {number} pictures",
    "a story of {one}, {number} pictures",
    "tell a story with {number} pictures about {one}",
    "{number} pictures that tell a tale, with {one} as the hero",
    "tell a {number} picture story about {one}",
    "a tale about {one} in {number} pictures",
    "can you tell a story about {one} in {number} pictures?",
    "in {number} pictures, tell me about {one}",
    "{one} is in for an adventure of {number} pictures",
    "story time: {one}, {number} pictures",
    "make up a story of {number} pictures about {one}",
    "i want a story about {one} with {number} pictures",
    "a comic of {number} pictures about {one}",
)
SERIES = (
    "{number} times, show {what}",
    "draw {number} pictures of {what}",
    "{number} pictures of {what}",
    "i want {number} pictures of {what}",
    "give me {number} different pictures of {what}",
    "{number} versions of {what} would do",
    "make {number} drawings of {what}",
    "show me {number} pictures with {what}",
    "can you draw {number} pictures of {what}?",
    "{number} images of {what}, please",
)


def tale(talk: Talk) -> None:
    """Write a story, or a series, of a number of pictures that is said."""
    is_long = talk.chance(0.12)
    number = int(talk.rng.integers(*((MOST + 1, 13) if is_long else (1, MOST + 1))))
    is_series = number > 1 and talk.chance(0.4)
    said = str(number) if talk.chance(0.5) else SPELLED[number]
    wanted = granted_by(
        talk.world,
        lambda: request(pick(talk.rng, TASKS) if is_series else "colours", talk.rng),
    )
    hero = noun(wanted.claims[0], talk.rng, vary=False)
    what = what_words(wanted, talk.rng) if is_series else hero
    template = pick_phrasing(talk.rng, SERIES if is_series else STORIES, held_out=False)[1]
    if number == 1:
        template = template.replace("pictures", "picture")
    talk.say(template.format(one=hero, what=what, number=said))
    if is_long:
        return talk.reply(TOO_LONG)
    if not is_series:
        talk.reply(f"once there was {hero}.")
    for k in range(number):
        if is_series or k == 0:
            talk.draw(granted(wanted, talk.rng, talk.world, seen_only=True))
            continue
        words, drawn = next_event(talk)
        talk.reply(words)
        talk.draw(drawn)
    if not is_series:
        talk.reply("the end.")


def next_event(talk: Talk) -> tuple[str, Scene]:
    """Draw an event as (text, scene): the first object changes, or a friend comes."""
    assert talk.scene is not None, "a story begins with an image"
    while True:
        kind = pick(talk.rng, ("recolour", "add", "resize"))
        change = edits.edit(talk.scene, kind, talk.rng, seen_only=True, world=talk.world, subject=0)
        if change is None:
            continue
        hero, last = change.after.objects[0], change.after.objects[-1]
        if kind == "recolour":
            return f"one day it turned {hero.colour}.", change.after
        if kind == "add":
            return f"a {last.size} {last.colour} {last.shape} came along.", change.after
        return f"it became {hero.size}.", change.after
