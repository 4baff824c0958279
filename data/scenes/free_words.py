"""Put requests, questions and instructions in free words.

In: a `Request`, or a sentence in plain words. Out: the same meaning as people say it who have not
read the manual: other words (`synonyms.py`), other orders, several sentences, negation, context
that does not matter, and typing habits (`typed.py`). What is meant stays what it was.

`Unseen` says what of it is held out of training; evaluation asks with one of them at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .free_phrasings import (
    AFTER,
    BEFORE,
    CLOSERS,
    CONTEXTS,
    EXCEPT,
    QUESTION_FRAMES,
    REQUESTS,
    WHATEVER,
)
from .nouns import seen_nouns
from .requests import OPPOSITE, RELATION_WORDS, Request, request, what_words
from .synonyms import freely
from .typed import typed
from .wording import (
    Claim,
    bare_noun,
    ground_words,
    listed,
    noun,
    pick,
    pick_phrasing,
    plural,
    spell,
    with_article,
)
from .world import COLOURS, SHAPES

ADJECTIVES = {
    "circle": ("round", "circular"),
    "square": ("square-shaped",),
    "triangle": ("triangular", "three-sided"),
    "diamond": ("diamond-shaped",),
    "star": ("star-shaped",),
    "cross": ("cross-shaped", "plus-shaped"),
    "heart": ("heart-shaped",),
    "ring": ("ring-shaped",),
}
JOINTS = (" and ", " and ", ", ", " + ", " & ", " as well as ", " and also ", ", then ")
CONTRARY_RATE, CLOSER_RATE, FRAME_RATE = 0.08, 0.3, 0.2


@dataclass(frozen=True)
class Unseen:
    """What of a text is held out of training: families of words, phrasings."""

    words: bool = False
    phrasings: bool = False


SEEN = Unseen()


def free_request(
    task: str, rng: np.random.Generator, unseen: Unseen = SEEN, pairs: bool | None = False
) -> Request:
    """Draw a request of one of TASKS or EXTRAS in free words; `pairs` as in `requests.request`."""
    wanted = request(task, rng, pairs=pairs)
    return replace(wanted, text=free_text(wanted, rng, unseen))


def open_request(rng: np.random.Generator) -> Request:
    """Draw a request that leaves nearly all open, and what is drawn for it.

    It wants any picture at all, or any but a shape or a colour: the claims are one right choice.
    """
    shape, colour = pick(rng, SHAPES), pick(rng, tuple(COLOURS))
    if rng.random() < 0.4:
        text = pick_phrasing(rng, WHATEVER, False)[1]
        return replace(request(pick(rng, ("several", "colours", "two objects")), rng), text=text)
    template = pick_phrasing(rng, EXCEPT, False)[1]
    is_colour = "{colour}" in template
    claim = Claim(
        1, None,
        pick(rng, [name for name in COLOURS if not is_colour or name != colour]),
        shape if is_colour and "{shape}" in template
        else pick(rng, [name for name in SHAPES if is_colour or name != shape]),
    )  # fmt: skip
    text = typed(worded_freely(template.format(shape=shape, colour=colour), rng), rng)
    return Request("colours", (claim,), None, None, text, 0)


def free_text(wanted: Request, rng: np.random.Generator, unseen: Unseen = SEEN) -> str:
    """Put a request in free words, from its context to its last stop."""
    what = free_what(wanted, rng)
    if rng.random() < CONTRARY_RATE:
        what = _contrary(what, wanted.claims, rng)
    _, template = pick_phrasing(rng, REQUESTS, unseen.phrasings)
    text = template.format(what=what)
    end = text[-1]
    if end not in "?." and rng.random() < CLOSER_RATE:
        text += pick_phrasing(rng, CLOSERS, unseen.phrasings)[1]
    return typed(_in_context(worded_freely(text, rng, unseen), rng, unseen), rng)


def worded_freely(text: str, rng: np.random.Generator, unseen: Unseen = SEEN) -> str:
    """Return a sentence in free words; where words are to be unseen, one at least is."""
    rate = 0.25 if rng.random() < 0.5 else 0.75  # some people vary a word, some all
    if not unseen.words:
        return freely(text, rng, rate=rate)
    freed = text
    while freed == text and rate <= 1:
        freed, rate = freely(text, rng, held_out=True, rate=rate), rate + 0.25
    return freed


def asked_freely(text: str, rng: np.random.Generator, unseen: Unseen = SEEN) -> str:
    """Return a question in free words, sometimes with what people say before one."""
    text = worded_freely(text.lower(), rng, unseen)
    if rng.random() < FRAME_RATE:
        text = pick_phrasing(rng, QUESTION_FRAMES, unseen.phrasings)[1].format(question=text)
    return typed(text, rng)


def said_freely(text: str, rng: np.random.Generator, unseen: Unseen = SEEN) -> str:
    """Return what was said in plain words as people type it."""
    return typed(worded_freely(text.lower(), rng, unseen), rng)


def free_what(wanted: Request, rng: np.random.Generator) -> str:
    """Put what is wanted in words, in one of many orders."""
    claims, chance = wanted.claims, rng.random()
    if chance < 0.35 or wanted.task == "open":
        return what_words(wanted, rng)
    if wanted.relation is not None:
        return _related(claims, wanted.relation, rng)
    if wanted.background is not None:
        return _grounded(wanted, rng)
    if wanted.task == "counting" and claims[0].count > 1:
        return _counted(claims[0], rng)
    if len(claims) == 1 and claims[0].count == 1:
        return _one(claims[0], rng)
    if len(claims) == 2 and claims[0].shape == claims[1].shape and claims[0].count == 1:
        return _two_of_a_kind(claims, rng)
    nouns = [_short(claim, rng) for claim in claims]
    if len(nouns) == 2 and rng.random() < 0.15:
        return f"both {nouns[0]} and {nouns[1]}"
    return pick(rng, JOINTS).join(nouns)


def _short(claim: Claim, rng: np.random.Generator) -> str:
    """Return the noun with its article, or as people jot it down."""
    if claim.count > 1 or rng.random() < 0.75:
        return noun(claim, rng)
    return bare_noun(claim, rng)


def _one(claim: Claim, rng: np.random.Generator) -> str:
    """Put one object in words: its shape as noun or adjective, its attributes before or behind."""
    assert claim.shape is not None, "an open claim has no order of its own"
    told = [word for word in (claim.size, claim.colour) if word is not None]
    order = int(rng.integers(8))
    if not told:
        shape = pick(rng, ADJECTIVES[claim.shape])
        return (f"something {shape}", f"one {claim.shape}", claim.shape, f"just one {claim.shape}")[
            order % 4
        ]
    both, alone = " and ".join(told), with_article(claim.shape)
    return (
        bare_noun(claim, rng),
        f"{claim.shape}, {', '.join(told)}",
        f"{alone}. it should be {both}",
        f"{alone}, make it {both}",
        f"{alone} that is {both}",
        f"something {pick(rng, ADJECTIVES[claim.shape])} and {both}",
        f"one {' '.join(told)} {claim.shape}",
        f"{with_article(' '.join(told))} one, {alone} i mean",
    )[order]


def _counted(claim: Claim, rng: np.random.Generator) -> str:
    """Put several equal objects in words: the number before or behind."""
    many, number = bare_noun(claim, rng), spell(claim.count, rng)
    if claim.colour is None or claim.shape is None:
        return pick(rng, (f"{number} {many}", f"{many}, {number} of them", f"{many}: {number}"))
    shapes = plural(claim.shape)
    return pick(rng, (
        f"{number} {many}",
        f"{many}, {number} of them",
        f"{number} {shapes}, every one {claim.colour}",
        f"{number} {shapes} in {claim.colour}",
        f"{number} {shapes}. make them {claim.colour}",
        f"{shapes}. {number} of them, {claim.colour}",
    ))  # fmt: skip


def _two_of_a_kind(claims: Sequence[Claim], rng: np.random.Generator) -> str:
    """Put two objects of one shape in words: 'two circles, one red and one blue'."""
    assert claims[0].shape is not None, "both have the same shape"
    told = [" ".join(word for word in (c.size, c.colour) if word is not None) for c in claims]
    if not all(told):
        return listed([noun(claim, rng) for claim in claims])
    shapes = plural(claims[0].shape)
    return pick(rng, (
        f"two {shapes}, one {told[0]} and one {told[1]}",
        f"two {shapes}, {with_article(told[0])} one and {with_article(told[1])} one",
        f"{with_article(told[0])} and {with_article(told[1])} {claims[0].shape}",
    ))  # fmt: skip


def _related(claims: Sequence[Claim], relation: str, rng: np.random.Generator) -> str:
    """Put two objects and where they stand in words, in one sentence or two."""
    first, second = (noun(claim, rng, vary=False) for claim in claims)
    ahead = pick(rng, RELATION_WORDS[relation])
    back = pick(rng, RELATION_WORDS[OPPOSITE[relation]])
    one, two = (f"the {claim.shape}" for claim in claims)
    return pick(rng, (
        f"{first} {ahead} {second}",
        f"{first} {ahead} {second}",
        f"{second} with {first} {ahead} it",
        f"{first} and {second}, with {one} {ahead} {two}",
        f"{second} and {first}. {one} is {ahead} {two}",
        f"{first} and {second}. {two} should be {back} {one}",
        f"{second}, and {ahead} it {first}",
        f"{first}. {back} it, {second}",
        f"{first} that sits {ahead} {second}",
    ))  # fmt: skip


def _grounded(wanted: Request, rng: np.random.Generator) -> str:
    """Put an object and a background in words."""
    assert wanted.background is not None, "a background is wanted"
    one, ground = noun(wanted.claims[0], rng), ground_words(wanted.background, rng)
    return pick(rng, (
        f"{one} on {ground}",
        f"{one}, background {ground}",
        f"{one} with {with_article(ground)} background behind it",
        f"{one}. the background should be {ground}",
        f"{with_article(ground)} background and {one}",
    ))  # fmt: skip


def _contrary(what: str, claims: Sequence[Claim], rng: np.random.Generator) -> str:
    """Add what is not wanted: a shape or a colour that none of the claims leaves room for."""
    shapes = [shape for shape in SHAPES if all(c.shape not in (None, shape) for c in claims)]
    colours = [name for name in COLOURS if all(c.colour not in (None, name) for c in claims)]
    if colours and rng.random() < 0.3:
        template = pick(rng, ("{0}, not {1}", "{0}, nothing {1}", "{0} but nothing {1}"))
        return template.format(what, pick(rng, colours))
    if not shapes:
        return f"{what}, nothing else"
    template = pick(rng, (
        "{0}, no {1}", "{0} but no {1}", "{0} without any {1}", "{0}, no {1} please",
        "no {1}, just {0}", "not {1} but {0}", "{0} instead of {1}",
    ))  # fmt: skip
    return template.format(what, plural(pick(rng, shapes)))


def _in_context(text: str, rng: np.random.Generator, unseen: Unseen) -> str:
    """Return the text with a sentence before or behind it that does not matter."""
    chance = rng.random()
    if chance >= BEFORE + AFTER:
        return text
    context = pick_phrasing(rng, CONTEXTS, unseen.phrasings)[1]
    context = context.format(noun=pick(rng, seen_nouns()))
    if chance < BEFORE:
        return f"{context} {text}"
    return f"{text} {context}" if text[-1] in "?.!" else f"{text}. {context}"
