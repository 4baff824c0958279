"""Any number of ranks takes the rows of a batch: what they do not divide is filled with padding."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import launching
import numpy as np
import pytest
from pair import Pair
from tiny_runs import metrics, recipe

from unimodal import bundle
from unimodal.codec import ImageCodec
from unimodal.config import save
from unimodal.data.loader import Loader, LoaderConfig, rank_rows
from unimodal.data.sources import SourceConfig
from unimodal.data.windows import LoaderState
from unimodal.sequence import IGNORE, PADDING, Batch
from unimodal.train import lm
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.waits import STEPS, Waits
from unimodal.train.zero import EngineConfig

BATCH_ROWS = 64
ZERO = launching.ROOT / "configs" / "zero3.json"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceConfig]:
    from unimodal.data.shards import ShardWriter

    folder = tmp_path_factory.mktemp("texts")
    with ShardWriter(folder, max_samples=200) as writer:
        for number in range(600):
            writer.write_files(f"{number:04}", {"txt": f"{number} ".encode() * (1 + number % 9)})
    return {"texts": SourceConfig(str(folder))}


def batches(
    sources: dict[str, SourceConfig], world_size: int, state: LoaderState | None = None,
    ranks: Sequence[int] | None = None, micro_batch_rows: int = 1,
) -> tuple[list[Batch], LoaderState]:  # fmt: skip
    """The next batch of each of these ranks (None: all), and where the one after it begins."""
    model = bundle.load()
    config = LoaderConfig(sequence_length=32, batch_rows=BATCH_ROWS, window_rows=48)
    found = []
    for rank in range(world_size) if ranks is None else ranks:
        loader = Loader(
            sources, model.sequencer, ImageCodec(model.image_tokenizer), config, state, rank,
            world_size, micro_batch_rows=micro_batch_rows,
        )  # fmt: skip
        with closing(iter(loader)) as made:
            found.append(next(made))
    assert len({state for _, state in found}) == 1
    return [batch for batch, _ in found], found[0][1]


def rows(of_ranks: list[Batch]) -> list[bytes]:
    """The rows of a batch in the order of the run, without padding: row r of rank k is row
    k + r * ranks.
    """
    ordered = [
        (batch.ids[at].numpy().tobytes(), batch.doc[at].numpy())
        for at in range(len(of_ranks[0].ids))
        for batch in of_ranks
    ]
    return [ids for ids, doc in ordered if (doc != PADDING).any()]


def test_56_ranks_go_on_with_the_rows_of_64(texts) -> None:
    first, state = batches(texts, 1)
    some, same_state = batches(texts, 64, ranks=(0, 5, 63))
    assert [rows([batch])[0] for batch in some] == [rows(first)[at] for at in (0, 5, 63)]
    assert state == same_state and len(rows(first)) == BATCH_ROWS
    then, after = batches(texts, 56, state)
    expected, same_after = batches(texts, 1, state)
    assert rows(then) == rows(expected) and after == same_after
    assert rows(then) != rows(first) and len(rows(then)) == BATCH_ROWS
    assert {len(batch.ids) for batch in then} == {2}, "each takes as many, 112 for 64"
    padding = [batch for batch in then if (batch.doc[1] == PADDING).all()]
    assert len(padding) == 2 * 56 - BATCH_ROWS
    assert all((batch.labels[1] == IGNORE).all() and not batch.spans[1] for batch in padding)


def test_padding_makes_whole_micro_batches(texts) -> None:
    (first,), _ = batches(texts, 24, ranks=(3,), micro_batch_rows=2)
    assert len(first.ids) == 4 == rank_rows(BATCH_ROWS, 24, 2)
    found = [rank_rows(512, world, micro) for world, micro in ((64, 4), (56, 1), (56, 4))]
    assert found == [8, 10, 12]


def test_what_padding_costs_is_said_and_too_many_ranks_are_refused() -> None:
    run = LmRun(
        Path("run"), {}, Path("default"), ScheduleConfig(1), loader=LoaderConfig(batch_rows=512)
    )
    assert run.padding_note(64) is None and run.rank_rows(56) == 10
    assert "takes 10, and 48 of 560 (9%) are padding; 32 or 64 ranks have none" in str(
        run.padding_note(56)
    )
    assert "among 513 ranks: launch at most 512" in run.rank_problems(513)[0]


def test_two_ranks_learn_three_rows_as_one_does(
    shards: Path, tokenizer: Path, tmp_path: Path, pair: Pair
) -> None:
    """A row of one of them is padding; and a run of one rank goes on with two."""
    config = recipe(tmp_path / "alone", shards, tokenizer, 3, num_threads=1)
    config = replace(
        config,
        loader=replace(config.loader, sequence_length=512, batch_rows=3),
        optimizer=OptimizerConfig(lr=3e-3),
        engine=EngineConfig(ZERO, timeout_s=100),
    )
    lm.train(config)
    for name, steps in (("both", 3), ("changed", 1)):
        mine = replace(
            config, output=tmp_path / name, schedule=ScheduleConfig(steps, warmup_steps=1)
        )
        if name == "changed":
            lm.train(mine)
        mine = replace(mine, schedule=ScheduleConfig(3, warmup_steps=1))
        save(mine, tmp_path / f"{name}.yaml")
        pair(launching.train, str(tmp_path / f"{name}.yaml"))
    alone, both, changed = (metrics(tmp_path / name) for name in ("alone", "both", "changed"))
    assert len(alone) == len(both) == len(changed) == 3
    for one, other, third in zip(alone, both, changed, strict=True):
        for key in ("targets_text", "targets_image"):
            assert one[key] == other[key] == third[key]
        for key in ("loss", "gradient_norm"):
            assert np.allclose([other[key], third[key]], one[key], rtol=1e-4)
    assert all(len(line["data_waits_s"]) == 2 for line in both)
    assert all(
        line["data_wait_s"] == pytest.approx(max(line["data_waits_s"]), abs=1e-4) for line in both
    )
    assert "data_waits_s" not in alone[0] and alone[0]["data_wait_s"] > 0


def test_the_rank_that_others_wait_for_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    waits = Waits(Ranks())
    waits.ranks, waits.hosts = Ranks(0, 4), ["a", "a", "b", "b"]
    assert waits.mine(0.5) == [0.5, 0, 0, 0]
    waits.metrics([9.0, 9.0, 9.0, 9.5], 10.0)  # the first step
    for _ in range(STEPS - 1):
        found = waits.metrics([0.001, 0.002, 0.3, 0.001], 1.0)
    assert capsys.readouterr().err == ""
    assert found == {"data_wait_s": 0.3, "data_waits_s": [0.001, 0.002, 0.3, 0.001]}
    for _ in range(2 * STEPS):
        waits.metrics([0.001, 0.002, 0.3, 0.001], 1.0)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "rank 2 on b waits 0.30 s of a step of 1.00 s" in said
    waits = Waits(Ranks())
    waits.ranks, waits.hosts = Ranks(0, 2), ["a", "b"]
    for _ in range(2 * STEPS):  # all are slow alike: nobody keeps the others
        waits.metrics([0.5, 0.6], 1.0)
    assert capsys.readouterr().err == ""
