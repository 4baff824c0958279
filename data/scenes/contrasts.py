"""Two requests that differ in one thing, side by side: where something stands, or which is which.

In: a `Talk`. Out: its turns. A model that mixes up "a red circle left of a blue square" and "a blue
circle left of a red square" is right of one of them half of the time; here both are in a batch.
"""

from dataclasses import replace

import numpy as np

from .requests import OPPOSITE, Request, any_pair_held_out, request, worded
from .talk import Talk, grant, request_turn
from .wording import pick

TASKS = ("position", "attribute binding")


def contrast(talk: Talk) -> None:
    """Write a request of two objects and its image, and then what differs in one thing; in a world
    of one object a request.
    """
    if talk.world.max_objects < 2:
        return request_turn(talk)
    first, second = contrasted(talk.rng)
    for wanted in (first, second):
        talk.user(wanted.text)
        grant(talk, wanted)
    talk.subject = None  # two objects: 'it' is neither


def contrasted(rng: np.random.Generator) -> tuple[Request, Request]:
    """Draw a request of TASKS, and one with the relation turned round or the colours exchanged."""
    while True:
        first = request(pick(rng, TASKS), rng)
        if first.relation is not None and rng.random() < 0.5:
            other = replace(first, relation=OPPOSITE[first.relation])
        else:
            one, two = first.claims
            claims = replace(one, colour=two.colour), replace(two, colour=one.colour)
            other = replace(first, claims=claims)
        if other.claims != first.claims or other.relation != first.relation:
            if not any_pair_held_out(other.claims):
                return first, worded(other, rng)
