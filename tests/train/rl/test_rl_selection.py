"""What the default model does right, selected as shards."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import unimodal
from unimodal.config import load
from unimodal.data.found import find
from unimodal.data.shards import Shard, find_shards
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.eval.answer import Answer
from unimodal.eval.verdicts import judge_drawing
from unimodal.train.command import train
from unimodal.train.rl import selection
from unimodal.train.rl.run import RewardConfig
from unimodal.train.rl.selection import SelectionRun, select
from unimodal.train.rl.shard_prompts import prompts_of

pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(output: Path, replies: int) -> SelectionRun:
    small = ("batch=4", "shard_samples=4", f"replies={replies}")
    return load(SelectionRun, "scenes_own", (f"output={output}", *small))


def documents(folder: Path) -> list[tuple[int, Document]]:
    shards = [Shard(path) for path in find_shards(folder)]
    return [(int(one.key(at)), one.document(at)) for one in shards for at in range(len(one))]


def test_what_is_kept_was_asked_and_is_right(tmp_path: Path) -> None:
    """Its codes are drawn once more, and judged by the request of the same number."""
    run = recipe(tmp_path / "own", 6)
    note = select(run)
    kept = documents(run.output)
    assert note.kept == len(kept) == 6 <= note.asked
    assert len({number for number, _ in kept}) == 6
    model = unimodal.load()
    prompts = prompts_of(run.prompts, model, None, run.seed)
    for number, document in kept:
        asked, plan, drawing = document.parts
        wanted = prompts(number)
        assert asked == replace(wanted.document.parts[0], weight=0.0), "it is not learned"
        assert isinstance(plan, Text) and plan.role == "assistant" and plan.weight == 1
        assert isinstance(drawing, Image) and drawing.codec_hash == model.codec.hash
        (image,) = model.codec.decode([drawing])
        assert wanted.wish is not None
        assert not judge_drawing(wanted.wish, Answer.of((plan, image))).reason


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    select(recipe(whole, 8))
    select(recipe(cut, 4))
    (cut / "shard-000001.tar").write_bytes(b"of a shard whose note was never written")
    select(recipe(cut, 8))
    for name in ("shard-000000.tar", "shard-000001.tar", "shard-000001.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    again = select(recipe(cut, 8))
    assert again.kept == 8, "nothing is left to do"


def test_training_reads_it(tmp_path: Path) -> None:
    """It knows the image tokenizer and the seed, of which no exam may be."""
    run = recipe(tmp_path / "own", 4)
    select(run)
    note = json.loads((run.output / "encode.json").read_text())
    assert note["data_seeds"] == [331]
    assert note["tokenizer"] == unimodal.load().codec.hash
    place = SourceConfig(str(run.output)).place
    assert find({"own": place})[place].hash


def test_a_users_own_reward_selects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies whose first code is even, as the function says."""
    (tmp_path / "even.py").write_text(
        "def reward(document, reply):\n    return 1.0 - reply[-1].codes[0, 0] % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run = replace(recipe(tmp_path / "own", 4), reward=RewardConfig(python="even:reward"), facts=())
    select(replace(run, modality="image"))
    for _, document in documents(run.output):
        assert isinstance(document.parts[-1], Image)
        assert document.parts[-1].codes[0, 0] % 2 == 0


def test_nothing_right_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "ASKED_IN_VAIN", 3)
    with pytest.raises(ValueError, match=r"prompts 0 to 3 none .*least 2.0"):
        select(replace(recipe(tmp_path / "own", 4), least=2.0))


def test_no_more_are_asked_than_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right of them is kept, though it is less than was wanted, and not asked for twice."""
    bounded = replace(recipe(tmp_path / "own", 50), most_asked=7)
    note = select(bounded)
    whole = select(recipe(tmp_path / "whole", 8))
    numbers = [number for number, _ in documents(tmp_path / "whole") if number < 7]
    assert [number for number, _ in documents(bounded.output)] == numbers and whole.kept == 8
    assert note.kept == len(numbers) > 2 and note.asked == numbers[-1] + 1
    assert select(bounded) == note
    monkeypatch.setattr(selection, "ASKED_IN_VAIN", 3)
    hopeless = replace(bounded, output=tmp_path / "none", least=2.0)
    assert select(hopeless).kept == 0 and not list(hopeless.output.glob("*.tar"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("facts=[pretty]",), "facts pretty: one of second, planned"),
        (("replies=0",), "replies 0: at least 1"),
        (("most_asked=0",), "most_asked 0: at least 1"),
        (("least=7",), "least 7: reward.scenes gives 1 at most"),
        (("sampling.seed=3",), "each reply has its own"),
        (("reward={command: cat}",), "facts: they are told by reward.scenes"),
        (("prompts={sources: {a: {shards: x}}}",), "reward.scenes: it judges prompts.mix"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(SelectionRun, "scenes_own", overrides)


def test_another_selection_is_refused(tmp_path: Path) -> None:
    run = recipe(tmp_path / "own", 4)
    select(run)
    with pytest.raises(ValueError, match="shards of other settings: seed 0"):
        select(replace(run, seed=1))


def test_the_command_says_how_many(tmp_path: Path) -> None:
    arguments = ["select", "scenes_own", f"output={tmp_path / 'own'}", "replies=2", "batch=2"]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    assert "own: 2 replies of " in result.output
