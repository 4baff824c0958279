"""Rewards: verdicts and their shape, a user's command, and what is refused."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unimodal.data.scenes.edits import edit
from unimodal.data.scenes.layouts import placed
from unimodal.data.scenes.plans import plan
from unimodal.data.scenes.questions import ask
from unimodal.data.scenes.refusals import NO_SUMS
from unimodal.data.scenes.requests import granted, request
from unimodal.data.scenes.wording import caption
from unimodal.data.scenes.world import Background, Scene, SceneObject, generator, render, scene
from unimodal.document import Box, Document, Image, Part, Text
from unimodal.tokenizer.grid import Grid
from unimodal.train.rl.prompts import Prompt, Wish
from unimodal.train.rl.rewards import Mark, asked, checked, judge_of, judged_scene
from unimodal.train.rl.run import RewardConfig, ScenesReward

SHAPED, STRICT = ScenesReward(), ScenesReward(wrong=0.0, share=0.0)
ASKED = Document((Text("draw a big red dot", role="user"),))
COMMAND = """
import json, sys
from PIL import Image
for line in sys.stdin:
    given = json.loads(line)
    said = " ".join(part.get("text", "") for part in given["reply"])
    sides = [Image.open(part["image"]).size[0] for part in given["reply"] if "image" in part]
    print(len(given["prompt"]) + len(said) / 100 + sum(sides))
"""


def drawn(shown: Scene) -> Image:
    codes = np.zeros((64, 1), np.int64)
    return Image(pixels=render(shown), codes=codes, grid=Grid(8, 8), codec_hash="any",
                 role="assistant")  # fmt: skip


def said(words: str) -> Text:
    return Text(words, role="assistant")


def mark(wish: Wish, *reply: Part, shape: ScenesReward = SHAPED) -> Mark:
    return judged_scene(shape, Prompt("any", ASKED, wish), reply)


def test_a_drawing_is_judged_by_both_readers() -> None:
    rng = generator(3, 1)
    wish = request("two objects", rng)
    right = granted(wish, rng)
    half = replace(right, objects=right.objects[:1])
    found = mark(wish, drawn(right))
    assert (found.reward, found.facts["right"], found.facts["second"]) == (1.0, 1.0, 1.0)
    found = mark(wish, drawn(half))
    assert found.reward == pytest.approx(0.1 + 0.3 * 0.5)
    assert (found.facts["right"], found.facts["second"]) == (0.0, 0.0)
    assert mark(wish, drawn(half), shape=STRICT).reward == 0.0
    assert mark(wish, drawn(right), shape=STRICT).reward == 1.0
    words = mark(wish, said("here it is"))
    assert (words.reward, words.facts["words_instead"], words.facts["words"]) == (0.0, 1.0, 3.0)
    refusals = [mark(wish, said(text)).facts["refused"] for text in ("here it is", NO_SUMS)]
    assert refusals == [0.0, 1.0]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert mark(wish, replace(drawn(right), pixels=noise)).reward == 0.0
    assert mark(wish, drawn(right), drawn(right)).reward == 0.0, "one image was asked for"


def test_a_right_plan_is_worth_something_where_the_image_is_wrong() -> None:
    rng = generator(3, 1)
    wish = request("two objects", rng)
    right = granted(wish, rng)
    half = replace(right, objects=right.objects[:1])
    shape = replace(SHAPED, plan=0.2)
    found = mark(wish, said(plan(right)), drawn(half), shape=shape)
    assert (found.reward, found.facts["planned"]) == (pytest.approx(0.1 + 0.15 + 0.2), 1.0)
    assert mark(wish, said(plan(right)), drawn(half)).reward == pytest.approx(0.25), "by default"
    found = mark(wish, said(plan(half)), drawn(half), shape=shape)
    assert (found.reward, found.facts["planned"]) == (pytest.approx(0.25), 0.0)
    found = mark(wish, said(plan(half)), drawn(right), shape=shape)
    assert (found.reward, found.facts["planned"]) == (1.0, 0.0), "an image is judged by itself"
    assert "planned" not in mark(wish, said("here it is"), drawn(right), shape=shape).facts
    assert mark(wish, said(plan(right)), shape=shape).reward == 0.0, "no image came"
    assert ScenesReward(plan=0.6).problems() and not ScenesReward(plan=0.5).problems()


def test_boxes_are_judged_by_what_stands_in_them() -> None:
    rng = generator(5, 1)
    shown = scene(5, number := next(n for n in range(99) if len(scene(5, n).objects) == 3))
    wish = tuple(placed(obj, rng, loose=True) for obj in shown.objects)
    found = mark(wish, drawn(shown))
    assert (found.reward, found.facts["right"], found.facts["second"]) == (1.0, 1.0, 1.0), number
    fewer = replace(shown, objects=shown.objects[:2])
    assert mark(wish, drawn(fewer)).reward == pytest.approx(0.1 + 0.3 * 2 / 3)
    moved = mark(wish, drawn(replace(shown, objects=_flipped(shown.objects))))
    assert moved.reward < 0.4 and moved.facts["second"] == 0.0
    assert mark(wish, said("here")).facts["words_instead"] == 1.0


def _flipped(objects: tuple[SceneObject, ...]) -> tuple[SceneObject, ...]:
    return tuple(replace(obj, x=1 - obj.x, y=1 - obj.y) for obj in objects)


def test_words_and_edits_are_judged() -> None:
    shown, rng = scene(4, 2), generator(4, 2, 1)
    question = ask(shown, "count", rng)
    assert question is not None
    assert mark(question, said(question.answer)).reward == 1.0
    assert mark(question, said("purple")).reward == 0.0
    assert mark(shown, said(caption(shown, rng))).reward == 1.0
    assert mark(shown, said("draw me")).reward == 0.0
    other = scene(4, 3)
    assert 0.1 <= mark(shown, said(caption(other, rng))).reward < 0.4
    change = edit(shown, "recolour", rng)
    assert change is not None
    made = mark(change, drawn(change.after))
    assert (made.reward, made.facts["second"]) == (1.0, 1.0)
    assert mark(change, drawn(change.before)).facts["second"] == 0.0
    assert mark(change, drawn(change.before)).reward == 0.1, "a copy has come none of the way"
    assert "second" not in mark(question, said("two")).facts


def test_a_command_reads_what_was_said_and_drawn(tmp_path: Path) -> None:
    script = tmp_path / "taste.py"
    script.write_text(COMMAND)
    blank = Scene(Background("plain", "sand"), ())
    prompts = [Prompt("mine", ASKED)] * 3
    replies = [(said("well"),), (drawn(blank),), (said("so"), drawn(blank))]
    judge = judge_of(RewardConfig(command=f"{sys.executable} {script}"))
    found = judge(prompts, replies)
    assert [one.reward for one in found] == pytest.approx([1.04, 65.0, 65.03])
    assert [one.facts["images"] for one in found] == [0.0, 1.0, 1.0]


def test_a_command_is_told_what_is_to_stand_where(tmp_path: Path) -> None:
    """The width of the box is the mark."""
    script = tmp_path / "width.py"
    script.write_text(
        "import json\nleft, _, right, _ = json.loads(input())['prompt'][1]['box']\n"
        "print(right - left)"
    )
    boxed = Text("a red dot", role="user", box=Box(0.25, 0.0, 0.75, 0.5))
    prompt = Prompt("mine", Document((*ASKED.parts, boxed)))
    (mark,) = asked(f"{sys.executable} {script}", 60.0, [prompt], [(said("one"),)])
    assert mark.reward == 0.5


@pytest.mark.parametrize(
    "code,problem",
    [
        ("print(1)", "wrote 1 lines for 2 replies: a number for each"),
        ("print('3 4'); print(2)", "the reward of .* is '3 4': a finite number"),
        ("print('x' * 999); print(2)", "is 'x{79}: a finite number"),
        ("raise SystemExit(3)", "ended with 3, and wrote no error"),
        ("print('nan'); print(2)", "finite number"),
        ("print('1_000'); print(2)", "finite number"),
        ("print('good'); print(2)", "finite number"),
        ("raise SystemExit('out of taste')", "out of taste"),
        (
            "import os; os.write(1, b'\\xff\\n2\\n')",
            r"the reward of .*taste.py is '.*xff': a finite",
        ),
        ("import time; time.sleep(9)", r"not done in 1 s: give more reward.timeout_s"),
    ],
)
def test_a_command_that_fails_is_an_error(tmp_path: Path, code: str, problem: str) -> None:
    script = tmp_path / "taste.py"
    script.write_text(code)
    timeout_s = 1.0 if "sleep" in code else 60.0
    with pytest.raises(ValueError, match=problem):
        asked(
            f"{sys.executable} {script}", timeout_s, [Prompt("mine", ASKED)] * 2,
            [(said("one"),), (said("two"),)],
        )  # fmt: skip


def test_what_a_late_command_started_ends_with_it(tmp_path: Path) -> None:
    script, noted = tmp_path / "taste.sh", tmp_path / "child"
    script.write_text(f"#!/bin/sh\nsleep 60 &\necho $! > {noted}\nwait\n")
    script.chmod(0o755)
    with pytest.raises(ValueError, match="not done in 1 s"):
        asked(str(script), 1.0, [Prompt("mine", ASKED)], [(said("one"),)])
    status = Path("/proc") / noted.read_text().strip() / "status"
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_function_that_gives_no_number_is_an_error() -> None:
    for name, problem in (
        ("builtins:max", "builtins:max raised TypeError: .*called with .document, reply."),
        ("operator:truediv", "operator:truediv raised TypeError: .* for a reply to 'draw"),
        ("operator:is_not", None),
        ("operator:contains", "operator:contains raised TypeError"),
    ):
        judge = judge_of(RewardConfig(python=name))
        if problem is None:
            assert [one.reward for one in judge([Prompt("mine", ASKED)], [(said("one"),)])] == [1.0]
            continue
        with pytest.raises(ValueError, match=problem):
            judge([Prompt("mine", ASKED)], [(said("one"),)])
    for name, problem in (
        ("no_such:function", "a module is found where python finds it"),
        ("json:no_such", r"json:no_such: the module has no no_such$"),
        ("json:", "it is written module:function"),
        (":loads", "it is written module:function"),
        ("json", "it is written module:function"),
    ):
        with pytest.raises(ValueError, match=problem):
            judge_of(RewardConfig(python=name))
    with pytest.raises(
        ValueError, match=r"json:loads\(s.*\): too many positional arguments; it is"
    ):
        judge_of(RewardConfig(python="json:loads"))


def test_what_a_function_raises_is_told_in_a_line(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_taste.py").write_text(
        "def leaves(document, reply):\n    raise SystemExit(2)\n\n\n"
        "def explains(document, reply):\n    raise KeyError('no\\nsuch')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name, told in (("leaves", "SystemExit: 2"), ("explains", "KeyError: ")):
        judge = judge_of(RewardConfig(python=f"my_taste:{name}"))
        with pytest.raises(ValueError, match=rf"{told}.*my_taste\.py, line \d") as error:
            judge([Prompt("mine", ASKED)], [(said("one"),)])
        assert "\n" not in str(error.value)


def test_a_command_that_is_not_there_is_told_before_anything_is_asked() -> None:
    with pytest.raises(ValueError, match="'no-such-judge --fast': there is no program no-such"):
        judge_of(RewardConfig(command="no-such-judge --fast"))
    with pytest.raises(ValueError, match="is no command: No closing quotation"):
        judge_of(RewardConfig(command="judge 'me"))
    with pytest.raises(ValueError, match="reward.command '' is empty: name a program"):
        judge_of(RewardConfig(command=""))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero$"),
        ("raise SystemExit(3)", "SystemExit: 3$"),
        ("def taste(document", "SyntaxError: .* was never closed"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told(
    tmp_path: Path, monkeypatch, code: str, problem: str
) -> None:
    name = f"unusable_{len(code)}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"reward.python {name}:taste: {problem}"):
        judge_of(RewardConfig(python=f"{name}:taste"))


def test_a_number_that_no_float_holds_is_no_reward() -> None:
    with pytest.raises(ValueError, match="a finite number is wanted"):
        checked("mine", 10**400)
    with pytest.raises(ValueError, match="of mine is a int that cannot be shown: a finite number"):
        checked("mine", 10**5000)
