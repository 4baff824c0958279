"""What `unimodal train plan` predicts, against bytes that are counted."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from pair import Pair
from tiny_tokenizers import of_patches

from unimodal.attention import PackedAttention
from unimodal.bundle import ROOM_BYTES
from unimodal.config import save
from unimodal.data.loader import LoaderConfig
from unimodal.data.sources import SourceConfig
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train.command import train
from unimodal.train.flops import step_flops
from unimodal.train.initial import ShapeConfig
from unimodal.train.loop import LoopConfig
from unimodal.train.lora import LoraConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.plan.memory import layer_activations
from unimodal.train.plan.plan import _run, plan, shape_of
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig
from unimodal.transformer import Transformer

TINY = of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)
# An odd width: partitions are padded.
SHAPE = ShapeConfig(
    width=33, num_layers=3, num_heads=4, num_kv_heads=2, head_width=16, mlp_width=120
)
LARGE = ShapeConfig(
    width=2048, num_layers=28, num_heads=16, num_kv_heads=8, head_width=128, mlp_width=6144,
    max_positions=8192,
)  # fmt: skip
FILES = {
    "near": {"stage": 3, "stage3_param_persistence_threshold": 100},
    "far": {
        "stage": 3,
        "stage3_param_persistence_threshold": 100,
        "stage3_max_reuse_distance": 20_000,
        "stage3_prefetch_bucket_size": 5_000,
    },
    "never": {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,
        "stage3_max_reuse_distance": 0,
        "stage3_prefetch_bucket_size": 0,
    },
    # Limits that bind (test_limits_that_bind_gather_more_and_keep_less).
    "limited": {
        "stage": 3,
        "stage3_param_persistence_threshold": 100,
        "stage3_max_reuse_distance": 3_000,
        "stage3_max_live_parameters": 30_000,
    },
    "barred": {
        "stage": 3,
        "stage3_param_persistence_threshold": 100,
        "stage3_max_reuse_distance": 20_000,
        "stage3_prefetch_bucket_size": 20_000,
        "stage3_max_live_parameters": 0,
    },
    "one": {"stage": 1, "reduce_bucket_size": 8_000},
    "two": {"stage": 2},
    "two_small": {"stage": 2, "reduce_bucket_size": 8_000},
}


@pytest.fixture
def config(tmp_path: Path) -> LmRun:
    """Of a tiny model under ZeRO-3."""
    (tmp_path / "tokenizer").mkdir()
    ImageTokenizer(TINY).save(tmp_path / "tokenizer")
    for name, section in FILES.items():
        zero = {"reduce_bucket_size": 50_000, **section}
        (tmp_path / f"{name}.json").write_text(json.dumps({"zero_optimization": zero}))
    return LmRun(
        output=tmp_path / "run",
        sources={"some": SourceConfig("shards")},
        tokenizer=tmp_path / "tokenizer",
        schedule=ScheduleConfig(10, 1),
        text_ids=301,
        model=SHAPE,
        loader=LoaderConfig(sequence_length=64, batch_rows=8),
        engine=EngineConfig(deepspeed=tmp_path / "near.json", micro_batch_rows=2),
        precision="fp32",
    )


def changed(
    config: LmRun,
    file: str,
    tied: bool = True,
    ema_decay: float | None = None,
    **engine: bool | int,
) -> LmRun:
    path = config.tokenizer.with_name(f"{file}.json")
    return replace(
        config,
        model=replace(SHAPE, tied_head=tied),
        optimizer=OptimizerConfig(ema_decay=ema_decay),
        engine=replace(config.engine, deepspeed=path, **engine),
    )


def test_bytes_of_two_ranks(config: LmRun, tmp_path: Path, pair: Pair):
    """State within 10 %; what is sent, by how many collectives, and under ZeRO-3 the most live
    elements exactly, with and without limits that bind, by modules and by whole layers; with
    adapters, whose frozen weights are gathered again to recompute, within 1 %.
    """
    import counting

    cases = [
        changed(config, "near", tied=False, ema_decay=0.9, recompute=True),
        changed(config, "far", tied=False, micro_batch_rows=4),
        changed(config, "far", recompute=True, ema_decay=0.9),
        changed(config, "never", recompute=True),
        changed(config, "limited", tied=False, recompute=True),
        changed(config, "limited", compile=True),
        changed(config, "barred", micro_batch_rows=4),
        changed(config, "two", ema_decay=0.9),
        changed(config, "two_small"),
        changed(config, "one", tied=False),
        changed(config, "one", micro_batch_rows=4),
    ]
    cases[-1] = replace(cases[-1], optimizer=OptimizerConfig(weight_decay=0.1))  # two groups
    if find_spec("peft") is not None:
        frozen = replace(config, weights=config.output, lora=LoraConfig(rank=2))
        cases.append(changed(frozen, "limited", tied=False, recompute=True))
    for number, case in enumerate(cases):
        save(case, tmp_path / "case.yaml")
        counted = pair(counting.counts, str(tmp_path / "case.yaml"))
        made = plan(case, 2, 80)
        near = 0 if case.lora is None else 0.01
        told = {item.name: item.gpu_bytes for item in made.memory}
        for name, size in counted["bytes"].items():
            if name != "gradients" or made.stage != 1:  # by the update those of others are gone
                assert told.get(name, 0) == pytest.approx(size, rel=0.1), f"{name} of case {number}"
        for name, size in made.sent_bytes.items():  # norms and counts are sent beside all this
            sent = pytest.approx(counted["sent"][name], rel=near, abs=0 if made.stage == 3 else 200)
            assert size == sent, f"{name} of case {number}"
        if made.stage == 3:
            run = _run(case, shape_of(case), 2)
            live = pytest.approx(counted["max_live"], rel=near)
            assert run.all_gathers.max_live == live, f"live in case {number}"
        else:  # beside buckets the reports of the step, and the norm of each group
            counted["launched"]["all_reduce"] -= 1 + (2 if case.optimizer.weight_decay else 1)
        for name, times in made.launched.items():
            launched = pytest.approx(counted["launched"][name], rel=5 * near)
            assert times == launched, f"{name} of case {number}"


def test_limits_that_bind_gather_more_and_keep_less(config: LmRun):
    """The cases above are no empty ones: each limit changes what is predicted."""
    cases = [changed(config, file, tied=False) for file in ("near", "limited", "barred")]
    free, limited, barred = (_run(case, shape_of(case), 2).all_gathers for case in cases)
    assert limited.max_live < 0.6 * free.max_live
    assert limited.times.total() > 1.5 * free.times.total()
    assert barred.launches > 10 * free.launches, "nothing is gathered ahead"
    assert barred.max_live < 0.9 * free.max_live


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_activations_are_what_a_forward_pass_keeps(config: LmRun, recompute: bool, qk_norm: bool):
    shape = ShapeConfig(64, 6, 4, 2, 16, 176, qk_norm=qk_norm)
    engine = replace(config.engine, recompute=recompute, micro_batch_rows=2)
    config = replace(config, model=shape, engine=engine)
    model = Transformer(shape_of(config).transformer, recompute=recompute)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        store = tensor.untyped_storage()
        if store.data_ptr() not in own:
            kept[store.data_ptr()] = store.nbytes()
        return tensor

    rows, length = 2, config.loader.sequence_length
    zeros = torch.zeros(rows, length, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        x_BTD = model.embed(zeros)
        hidden = model(x_BTD, zeros, PackedAttention(zeros, zeros, zeros.bool()))
    low, full = layer_activations(shape_of(config).transformer)
    layer = 4 * rows * length * (low + full)
    stream = 4 * rows * length * shape.width
    expected = shape.num_layers * (stream if recompute else layer) + 2 * stream
    # A CPU's norms keep their normalised input beside, which a GPU's fused ones do not.
    width = shape.num_heads * shape.head_width + shape.num_kv_heads * shape.head_width
    normed = 0 if recompute else shape.num_layers * (2 * shape.width + width * qk_norm)
    beside = 4 * rows * length * normed
    assert sum(kept.values()) == pytest.approx(expected + beside, rel=0.02)
    (told,) = [item.gpu_bytes for item in plan(config, 2, 80).memory if item.name == "activations"]
    assert told == expected + stream + (layer if recompute else 0)
    del hidden


def large(config: LmRun, **engine: object) -> LmRun:
    """A model of 1.7 billion parameters."""
    return replace(
        config,
        model=LARGE,
        text_ids=151_936,
        precision="bf16",
        loader=LoaderConfig(sequence_length=8192, batch_rows=64),
        engine=replace(config.engine, **engine),  # type: ignore[arg-type]
    )


def test_a_plan_says_what_to_change(config: LmRun):
    """What it says is true: the changed config fits, the first one does not."""
    tight = large(config, micro_batch_rows=4)
    made = plan(tight, 8, 80)
    assert not made.fits and made.change
    named = {name.removeprefix("engine."): value for name, value in made.change.items()}
    assert plan(large(config, **({"micro_batch_rows": 4} | named)), 8, 80).fits
    assert plan(tight, 8, 80).total_bytes > plan(tight, 16, 80).total_bytes
    assert not plan(large(config), 8, 5).change, "nothing makes it fit into 5 GB"


def test_flops_and_time_are_of_the_whole_step(config: LmRun):
    made = plan(large(config, micro_batch_rows=1), 8, 80)
    counts = {"tokens": 64 * 8192, "pairs": 64 * 8192 * 8193 / 2}
    counts |= {"targets_text": 32 * 8192, "targets_image": 32 * 8192}
    expected = step_flops(made.shape, counts, {"text": made.shape.num_ids - 64, "image": 64})
    assert made.flops == pytest.approx(expected)
    assert made.tokens == 64 * 8192
    assert 0 < made.limit_s < made.likely_s
    assert made.limit_s > expected / 8 / 657e12
    assert made.checkpoint_bytes == 12 * made.parameters


def test_the_disk_holds_all_that_is_kept_and_the_bundle(config: LmRun):
    """A thousand steps, saved each hundred: two of the newest and one in work, or all ten."""
    long = replace(large(config), schedule=ScheduleConfig(1000), loop=LoopConfig(100))
    made = plan(long, 8, 80)
    bundle = made.disk_bytes - 3 * made.checkpoint_bytes
    assert bundle == 2 * made.parameters + ROOM_BYTES
    every = plan(replace(long, loop=LoopConfig(100, keep_every_steps=200)), 8, 80)
    assert every.disk_bytes - bundle == 6 * made.checkpoint_bytes  # 200 .. 800, 900 and the last


def test_one_process_and_offload(config: LmRun, tmp_path: Path):
    """Without DeepSpeed masters are the weights; offloaded state lies on the host."""
    alone = plan(replace(config, engine=EngineConfig()), 1, 80)
    told = {item.name: item.gpu_bytes for item in alone.memory}
    assert told["weights"] == 4 * alone.parameters and told["master weights"] == 0
    assert not alone.sent_bytes
    section = {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    (tmp_path / "offload.json").write_text(json.dumps({"zero_optimization": section}))
    made = plan(large(config, deepspeed=tmp_path / "offload.json"), 8, 80)
    on_host = {item.name: item.host_bytes for item in made.memory if item.host_bytes}
    assert on_host.keys() == {"gradients", "master weights", "moments"}
    assert made.host_bytes > sum(on_host.values())


def test_only_what_trains_has_state(config: LmRun):
    """With adapters masters and moments are those of the trained tables and the adapters."""
    if find_spec("peft") is None:
        pytest.skip("peft is not installed: the extra `train`")
    base = replace(config, weights=config.output)
    whole, lora = plan(base, 2, 80), plan(replace(base, lora=LoraConfig(rank=2)), 2, 80)
    heads, kv_heads, width, mlp = 64, 32, SHAPE.width, SHAPE.mlp_width
    ends = [(heads, width), (kv_heads, width), (kv_heads, width), (width, heads)]
    ends += [(mlp, width), (mlp, width), (width, mlp)]
    adapters = SHAPE.num_layers * sum(2 * (rows + columns) for rows, columns in ends)
    assert lora.trained == adapters + lora.shape.num_ids * width
    assert lora.parameters == whole.parameters + adapters
    told = {item.name: item.gpu_bytes for item in lora.memory}
    assert told["moments"] == pytest.approx(8 * lora.trained / 2, rel=0.01)
    assert told["weights"] == pytest.approx(4 * lora.parameters / 2, rel=0.01)
    assert lora.sent_bytes["reduce_scatter"] < whole.sent_bytes["reduce_scatter"]
    assert lora.sent_bytes["all_gather"] > whole.sent_bytes["all_gather"]


@pytest.mark.parametrize(
    ("gpus", "words", "said"),
    [
        (9, [], "batch_rows 8 does not divide among 9 ranks: launch at most 8"),
        (2, ["engine.deepspeed=null"], "2 GPUs need engine.deepspeed"),
        (2, ["optimizer.muon_lr=1e-3"], "muon_lr"),
        (2, ["loader.sequence_length=4096"], "max_positions 2048"),
        (2, ["tokenizer=nowhere"], "--num-ids"),
        (2, ["weights=nowhere", "model=null"], "no bundle is there yet"),
        (2, ["engine.micro_batch_rows=3"], "micro_batch_rows 3 does not divide 4 rows"),
    ],
)
def test_what_cannot_run_is_refused(
    config: LmRun, tmp_path: Path, gpus: int, words: list[str], said: str
):
    save(config, tmp_path / "config.yaml")
    line = ["plan", str(tmp_path / "config.yaml"), *words, "--gpus", str(gpus), "--memory-gb", "80"]
    done = CliRunner().invoke(train, line)
    assert isinstance(done.exception, ValueError) and said in str(done.exception)


def test_settings_that_are_not_planned_for_are_named(config: LmRun, tmp_path: Path):
    """ZeRO++ gathers within nodes: a plan that left it out would be wrong without a word."""
    section = {"stage": 3, "zero_hpz_partition_size": 8, "zero_quantized_weights": False}
    (tmp_path / "plus.json").write_text(json.dumps({"zero_optimization": section}))
    with pytest.raises(ValueError, match=r"plus\.json: what zero_hpz_partition_size would do"):
        plan(changed(config, "plus"), 2, 80)


def test_the_command(config: LmRun, tmp_path: Path):
    """A table and a verdict, or JSON; the exit status says whether it fits."""
    save(large(config, micro_batch_rows=4), tmp_path / "config.yaml")
    line = ["plan", str(tmp_path / "config.yaml"), "--gpus", "8", "--memory-gb"]
    fits = CliRunner().invoke(train, [*line, "400"])
    assert fits.exit_code == 0 and fits.output.endswith("\nfits\n")
    assert "moments" in fits.output and "predicted" in fits.output
    tight = CliRunner().invoke(train, [*line, "80"])
    assert tight.exit_code == 1 and "does not fit" in tight.output
    found = json.loads(CliRunner().invoke(train, [*line, "80", "--json"]).output)
    assert found["fits"] is False and found["predicted"] is True
    assert found["change"] and found["total_bytes"] > 80e9
    known = CliRunner().invoke(train, [*line, "400", "--num-ids", "1000", "--json"])
    assert json.loads(known.output)["shape"]["num_ids"] == 1000


def test_a_published_tokenizer_is_planned_by_its_config(config: LmRun, tmp_path: Path) -> None:
    """Its weights need not be there: those of Emu3's take 271 million numbers."""
    folder = tmp_path / "emu3"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "emu3", "vq_config": {}}')
    published = replace(config, tokenizer=folder)
    assert shape_of(published).vocabulary.num_codes == 32768
    items = {item.name: item for item in plan(published, 2, 80).memory}
    assert items["image tokenizer"].gpu_bytes > 4 * 270e6
    wide = replace(published, model=replace(SHAPE, factorised=True))
    with pytest.raises(ValueError, match=r"model\.factorised"):
        shape_of(wide)
