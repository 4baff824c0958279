"""Any number of ranks takes the rows of a batch: what they do not divide is filled with padding."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import launching
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
from unimodal.sequencer import Sequencer
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


@cache
def reading() -> tuple[Sequencer, ImageCodec]:
    model = bundle.load()
    return model.sequencer, ImageCodec(model.image_tokenizer)


def batches(
    sources: dict[str, SourceConfig], world_size: int, ranks: Sequence[int],
    state: LoaderState | None = None, micro_batch_rows: int = 1,
) -> tuple[list[Batch], LoaderState]:  # fmt: skip
    """The next batch of each of these ranks, and where the one after it begins."""
    config = LoaderConfig(sequence_length=32, batch_rows=BATCH_ROWS, window_rows=48)
    found = []
    for rank in ranks:
        loader = Loader(
            sources, *reading(), config, state, rank, world_size, micro_batch_rows=micro_batch_rows
        )
        with closing(iter(loader)) as made:
            found.append(next(made))
    assert len({state for _, state in found}) == 1
    return [batch for batch, _ in found], found[0][1]


def rows(batch: Batch) -> list[bytes]:
    """The rows of a batch that are not padding."""
    both = zip(batch.ids.numpy(), batch.doc.numpy(), strict=True)
    return [ids.tobytes() for ids, doc in both if (doc != PADDING).any()]


def test_56_ranks_go_on_with_the_rows_of_64(texts) -> None:
    """Row r of a batch is of rank r % 56, whatever the ranks before."""
    (first,), state = batches(texts, 1, [0])
    some = (0, 5, 63)
    of_64, same_state = batches(texts, 64, some)
    assert [rows(batch) for batch in of_64] == [[rows(first)[at]] for at in some]
    assert state == same_state and len(rows(first)) == BATCH_ROWS
    (expected,), after = batches(texts, 1, [0], state)
    some = (0, 7, 8, 30, 55)
    of_56, same_after = batches(texts, 56, some, state)
    assert [rows(batch) for batch in of_56] == [rows(expected)[at::56] for at in some]
    assert after == same_after and rows(expected) != rows(first)
    assert {len(batch.ids) for batch in of_56} == {2}, "each takes as many, 112 for 64"
    assert [len(rows(batch)) for batch in of_56] == [2, 2, 1, 1, 1]
    for batch in of_56[2:]:
        assert (batch.doc[1] == PADDING).all() and (batch.labels[1] == IGNORE).all()
        assert (batch.weights[1] == 0).all() and not batch.spans[1]


def test_padding_makes_whole_micro_batches(texts) -> None:
    (first,), _ = batches(texts, 24, [3], micro_batch_rows=2)
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


def test_two_ranks_go_on_with_three_rows_of_one(
    shards: Path, tokenizer: Path, tmp_path: Path, pair: Pair
) -> None:
    """A row of one of the two is padding; losses are those of the rank that stays alone."""
    config = recipe(tmp_path / "alone", shards, tokenizer, 3, num_threads=1)
    config = replace(
        config,
        loader=replace(config.loader, sequence_length=512, batch_rows=3),
        optimizer=OptimizerConfig(lr=3e-3),
        engine=EngineConfig(ZERO, timeout_s=100),
    )
    lm.train(config)
    changed = replace(config, output=tmp_path / "changed")
    lm.train(replace(changed, schedule=replace(config.schedule, num_steps=1)))
    save(changed, tmp_path / "lm.yaml")
    pair(launching.train, str(tmp_path / "lm.yaml"))
    alone, both = metrics(tmp_path / "alone"), metrics(tmp_path / "changed")
    assert len(alone) == len(both) == 3
    for one, other in zip(alone, both, strict=True):
        for key in ("targets_text", "targets_image"):
            assert one[key] == other[key]
        for key in ("loss", "gradient_norm"):
            assert other[key] == pytest.approx(one[key], rel=1e-4)
    for line in both[1:]:
        assert len(line["data_waits_s"]) == 2
        assert line["data_wait_s"] == pytest.approx(max(line["data_waits_s"]), abs=1e-4)
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
