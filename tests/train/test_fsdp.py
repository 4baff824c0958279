"""Two ranks under FSDP2 against the same run in one process, and beside ZeRO."""

from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from pair import Pair

from unimodal.config import load, save
from unimodal.data.loader import LoaderConfig
from unimodal.data.sources import SourceConfig
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train.checkpoint import EMA, MASTER, Checkpoint
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.plan.plan import plan
from unimodal.train.ranks import Ranks
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig

if find_spec("deepspeed") is None:  # importing it takes seconds
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from zero_cases import HALF, Case, alone, made, run, same, steps

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = [Case(fsdp=True, tied=False, accumulation=2, ema_decay=0.5)]
CASES = [
    Case(fsdp=True, recompute=True, accumulation=4),
    Case(fsdp=True, factorised=True, addresses=True, residual_lambdas=True, value_embeddings=True),
    Case(fsdp=True, head="flow", addresses=True, recompute=True, ema_decay=0.5),
    Case(fsdp=True, head="scale", addresses=True, tied=False),
    Case(fsdp=True, head="causal_levels"),
    Case(fsdp=True, tower="trained", accumulation=4),
    Case(fsdp=True, tower="frozen"),
    Case(fsdp=True, sequence_parallel=2, head="masked", addresses=True),
    Case(fsdp=True, compile=True),
]


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in CASES)]
)
def test_two_ranks_under_fsdp_take_the_steps_of_one_process(pair: Pair, case: Case) -> None:
    same(pair(run, asdict(case)), alone(case))


def test_one_process_under_fsdp_is_one_process() -> None:
    case = Case(fsdp=True, factorised=True, ema_decay=0.5, accumulation=2)
    same(steps(made(case, Ranks()), case), alone(case))


@pytest.mark.slow
def test_products_in_bfloat16_keep_masters_in_float32(pair: Pair, tmp_path: Path) -> None:
    case = Case(fsdp=True, bf16=True, ema_decay=0.5, save=str(tmp_path))
    found, exact = pair(run, asdict(case)), alone(replace(case, save=None))
    for one, other in zip(found, exact, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-2)
        assert one["loss"] != other["loss"]
        assert one["norm"] == pytest.approx(other["norm"], rel=5e-2)
    saved = Checkpoint(tmp_path / "step_00000002")
    weights = torch.cat([saved.read(name, MASTER) for name in saved.shapes])
    assert (weights != weights.bfloat16().float()).float().mean() > 0.9


def test_a_checkpoint_of_fsdp_is_gone_on_from_by_every_engine(pair: Pair, tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    first = Case(fsdp=True, tied=False, ema_decay=0.5, save=two)
    whole = alone(replace(first, save=one))
    again = replace(first, save=None, resume=two)
    found = [pair(run, asdict(case)) for case in (first, again)]
    same(found[0], whole)
    assert found[1] == found[0][HALF:], "the same ranks go on bit by bit"
    same(alone(again), whole[HALF:])
    saves = [Checkpoint(Path(run) / "step_00000002") for run in (one, two)]
    assert saves[0].shapes == saves[1].shapes and saves[1].state["world_size"] == 2
    for name in saves[0].shapes:
        assert saves[0].kinds[name] == saves[1].kinds[name]
        for kind in (MASTER, EMA, "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(*(saved.whole(name, kind) for saved in saves))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_and_fsdp_go_on_from_each_other(pair: Pair, tmp_path: Path, stage: int) -> None:
    zero = Case(stage=stage, ema_decay=0.5, save=str(tmp_path / "zero"))
    fsdp = replace(zero, stage=None, fsdp=True, save=str(tmp_path / "fsdp"))
    whole = alone(replace(zero, save=None))
    for first, then in ((zero, fsdp), (fsdp, zero)):
        same(pair(run, asdict(first)), whole)
        same(pair(run, asdict(replace(then, save=None, resume=first.save))), whole[HALF:])


def test_an_infinite_gradient_stops_before_its_step(pair: Pair) -> None:
    found = pair(run, asdict(Case(fsdp=True, spoil=2)))
    assert len(found) == 3 and found[-1]["unchanged"]
    assert "the gradient's norm of step 2 is" in found[-1]["stopped"]


@pytest.mark.parametrize(
    "words, problem",
    [
        (["engine.deepspeed=zero3"], "fsdp beside deepspeed .*one of them shards a run"),
        (["optimizer.muon_lr=0.01", "engine.deepspeed=null"], "Muon needs whole matrices"),
        (["lora={}", "engine.deepspeed=null"], "engine.fsdp: with lora .*take engine.deepspeed"),
    ],
)
def test_what_fsdp_does_not_do_is_refused(words: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        load(LmRun, "lm_1.7b", ["engine.fsdp=true", *words])


def test_a_plan_of_fsdp_is_what_two_ranks_send(pair: Pair, tmp_path: Path) -> None:
    """To the byte and the collective, in micro-batches too; what stays within 10 %."""
    import counting
    from test_train_plan import SHAPE, TINY

    ImageTokenizer(TINY).save(tmp_path)
    common = LmRun(
        tmp_path / "run", {"some": SourceConfig("shards")}, tmp_path, ScheduleConfig(10, 1),
        text_ids=301, model=SHAPE, loader=LoaderConfig(sequence_length=64, batch_rows=8),
        optimizer=OptimizerConfig(ema_decay=0.9), precision="fp32",
    )  # fmt: skip
    engines = [
        EngineConfig(fsdp=True, micro_batch_rows=4),
        EngineConfig(fsdp=True, micro_batch_rows=2, recompute=True),
    ]
    for one, precision in zip(engines, ("fp32", "bf16"), strict=True):
        case = replace(common, engine=one, precision=precision)
        save(case, tmp_path / "case.yaml")
        counted = pair(counting.fsdp_counts, str(tmp_path / "case.yaml"))
        made = plan(case, 2, 80)
        for name in ("all_gather", "reduce_scatter"):
            assert made.sent_bytes[name] == counted["sent"][name], name
            assert made.launched[name] == counted["launched"][name], name
        for name, held in counted["bytes"].items():
            assert made.bytes_of(name) == pytest.approx(held, rel=0.1), name


def test_a_plan_of_fsdp_is_near_that_of_zero_3() -> None:
    words = ["engine.fsdp=true", "engine.deepspeed=null"]
    fsdp = plan(load(LmRun, "lm_1.7b", words), 8, 80, num_ids=156514)
    zero = plan(
        load(LmRun, "lm_1.7b", ["engine.deepspeed=configs/zero3.json"]), 8, 80, num_ids=156514
    )
    assert fsdp.is_fsdp and not zero.is_fsdp
    assert fsdp.bytes_of("moments") == pytest.approx(zero.bytes_of("moments"), rel=0.01)
    assert fsdp.launched["all_gather"] < zero.launched["all_gather"]
