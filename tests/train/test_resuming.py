"""What a run goes on from: data that it stopped over and that is mended, files of another version,
and its own, which are named where they are damaged.
"""

import re
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from stopped_runs import ALL, STEPS
from stopped_runs import run as run
from stopped_runs import stopped as stopped
from stopped_runs import whole as whole
from tiny_runs import exact, metrics
from train_files import history

from unimodal import vocabulary
from unimodal.bundle import read_contents
from unimodal.data.loader import Loader
from unimodal.data.shards import Shard
from unimodal.data.sources import SourceConfig
from unimodal.data.tar import ShardError
from unimodal.data.windows import planned_rows
from unimodal.train import lm
from unimodal.train.given import read_given
from unimodal.train.loop import LoopConfig
from unimodal.train.run import LmRun

pytestmark = pytest.mark.usefixtures("one_thread")


def cut_image(shards: Path, folder: Path, config: LmRun, row: int) -> tuple[Path, Path]:
    """Copy the shards with the image of one sample cut, which no row before `row` has; return
    (the damaged shards, the shard that was damaged).
    """
    shutil.copytree(shards, folder)
    given = read_given(config, 1)
    initial = lm._initial(config, given, None)
    codec = lm.ImageCodec(given.image)
    loader = lm.Loader(config.sources, lm._sequencer(config, initial, codec), codec, config.loader)
    rows = [places for places, _ in islice(planned_rows(loader.planner, loader.state), row + 1)]
    before = {one.unit for places in rows[:row] for one in places}
    builder = loader.row_builder
    for one in rows[row]:
        key = builder._read(one).key
        path = Path(builder._shard(one))
        shard = Shard(path)
        (number,) = [n for n in range(len(shard)) if shard.key(n) == key]
        begin, end = shard.ranges_n2[number].tolist()
        content = path.read_bytes()
        data = content.find(b"IDAT", begin, end)
        if one.unit not in before and data > 0:
            damaged = folder / path.name
            damaged.write_bytes(content[: data + 12] + bytes(20) + content[data + 32 :])
            return folder, damaged
    raise AssertionError("no image in this row is new")


@pytest.fixture
def over_data(
    run: LmRun, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LmRun, Path]:
    """A run that stopped at the first bad sample, and the shard that has it."""
    monkeypatch.setattr(Loader, "check", lambda *_: None)  # which may meet it before the first step
    bad, damaged = cut_image(shards, tmp_path / "bad", run, 4)
    config = replace(
        run,
        output=tmp_path / "over",
        sources={"scenes": SourceConfig(str(bad))},
        loader=replace(run.loader, bad_share=0.0),
        loop=LoopConfig(save_every_steps=1),
    )
    with pytest.raises(ShardError, match="1 of .* samples cannot be used"):
        lm.train(config)
    assert len(metrics(config.output)) == 4
    assert (config.output / "step_00000004").is_dir()  # what was being saved is there
    return config, damaged


def test_a_larger_bad_share_is_a_way_on(over_data: tuple[LmRun, Path], whole: list[tuple]):
    config, _ = over_data
    lm.train(replace(config, loader=replace(config.loader, bad_share=0.5)))
    assert exact(config.output)[:4] == whole[:4]
    assert metrics(config.output)[-1]["bad_documents"] == 1


def test_mended_shards_are_a_way_on(
    over_data: tuple[LmRun, Path], shards: Path, whole: list[tuple]
):
    """The run is then the one that had whole shards from the start, bit for bit."""
    config, damaged = over_data
    shutil.copyfile(shards / damaged.name, damaged)
    with pytest.raises(
        ValueError, match="shards of scenes: not what .*over began with; put it"
    ) as e:
        lm.train(config)
    assert re.search(r"\([0-9a-f]{12} -> [0-9a-f]{12}\); holds from the next step", str(e.value))
    lm.train(config, accept_change=True)
    assert exact(config.output) == whole
    ((step, key, old, new),) = history(config.output)
    assert (step, key) == (4, "shards of scenes (contents)") and old != new


def test_a_run_of_another_version_or_machine_goes_on(run: LmRun, whole: list[tuple]):
    """Its config has keys of old, and names a file that is no longer there."""
    path = run.output / "config.yaml"
    text = path.read_text().replace("sequence_length:", "row_length:")
    text = text.replace("deepspeed: null", "deepspeed: gone/zero3.json")
    assert "row_length" in text and "gone/zero3" in text
    path.write_text(f"{text}unknown: 1\n")
    lm.train(run)
    assert exact(run.output) == whole
    assert (STEPS, "engine.deepspeed", "gone/zero3.json", None) in history(run.output)


def test_a_special_token_more_in_the_code_shifts_no_id(
    run: LmRun, whole: list[tuple], monkeypatch: pytest.MonkeyPatch
):
    """A run from scratch keeps the table of ids that it began with, and its bundle has it too."""
    more = ("pad", "fresh", *vocabulary.SPECIAL_TOKENS[1:])
    monkeypatch.setattr(vocabulary, "SPECIAL_TOKENS", more)
    assert "fresh" in vocabulary.Vocabulary.new(300, 64).special_tokens
    bundle = lm.train(run)
    assert exact(run.output) == whole
    assert "fresh" not in read_contents(bundle).config.vocabulary.special_tokens


def test_a_table_of_other_ids_is_named(run: LmRun, tmp_path: Path):
    path = run.output / "vocabulary.yaml"
    text = path.read_text()
    path.write_text(text.replace("- 64\n", "- 63\n"))
    assert path.read_text() != text
    with pytest.raises(ValueError, match=r"yaml is of 300 text ids and 63 codes, .* and 64: put"):
        lm.train(run)
    path.unlink()  # as of a version that wrote none
    assert lm.snapshot(run, tmp_path / "now").is_dir() and not path.exists()
    lm.train(run)
    assert path.read_text() == text


def test_a_damaged_line_of_the_log_is_named(run: LmRun):
    path = run.output / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0].replace(":", ";"), *lines[1:]]))
    with pytest.raises(ValueError, match="metrics.jsonl: .* is damaged .*remove this line"):
        lm.train(run)
    path.write_text("".join(lines[1:]))
    lm.train(run)
    assert len(metrics(run.output)) == ALL - 1
