"""A stopped run is no dead end: what may change at a resume, from when on, and what says so."""

import dataclasses
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from stopped_runs import ALL, STEPS
from stopped_runs import run as run
from stopped_runs import stopped as stopped
from stopped_runs import whole as whole
from tiny_runs import exact, metrics
from train_files import command, history

from unimodal.config import changes as differences
from unimodal.config import load, save
from unimodal.data.loader import LoaderConfig
from unimodal.data.shards import ShardWriter, find_shards
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig, Stage
from unimodal.data.windows import LoaderState
from unimodal.document import Document, Text
from unimodal.sampling import Sampling
from unimodal.train import changes, lm, place
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.objectives import LossConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.tokenizer import TokenizerRun

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]


# --- the table ----------------------------------------------------------------------------------


def keys(kind: type, before: str = "") -> list[str]:
    """Every dotted key of a config's dataclass, of those that may be null too."""
    found, hints = [], get_type_hints(kind)
    for field in dataclasses.fields(kind):
        found.append(f"{before}{field.name}")
        for inner in (hints[field.name], *get_args(hints[field.name])):
            if dataclasses.is_dataclass(inner) and field.name not in ("stages", "sources"):
                found += keys(inner, f"{before}{field.name}.")
    return found


@pytest.mark.parametrize("kind", [LmRun, TokenizerRun])
def test_the_table_has_every_setting(kind: type):
    """What a config of a run has is named there, and nothing that none has."""
    for key in keys(kind):
        row = changes.row(changes.Change(key, 1, 2), 0) if key != "loader.stages" else key
        assert row, f"{key} has no row in changes.SETTINGS"
    known = {*keys(LmRun), *keys(TokenizerRun)}
    for row in changes.SETTINGS:
        plain = row.partition(" ")[0]
        plain = "sources" if plain.startswith("sources.*.") else plain
        assert not plain or plain in known, f"{row}: no config has that"


def test_the_page_shows_the_table():
    page = (ROOT / "docs" / "resuming.md").read_text()
    rows = re.findall(r"^\| `?([^`|]*?)`? \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    found = {tuple(cell.strip() for cell in row) for row in rows}
    for title, table in (("", changes.SETTINGS), (" (contents)", changes.CONTENTS)):
        for name, rule in table.items():
            row = (name and f"{name}{title}" or "anything else", rule.may, rule.holds)
            assert row in found, f"docs/resuming.md lacks | {' | '.join(row)} |"


def test_differences_are_found_by_dotted_keys(stopped: LmRun):
    other = replace(
        stopped,
        optimizer=replace(stopped.optimizer, lr=1.0, lr_scale={"model.": 2.0}),
        sources=stopped.sources | {"more": SourceConfig("x")},
        loader=replace(stopped.loader, images=ImageRule()),
    )
    found = {key: (old, new) for key, old, new in differences(stopped, other)}
    assert found["optimizer.lr"] == (3e-3, 1.0)
    assert found["optimizer.lr_scale.model."] == (None, 2.0)
    assert found["sources.more"][0] is None and found["sources.more"][1]["shards"] == "x"
    assert found["loader.images"][0] is None and len(found) == 4
    assert list(differences(stopped, stopped)) == []


# --- what may change as it is -------------------------------------------------------------------


def test_what_does_not_change_what_is_learned_may_change(
    run: LmRun, whole: list[tuple], shards: Path, tokenizer: Path, tmp_path: Path, capsys
):
    """The same shards and tokenizer elsewhere, another bad_share, held-out data, and more."""
    for source, name in ((shards, "moved"), (tokenizer, "coder")):
        shutil.copytree(source, tmp_path / name)
    changed = replace(
        run,
        sources={"scenes": SourceConfig(str(tmp_path / "moved"))},
        tokenizer=tmp_path / "coder",
        loader=replace(run.loader, bad_share=0.5),
        held_out=HeldOutConfig({"new": SourceConfig(str(shards))}, rows=1, every_steps=2),
        loop=replace(run.loop, save_every_steps=4),
        engine=replace(run.engine, micro_batch_rows=1),
        sampling=Sampling(guidance=2.0),
    )
    lm.train(changed)
    assert exact(run.output) == whole
    assert "held_out.new.text" in metrics(run.output)[-1]
    noted = {key: (step, old, new) for step, key, old, new in history(run.output)}
    assert noted["sources.scenes.shards"] == (STEPS, str(shards), str(tmp_path / "moved"))
    assert noted["loader.bad_share"] == (STEPS, 0.01, 0.5)
    assert noted["schedule.num_steps"] == (STEPS, STEPS, ALL)
    expected = {"tokenizer", "held_out.sources.new", "held_out.rows", "held_out.every_steps"}
    expected |= {"loop.save_every_steps", "engine.micro_batch_rows", "sampling"}
    assert set(noted) == expected | {
        "sources.scenes.shards", "loader.bad_share", "schedule.num_steps"
    }  # fmt: skip
    assert "loader.bad_share 0.01 -> 0.5 from step 3 on" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_begins_anew_with_whatever_it_is_given(run: LmRun, shards: Path):
    """Killed before its first save: no step counts, and nothing is to be kept."""
    shutil.rmtree(run.output / "step_00000003")
    shutil.rmtree(run.output / "bundle")
    lm.train(replace(run, seed=4, schedule=ScheduleConfig(1, 0)))
    assert len(metrics(run.output)) == 1 and history(run.output) == []


def test_a_finished_run_whose_checkpoints_are_gone_is_not_overwritten(run: LmRun):
    shutil.rmtree(run.output / "step_00000003")
    with pytest.raises(ValueError, match="holds a finished run, bundle, and no checkpoint"):
        lm.train(run)
    assert len(metrics(run.output)) == STEPS


# --- what changes what is learned ---------------------------------------------------------------


def test_a_lower_rate_is_refused_and_then_accepted(run: LmRun, whole: list[tuple]):
    lower = replace(run, optimizer=replace(run.optimizer, lr=1e-4, clip=0.25))
    before = sorted(path.stat().st_mtime_ns for path in run.output.rglob("*"))
    with pytest.raises(ValueError) as refused:
        lm.train(lower)
    said = str(refused.value)
    assert f"{run.output} holds a run with another optimizer.lr, optimizer.clip, after 3" in said
    assert "optimizer.lr 0.003 -> 0.0001; holds from the next step" in said
    assert "optimizer.clip 1.0 -> 0.25; holds from the next step" in said
    assert "add --accept-change to go on" in said
    locked = {run.output}  # whose lock came and went
    after = [path for path in run.output.rglob("*") if path not in locked]
    assert sorted(path.stat().st_mtime_ns for path in after) == before
    lm.train(lower, accept_change=True)
    assert exact(run.output)[: STEPS + 1] == whole[: STEPS + 1]  # a step is reported before it acts
    assert exact(run.output)[STEPS + 1] != whole[STEPS + 1]
    assert (STEPS, "optimizer.lr", 3e-3, 1e-4) in history(run.output)
    again = replace(lower, schedule=ScheduleConfig(ALL + 1, 1))
    lm.train(again)  # what was accepted is what it has now
    with pytest.raises(ValueError, match=r"optimizer.lr 0.0001 -> 0.003; holds"):
        lm.train(replace(run, schedule=ScheduleConfig(ALL + 2, 1)))


CHANGES = {
    "optimizer": {"optimizer.lr": "1e-4", "optimizer.clip": "0.5", "optimizer.weight_decay": "0.1",
                  "optimizer.beta1": "0.8", "optimizer.beta2": "0.9", "optimizer.momentum": "0.8"},
    "caution": {"optimizer.weight_decay": "0.1", "optimizer.cautious": "true"},
    "losses": {"loss.text": "0.5", "loss.image": "0.25", "loss.sliced": "false"},
    "source": {"sources.scenes.weight": "2", "sources.scenes.text_weight": "0.5",
               "sources.scenes.format": "document"},
    "lr_scale": {"optimizer.lr_scale": "{model.embed_tokens: 0.1}"},
    "moments": {"optimizer.moments": "8bit"},
    "loss": {"loss.z": "0.001"},
    "dropout": {"loader.caption_dropout": "0.7"},
    "noise": {"loader.code_noise": "0.1", "sources.scenes.changed_weight": "4"},
    "rate of muon": {"optimizer.muon_lr": "0.001"},
    "weight": {"sources.scenes.image_weight": "0.5"},
    "split": {"sources.scenes.split": "[0, 0.7]"},
    "size": {"loader.images": "{target_pixels: 1024, multiple: 8}"},
    "stage": {"loader.images": "{target_pixels: 4096, multiple: 8}",
              "loader.stages": "[{from_step: 5, target_pixels: 1024}]"},
}  # fmt: skip


@pytest.mark.parametrize("section", [LoaderConfig, OptimizerConfig, LossConfig])
def test_each_key_has_its_row_or_was_tried(section: type):
    """A new key of these sections would have the row of the section, whether or not it is true."""
    name = {LoaderConfig: "loader", OptimizerConfig: "optimizer", LossConfig: "loss"}[section]
    tried = {key for overrides in CHANGES.values() for key in overrides}
    tried.add("loss.balance")  # by a model with experts, in test_kin_runs.py
    tried.add("loader.unread_share")  # by a head with copies, in test_masked_runs.py
    rows = {row.partition(" ")[0] for row in changes.SETTINGS}
    assert {f"{name}.{field.name}" for field in dataclasses.fields(section)} <= tried | rows


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_accepted_goes_on(name: str, run: LmRun, tmp_path: Path):
    """Each of these is refused without the flag, and with it the run ends as it should."""
    save(run, tmp_path / "lm.yaml")
    config = load(LmRun, tmp_path / "lm.yaml", [f"{k}={v}" for k, v in CHANGES[name].items()])
    with pytest.raises(ValueError, match="--accept-change"):
        lm.train(config)
    lm.train(config, accept_change=True)
    assert [line["step"] for line in metrics(run.output)] == list(range(ALL))
    assert {key.split(".")[0] for _, key, _, _ in history(run.output)} >= {
        key.split(".")[0] for key in CHANGES[name]
    }


def test_a_source_that_joins_and_one_that_goes(run: LmRun, tmp_path: Path, shards: Path):
    """A stream that stays goes on where it was; the new one begins, as the state has it."""
    with ShardWriter(tmp_path / "texts") as writer:
        for number in range(40):
            writer.write(f"{number}", Document((Text(f"a text of the number {number}. " * 9),)))
    more = run.sources | {"texts": SourceConfig(str(tmp_path / "texts"))}
    lm.train(replace(run, sources=more), accept_change=True)
    state = json.loads((run.output / "step_00000006" / "state.json").read_text())["data"]
    assert state["streams"] == ["scenes", "texts"] and len(state["taken"]) == 2
    logged = metrics(run.output)
    assert any("loss_text/texts" in line for line in logged[STEPS:])
    alone = replace(run, sources={"texts": more["texts"]}, schedule=ScheduleConfig(ALL + 2, 1))
    with pytest.raises(ValueError, match="another sources.scenes, after 6 steps"):
        lm.train(alone)
    lm.train(alone, accept_change=True)
    state = json.loads((run.output / "step_00000008" / "state.json").read_text())["data"]
    assert state["streams"] == ["texts"] and metrics(run.output)[-1].get("loss_image") is None


def test_the_place_of_each_stream_is_found_by_its_title():
    state = place.noted(
        LoaderState(3, 2, 5, ((1, 7), (0, 9)), (2.0, -2.0)),
        ["a", "b at 64 pixels"],
        "hash",
    )
    state = json.loads(json.dumps(state))
    found = place.found(state, ["new", "b at 64 pixels", "a"])
    assert (found.seed, found.window, found.row) == (3, 2, 5)
    assert [tuple(one) for one in found.taken] == [(0, 0), (0, 9), (1, 7)]
    assert found.owed == (0.0, -2.0, 2.0)
    old = {name: value for name, value in state.items() if name not in ("streams", "text")}
    assert [tuple(one) for one in place.found(old, ["x", "y"]).taken] == [(1, 7), (0, 9)]
    with pytest.raises(ValueError, match="another version of the loader"):
        place.found(state | {"odd": 1}, ["a"])


def test_stages_that_have_begun_stay(run: LmRun):
    rule = ImageRule(4096, 8)
    early = replace(run, loader=replace(run.loader, images=rule, stages=(Stage(2, {}, 1024),)))
    with pytest.raises(ValueError, match="loader.stages .*; cannot change: add one that is to com"):
        lm.train(early, accept_change=True)
    later = replace(early, loader=replace(early.loader, stages=(Stage(4, {}, 1024),)))
    lm.train(later, accept_change=True)


# --- what cannot change -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    ["seed=1", "loader.seed=1", "loader.sequence_length=512", "loader.batch_rows=2",
     "loader.window_rows=16", "model.width=64", "text_ids=310", "optimizer.muon_lr=null",
     "optimizer.ema_decay=0.9"],
)  # fmt: skip
def test_what_cannot_change_is_named_with_both_values(override: str, run: LmRun, tmp_path: Path):
    save(run, tmp_path / "lm.yaml")
    key, _, value = override.partition("=")
    with pytest.raises(ValueError, match=rf"{key} \S+ -> {value}; cannot change") as refused:
        lm.train(load(LmRun, tmp_path / "lm.yaml", [override]), accept_change=True)
    assert "another output" in str(refused.value)


def test_groups_of_rows_cannot_change(run: LmRun):
    """They decide the order, of which a state is a place."""
    other = replace(run, loader=replace(run.loader, group_rows=2, batch_rows=1))
    with pytest.raises(ValueError, match=r"loader.group_rows 1 -> 2; cannot change"):
        lm.train(other, accept_change=True)
    assert history(run.output) == []
    lm.train(run)


def test_the_way_on_that_a_refusal_names_leads_on(run: LmRun, tmp_path: Path, tokenizer: Path):
    """The printed command ends the run here, and another begins from its bundle."""
    rate = ScheduleConfig(ALL, 1, stages=())
    begun = replace(run, schedule=rate, loader=replace(run.loader, sequence_length=512))
    with pytest.raises(ValueError) as refused:
        lm.train(begun, accept_change=True)
    (line,) = re.findall(r"^ +(unimodal train lm .*)$", str(refused.value), re.MULTILINE)
    done = command(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert len(metrics(run.output)) == STEPS
    bundle = re.search(r"weights=(\S+):", str(refused.value))
    assert bundle is not None and Path(bundle[1]).is_dir()
    next_run = replace(begun, output=tmp_path / "next", weights=Path(bundle[1]), text_ids=None)
    lm.train(replace(next_run, model=None))
    assert len(metrics(tmp_path / "next")) == ALL


# --- the command --------------------------------------------------------------------------------


def test_the_command(run: LmRun, tmp_path: Path):
    save(replace(run, optimizer=OptimizerConfig(lr=1e-5, muon_lr=1e-2)), tmp_path / "lm.yaml")
    done = command("train", "lm", tmp_path / "lm.yaml")
    assert done.returncode == 2 and "optimizer.lr 0.003 -> 1e-05" in done.stderr
    done = command("train", "lm", tmp_path / "lm.yaml", "--accept-change")
    assert done.returncode == 0, done.stderr
    assert "optimizer.lr 0.003 -> 1e-05 from step 3 on" in done.stderr
    assert (STEPS, "optimizer.lr", 3e-3, 1e-5) in history(run.output)
    assert find_shards(run.sources["scenes"].shards)
