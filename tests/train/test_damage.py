"""A damaged checkpoint is named and set aside, and the run goes on from the one before it."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import launching
import pytest
import torch
from pair import Pair
from tiny_runs import exact, recipe
from train_files import flip, history, modes

from unimodal import load
from unimodal.config import save
from unimodal.train import lm
from unimodal.train.checkpoint import MASTER, Checkpoint, found, resumable
from unimodal.train.checksums import Damaged
from unimodal.train.history import Change, note
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, EVERY, LAST = 6, 2, "step_00000006"
RANK = "rank_00000_of_00001.safetensors"


@pytest.fixture(scope="module")
def config(shards: Path, tokenizer: Path, tmp_path_factory) -> LmRun:
    """A run of six steps, with checkpoints after four and six."""
    output = tmp_path_factory.mktemp("damage") / "whole"
    found = recipe(output, shards, tokenizer, STEPS, save_every_steps=EVERY)
    lm.train(found)
    return found


@pytest.fixture
def copy(config: LmRun, tmp_path: Path) -> LmRun:
    """The same run, to be gone on with for two more steps."""
    shutil.copytree(config.output, tmp_path / "run")
    return replace(config, output=tmp_path / "run", schedule=ScheduleConfig(STEPS + 2, 1))


@pytest.fixture(scope="module")
def longer(config: LmRun, tmp_path_factory) -> LmRun:
    """The run of eight steps that was never stopped."""
    output = tmp_path_factory.mktemp("longer") / "run"
    found = replace(config, output=output, schedule=ScheduleConfig(STEPS + 2, 1))
    lm.train(found)
    return found


def exponent(run: Path) -> None:
    """Flip the exponent's highest bit of one weight's first element."""
    path = run / LAST / RANK
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    name = next(name for name in header if name.endswith(f"down_proj.weight/{MASTER}"))
    flip(path, 8 + length + header[name]["data_offsets"][0] + 3)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a weight": (exponent, f"{RANK} is not what was saved"),
    "the last byte": (lambda run: flip(run / LAST / RANK, -1), f"{RANK} is not what was saved"),
    "a header": (lambda run: flip(run / LAST / RANK, 40), f"{RANK} is not what was saved"),
    "the state": (lambda run: flip(run / LAST / "state.json", 20, 0), "state.json is not what"),
    "a sum": (
        lambda run: flip(run / LAST / "checksums.json", -5, 0),
        "is not what was saved|has .* bytes instead of",
    ),
    "the end": (
        lambda run: os.truncate(run / LAST / RANK, 10_000),
        rf"{RANK} has 10,000 bytes instead of",
    ),
    "a file": (lambda run: (run / LAST / RANK).unlink(), "No such file"),
    "the sums": (lambda run: (run / LAST / "checksums.json").unlink(), "checksums.json is gone"),
    "the list": (
        lambda run: (run / LAST / "checksums.json").write_text("[]"), "cannot be read|has no attr"
    ),
    "a page": (
        lambda run: (run / LAST / "state.json").write_bytes(b""), "state.json has 0 bytes"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_met(kind: str, copy: LmRun):
    damage, words = DAMAGES[kind]
    damage(copy.output)
    newest, damaged = resumable(copy.output, Ranks())
    assert newest is not None and newest.step == 4
    assert list(damaged) == [copy.output / LAST]
    assert re.search(words, damaged[copy.output / LAST]), damaged


def test_the_checkpoint_before_is_taken(copy: LmRun, longer: LmRun, capsys):
    exponent(copy.output)
    lm.train(copy)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{copy.output}/{LAST} is damaged ({RANK} is not what was saved" in said
    assert "); it is kept as damaged_step_00000006, and the run goes on from step 4" in said
    assert exact(copy.output) == exact(longer.output)
    assert (copy.output / f"damaged_{LAST}").is_dir()
    assert [path.name for path in found(copy.output)] == [LAST, "step_00000008"]
    assert (4, "checkpoint", LAST, "step_00000004") in history(copy.output)
    one, two = (Checkpoint(found(run)[-1]) for run in (copy.output, longer.output))
    for name in one.shapes:
        assert torch.equal(one.whole(name), two.whole(name))


def test_the_next_start_is_silent_about_it(copy: LmRun, capsys):
    exponent(copy.output)
    lm.train(copy)
    capsys.readouterr()
    lm.train(replace(copy, schedule=ScheduleConfig(STEPS + 3, 1)))
    assert "damaged" not in capsys.readouterr().err
    assert (copy.output / f"damaged_{LAST}").is_dir()


def test_a_second_one_is_kept_beside_the_first(copy: LmRun):
    exponent(copy.output)
    (copy.output / f"damaged_{LAST}").mkdir()
    lm.train(copy)
    assert (copy.output / f"damaged_{LAST}_" / RANK).exists()


def test_where_none_is_whole_nothing_is_touched(copy: LmRun):
    exponent(copy.output)
    (copy.output / "step_00000004" / RANK).unlink()
    before = sorted(copy.output.rglob("*"))
    for _ in range(2):
        with pytest.raises(ValueError, match="no checkpoint of .* is whole; put one back") as error:
            lm.train(copy)
        assert "step_00000006: rank_0" in str(error.value)
        assert "step_00000004: " in str(error.value)
        assert sorted(copy.output.rglob("*")) == before


def test_a_refused_start_sets_nothing_aside(copy: LmRun):
    exponent(copy.output)
    with pytest.raises(ValueError, match="another seed, after 4 steps"):
        lm.train(replace(copy, seed=5))
    assert [path.name for path in found(copy.output)] == ["step_00000004", LAST]


def test_what_is_read_is_verified_as_it_is_read(copy: LmRun):
    """A bundle that is made of a checkpoint which is damaged meanwhile is not made."""
    checkpoint = Checkpoint(copy.output / LAST)
    name = "model.layers.0.mlp.down_proj.weight"
    checkpoint.whole(name)
    exponent(copy.output)
    with pytest.raises(Damaged, match="is not what was saved"):
        Checkpoint(copy.output / LAST).whole(name)
    with pytest.raises(ValueError, match="is not what was saved"):
        lm.snapshot(copy, copy.output / "bundle2")
    assert not (copy.output / "bundle2").exists()


def test_any_kept_checkpoint_becomes_a_bundle(copy: LmRun, tmp_path: Path):
    first, last = (Checkpoint(path) for path in found(copy.output))
    name = "model.layers.0.mlp.down_proj.weight"
    bundles = [
        lm.snapshot(copy, tmp_path / str(step), step) for step in (first.step, last.step, None)
    ]
    weights = [load(bundle).transformer.get_parameter(name) for bundle in bundles]
    assert torch.equal(weights[1], weights[2]) and not torch.equal(weights[0], weights[1])
    for weight, whole in zip(weights, (first, last), strict=False):
        assert torch.equal(weight, whole.whole(name).bfloat16().float())
    with pytest.raises(ValueError, match=f"no checkpoint of step 5: its steps are {first.step}, 6"):
        lm.snapshot(copy, tmp_path / "none", 5)


def test_checkpoints_of_a_version_without_checksums_go_on(copy: LmRun, longer: LmRun):
    for path in found(copy.output):
        (path / "checksums.json").unlink()
        state = json.loads((path / "state.json").read_text())
        for name in ("streams", "text"):
            del state["data"][name]
        (path / "state.json").write_text(json.dumps(state | {"format": 2}))
    lm.train(copy)
    assert exact(copy.output) == exact(longer.output)


def test_another_text_tokenizer_is_met(copy: LmRun):
    """One that parses: two of its ids have changed places."""
    path = copy.output / "text.json"
    whole = path.read_text()
    tree = json.loads(whole)
    vocab = tree["model"]["vocab"]
    one, two = [name for name in vocab if vocab[name] in (80, 81)]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="text.json is not the text tokenizer that the run began"):
        lm.train(copy)
    path.write_text(whole[:1000])
    with pytest.raises(ValueError, match="text.json is no text tokenizer"):
        lm.train(copy)
    path.unlink()  # the way out that the messages name
    lm.train(copy)
    assert path.read_text() == whole


def test_a_log_that_is_gone_is_no_dead_end(copy: LmRun):
    (copy.output / "metrics.jsonl").unlink()
    shutil.rmtree(copy.output / "bundle")
    lm.train(replace(copy, schedule=ScheduleConfig(STEPS, 1)))  # no step is left to be taken
    assert (copy.output / "bundle" / "manifest.json").exists()
    (copy.output / "metrics.jsonl").unlink(missing_ok=True)
    lm.train(copy)
    assert [line[0] for line in exact(copy.output)] == [STEPS, STEPS + 1]


NOTES = (
    "before.json", "commits.txt", "config.yaml", "history.jsonl", "inputs.json", "metrics.jsonl",
    "quarantine.jsonl", "sources.json", "text.json", "vocabulary.yaml",
)  # fmt: skip


@pytest.fixture(scope="module")
def noted(config: LmRun, tmp_path_factory) -> LmRun:
    """The run of six steps with every file that a run can have beside its checkpoints."""
    run = tmp_path_factory.mktemp("noted") / "run"
    shutil.copytree(config.output, run)
    (run / "before.json").write_text('{"held_out.new.text": 6.0}\n')
    (run / "commits.txt").write_text("0123456789abcdef\n")
    (run / "quarantine.jsonl").write_text(
        '{"shard": "a.tar", "key": "1", "reason": "cut", "message": "cut"}\n'
    )
    note(run, STEPS, [Change("loss.z", 0.0, 0.1)])
    schedule = ScheduleConfig(STEPS + 1, 1)
    return replace(config, output=run, schedule=schedule)


@pytest.mark.parametrize("name", NOTES)
def test_a_damaged_note_is_named_with_a_way_out_which_works(
    name: str, noted: LmRun, tmp_path: Path
):
    """Before a step is taken; one that is only written is written again."""
    there = {path.name for path in noted.output.iterdir() if path.is_file()}
    assert there == set(NOTES)
    shutil.copytree(noted.output, tmp_path / "run")
    run = replace(noted, output=tmp_path / "run")
    path = run.output / name
    path.write_bytes(b"\xff{" + path.read_bytes())
    if name != "sources.json":
        with pytest.raises(ValueError, match=rf"(?s){name}(:| is) .*remove") as refused:
            lm.train(run)
        assert str(run.output) in str(refused.value).replace("\n", " ")
        assert found(run.output)[-1].name == LAST
        path.unlink()
    lm.train(run)
    assert found(run.output)[-1].name == "step_00000007"


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077], ids=oct)
def test_files_are_as_readable_as_the_user_has_it(
    mask: int, shards: Path, tokenizer: Path, tmp_path: Path
):
    before = os.umask(mask)
    try:
        lm.train(recipe(tmp_path / "run", shards, tokenizer, 1))
    finally:
        os.umask(before)
    found = modes(tmp_path)
    assert len(found) > 15
    assert set(found.values()) == {0o666 & ~mask, 0o777 & ~mask}
    folders = {name for name, mode in found.items() if mode & 0o100}
    assert folders == {"run", "run/bundle", "run/step_00000001"}


def two_ranks(folder: Path, shards: Path, tokenizer: Path, steps: int) -> Path:
    config = recipe(folder / "run", shards, tokenizer, steps, save_every_steps=EVERY)
    config = replace(
        config,
        loader=replace(config.loader, sequence_length=512, batch_rows=2),
        optimizer=OptimizerConfig(lr=3e-3),
        engine=EngineConfig(launching.ROOT / "configs" / "zero3.json", timeout_s=100),
    )
    save(config, folder / "lm.yaml")
    return folder / "lm.yaml"


def test_all_ranks_take_the_same_one(shards: Path, tokenizer: Path, tmp_path: Path, pair: Pair):
    """What only one of them reads decides for both."""
    pair(launching.train, str(two_ranks(tmp_path, shards, tokenizer, STEPS)))
    whole = exact(tmp_path / "run")
    for rank in (1, 0):
        run = tmp_path / "run"
        flip(run / LAST / f"rank_{rank:05d}_of_00002.safetensors", -100)
        assert resumable(run, Ranks())[0].step == 4
        pair(launching.train, str(tmp_path / "lm.yaml"))
        assert exact(run) == whole
        assert len(list(run.glob(f"damaged_{LAST}*"))) == 2 - rank
    assert resumable(tmp_path / "run", Ranks())[0].step == STEPS
