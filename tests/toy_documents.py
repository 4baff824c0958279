"""Documents of the toy layouts, as hypothesis draws them."""

import dataclasses

import pytest
from hypothesis import strategies as st
from toy_layouts import TOYS, Toy

from unimodal.document import Document, Part, Text

NAMES = [*TOYS]
WORDS = st.text("abcdrw :", min_size=1, max_size=12)


@pytest.fixture(params=NAMES)
def toy(request) -> Toy:
    return TOYS[request.param]


@st.composite
def conversations(draw: st.DrawFn, toy: Toy, user_weights: tuple[float, ...] = (0.0, 0.5)):
    """Turns of the user and the assistant by turns, with texts and images in each."""
    parts: list[Part] = []
    for turn in range(draw(st.integers(1, 5))):
        role = ("user", "assistant")[turn % 2]
        weights = st.sampled_from(user_weights if role == "user" else (0.0, 1.0))
        for _ in range(draw(st.integers(1, 3))):
            weight = draw(weights)
            if draw(st.booleans()):
                parts.append(Text(draw(WORDS), role, weight))
                continue
            parts.append(toy.image(role, draw(st.integers(0, 9)), weight))
            if role == "assistant" and toy.layout.image.ends_reply:
                break
    return Document(tuple(parts))


any_toy = st.sampled_from(NAMES).map(lambda name: TOYS[name])
documents = any_toy.flatmap(lambda toy: st.tuples(st.just(toy), conversations(toy)))
learned_replies = any_toy.flatmap(lambda toy: st.tuples(st.just(toy), conversations(toy, (0.0,))))


def joined(parts: list[Part]) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        if found and isinstance(part, Text) and isinstance(found[-1], Text):
            part = dataclasses.replace(part, text=found.pop().text + part.text)
        found.append(dataclasses.replace(part, weight=1.0))
    return found
