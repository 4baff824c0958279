"""Mixes of conversations by name, each for one purpose.

In: a name. Out: a `Mix`. `unimodal data scenes --mix people` takes one, and further `--mix
field=number` change it.
"""

from collections.abc import Sequence

from .conversations import Mix

MIXES = {
    "plain": Mix(),
    # What people type: half of it in free words, chains, even counts, refusals and small talk.
    "people": Mix(
        draw=0.25,
        ask=0.11,
        describe=0.04,
        edit=0.2,
        story=0.0,
        greet=0.0,
        chain=0.17,
        count=0.06,
        compare=0.03,
        tale=0.03,
        chat=0.04,
        refuse=0.07,
        free=0.5,
        follow=0.25,
        min_questions=6,
        max_questions=9,
        seen_weight=0.5,
    ),
}


def named(changes: Sequence[str]) -> tuple[Mix, Sequence[str]]:
    """Return the mix that the first change names, else the plain one, and the other changes."""
    if changes and changes[0] in MIXES:
        return MIXES[changes[0]], changes[1:]
    return MIXES["plain"], changes
