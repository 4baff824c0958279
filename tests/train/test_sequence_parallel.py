"""Two ranks that share rows, each a part of their tokens, against one process that has them all."""

from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import launching
import pytest
import torch
from pair import Pair
from tiny_runs import metrics, recipe

from unimodal.config import load, save
from unimodal.train import lm
from unimodal.train.given import read_given
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.plan.plan import plan
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.sequence_parallel import problem
from unimodal.train.zero import EngineConfig

if find_spec("deepspeed") is None:  # importing it takes seconds
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from zero_cases import HALF, Case, alone, made, measured, of_one, run, same, whole_batch

pytestmark = pytest.mark.usefixtures("one_thread")
SHARED = Case(stage=1, sequence_parallel=2, num_heads=4, num_kv_heads=2)
FLOW = replace(SHARED, stage=3, head="flow", addresses=True, length=18, ema_decay=0.5)
QUICK = [
    replace(SHARED, tied=False, num_kv_heads=1),
    replace(FLOW, accumulation=2, recompute=True),
]
CASES = [
    replace(SHARED, stage=3, accumulation=2),
    replace(SHARED, stage=2),
    replace(SHARED, stage=3, num_kv_heads=4, compile=True),
    replace(SHARED, stage=3, head="masked", addresses=True, accumulation=2),
    replace(SHARED, head="scale", addresses=True, factorised=True, length=36),
    replace(SHARED, stage=3, head="causal_levels", tied=False),
    replace(SHARED, stage=3, tower="trained", num_kv_heads=1),
    replace(SHARED, stage=3, tower="frozen", residual_lambdas=True, value_embeddings=True),
]


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES)]
)
def test_two_ranks_share_rows_and_take_the_steps_of_one_process(pair: Pair, case: Case) -> None:
    whole, cut = whole_batch(0, case), case.length // 2
    assert (whole.doc[:, cut - 1] == whole.doc[:, cut]).any(), "a document lies in both parts"
    if case.head in ("masked", "flow", "scale"):
        sides = whole.block[:, cut - 1], whole.block[:, cut]
        assert ((sides[0] == sides[1]) & (sides[0] > 0)).any(), "so does a bidirectional span"
        private = whole.private[:, cut - 1] & whole.private[:, cut]
        assert private.any(), "of a private copy"
    same(pair(run, asdict(case)), alone(case))


def test_a_checkpoint_goes_on_with_rows_shared_or_not(pair: Pair, tmp_path: Path) -> None:
    two = str(tmp_path / "two")
    first = replace(SHARED, tied=False, ema_decay=0.5, save=two)
    whole = alone(replace(first, save=None))
    again = replace(first, save=None, resume=two)
    same(pair(run, asdict(first)), whole)
    same(pair(run, asdict(replace(again, sequence_parallel=1))), whole[HALF:])
    same(alone(again), whole[HALF:])


def test_what_is_measured_is_of_whole_rows(pair: Pair) -> None:
    case = replace(SHARED, num_kv_heads=1)
    expected = made(of_one(case), Ranks()).measure(whole_batch(0, case), None)
    found = pair(measured, asdict(case))
    assert found == pytest.approx(expected, rel=1e-5) and found["weight_image"] > 0


def test_a_part_has_its_tokens_and_images_are_whole_around_it() -> None:
    whole = whole_batch(0, Case(head="flow", length=18))
    part, (around, before) = whole.part(9, 18), whole.around(9, 18)
    assert torch.equal(part.ids, whole.ids[:, 9:]) and torch.equal(part.doc, whole.doc[:, 9:])
    assert torch.equal(around.ids[:, before:], part.ids)
    for mine, cut, kept in zip(whole.spans, part.spans, around.spans, strict=True):
        over = [one for one in mine if one.stop > 9]
        assert len(cut) == len(kept) == len(over)
        for one, less, all_of in zip(over, cut, kept, strict=True):
            assert (all_of.start, all_of.stop) == (one.start - 9 + before, one.stop - 9 + before)
            assert all_of.latents is one.latents and all_of.noise is one.noise
            assert one.latents is not None and less.latents is not None
            assert (less.latents == one.latents[max(0, 9 - one.start) :]).all()
            assert less.stop - less.start == len(less.latents)
    assert any(one.start < 9 < one.stop for mine in whole.spans for one in mine)
    assert before == 9 - min(one.start for mine in whole.spans for one in mine if one.stop > 9)


@pytest.mark.parametrize(
    "size, heads, kv_heads, length, fitting",
    [
        (3, 8, 2, 4096, "2, 4, 8 would fit"),
        (4, 14, 2, 4096, "2 would fit"),
        (4, 6, 3, 4096, "no number would fit"),
        (8, 16, 8, 4100, "2, 4 would fit"),
    ],
)
def test_what_does_not_divide_is_refused_with_what_fits(
    size: int, heads: int, kv_heads: int, length: int, fitting: str
) -> None:
    said = problem(size, heads, kv_heads, length)
    assert said is not None and fitting in said
    for one in filter(str.isdigit, fitting.replace(",", " ").split()):
        assert problem(int(one), heads, kv_heads, length) is None


def test_runs_and_plans_refuse_what_does_not_fit(
    shards: Path, tokenizer: Path, tmp_path: Path
) -> None:
    config = recipe(tmp_path / "run", shards, tokenizer, 1)
    config = replace(config, optimizer=OptimizerConfig(), loader=replace(
        config.loader, batch_rows=4))  # fmt: skip

    def of(size: int) -> LmRun:
        engine = EngineConfig(launching.ROOT / "configs" / "zero1.json", sequence_parallel=size)
        return replace(config, engine=engine)

    with pytest.raises(ValueError, match="sequence_parallel 2 does not divide 3 ranks: .*2 or 4"):
        read_given(of(2), 3)
    with pytest.raises(ValueError, match="does not divide 1 ranks: launch 2"):
        read_given(of(2), 1)
    with pytest.raises(ValueError, match="among 10 ranks: launch at most 8"):
        read_given(of(2), 10)
    with pytest.raises(ValueError, match="sequence_parallel 4: .*2 query heads.*; 2 would fit"):
        read_given(of(4), 4)
    assert of(2).rank_rows(8) == 1 and of(2).rank_rows(4) == 2
    assert "takes 2, and 2 of 6 (33%) are padding; 4 or 8 ranks" in str(of(2).padding_note(6))


def test_a_plan_has_a_part_of_the_activations_and_the_exchanges() -> None:
    words = ["loader.batch_rows=8", "loader.group_rows=1", "engine.micro_batch_rows=1"]
    config = load(LmRun, "lm_1.7b", words)
    shared = replace(config, engine=replace(config.engine, sequence_parallel=4))
    plans = [plan(one, 8, 80, num_ids=156514) for one in (config, shared)]
    kept = [
        next(item.gpu_bytes for item in made.memory if item.name == "activations") for made in plans
    ]
    assert kept[0] == 4 * kept[1]
    assert "all_to_all" not in plans[0].sent_bytes and plans[1].sent_bytes["all_to_all"] > 0
    assert plans[1].accumulation == 4 * plans[0].accumulation
    with pytest.raises(ValueError, match="engine.sequence_parallel 3: .* would fit"):
        odd = replace(config, engine=replace(config.engine, sequence_parallel=3))
        plan(odd, 3, 80, num_ids=156514)


@pytest.mark.slow
def test_a_run_shares_rows_and_goes_on_under_fsdp(
    shards: Path, tokenizer: Path, tmp_path: Path, pair: Pair
) -> None:
    config = recipe(tmp_path / "alone", shards, tokenizer, 4, num_threads=1)
    config = replace(
        config,
        loader=replace(config.loader, sequence_length=512, batch_rows=2),
        optimizer=OptimizerConfig(lr=3e-3),
    )
    lm.train(config)
    changed = replace(config, output=tmp_path / "changed")
    zero = launching.ROOT / "configs" / "zero3.json"
    shared = EngineConfig(zero, sequence_parallel=2, timeout_s=100)
    first = replace(changed, engine=shared, schedule=replace(config.schedule, num_steps=2))
    then = replace(changed, engine=replace(shared, deepspeed=None, fsdp=True))
    for name, one in (("first", first), ("then", then)):
        save(one, tmp_path / f"{name}.yaml")
        pair(launching.train, str(tmp_path / f"{name}.yaml"))
    ours, both = metrics(config.output), metrics(changed.output)
    assert len(ours) == len(both) == 4
    for one, other in zip(ours, both, strict=True):
        for key in ("targets_text", "targets_image", "documents", "bad_documents"):
            assert one[key] == other[key], key
        for key in ("loss", "gradient_norm"):
            assert other[key] == pytest.approx(one[key], rel=1e-4)
