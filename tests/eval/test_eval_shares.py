"""Shares of what was asked for, by hand and against the verdicts."""

import pytest

from unimodal.data.scenes.edits import KINDS, edit
from unimodal.data.scenes.requests import TASKS, Request, granted, grants, request
from unimodal.data.scenes.wording import Claim, caption
from unimodal.data.scenes.world import Background, Scene, SceneObject, generator, scene
from unimodal.eval.shares import share_done, share_granted, share_told

GREY = Background("plain", "grey")
RED_CIRCLE = SceneObject("circle", "red", "medium", 0.25, 0.25)
BLUE_SQUARE = SceneObject("square", "blue", "medium", 0.75, 0.75)


def wanted(task: str, *claims: Claim, relation: str | None = None) -> Request:
    return Request(task, claims, relation, None, "", 0)


@pytest.mark.parametrize(
    "asked,objects,share",
    [
        (wanted("colours", Claim(1, None, "red", "circle")), (BLUE_SQUARE,), 0.0),
        (wanted("two objects", Claim(1, None, None, "circle"), Claim(1, None, None, "star")),
         (RED_CIRCLE, BLUE_SQUARE), 0.5),
        (wanted("counting", Claim(3, None, None, "circle")), (RED_CIRCLE,), 1 / 3),
        (wanted("counting", Claim(2, None, None, "circle")), (RED_CIRCLE,) * 4, 0.5),
        (wanted("position", Claim(1, None, "red", "circle"), Claim(1, None, "blue", "square"),
                relation="below"), (RED_CIRCLE, BLUE_SQUARE), 2 / 3),
        # One circle cannot be both the red one and any circle.
        (wanted("several", Claim(1, None, None, "circle"), Claim(1, None, "red", "circle")),
         (RED_CIRCLE,), 0.5),
    ],
)  # fmt: skip
def test_shares_by_hand(asked: Request, objects: tuple[SceneObject, ...], share: float) -> None:
    assert share_granted(asked, Scene(GREY, objects)) == pytest.approx(share)


def test_only_what_is_right_has_all() -> None:
    for index in range(60):
        rng = generator(5, index)
        asked = request(TASKS[index % 6], rng)
        assert share_granted(asked, granted(asked, rng)) == 1.0
        other = scene(6, index)
        assert (share_granted(asked, other) == 1.0) == grants(asked, other)


def test_an_edit_that_was_not_done_lacks_a_part() -> None:
    shares = []
    for index in range(40):
        shown = scene(7, index)
        change = edit(shown, KINDS[index % len(KINDS)], generator(7, index, 1))
        if change is not None:
            assert share_done(change, change.after) == 1.0
            shares.append(share_done(change, shown))
    assert len(shares) > 20
    assert set(shares) == {0.0}, "a copy is no part of an edit"


def test_a_caption_of_another_scene_tells_little() -> None:
    own, other = [], []
    for index in range(30):
        shown = scene(8, index)
        text = caption(shown, generator(8, index, 1))
        own.append(share_told(text, shown))
        other.append(share_told(text, scene(9, index)))
    assert set(own) == {0.99}
    assert sum(other) / len(other) < 0.2
    assert share_told("no caption at all", scene(8, 0)) is None
