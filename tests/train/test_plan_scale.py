"""A plan for many numbers of GPUs: what is sent, how long it takes, and how it is shown."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_tokenizers import of_patches

from unimodal.config import load, save
from unimodal.data.loader import LoaderConfig
from unimodal.data.sources import SourceConfig
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train.command import train
from unimodal.train.initial import ShapeConfig
from unimodal.train.plan.assumptions import USUAL, Assumptions
from unimodal.train.plan.plan import GPUS, plan
from unimodal.train.plan.scale import at_scale, of_rows
from unimodal.train.plan.traffic import Traffic, transfer
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig

TINY = of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)
SHAPE = ShapeConfig(
    width=1024, num_layers=4, num_heads=8, num_kv_heads=4, head_width=128, mlp_width=3072,
    max_positions=4096,
)  # fmt: skip
COUNTS = ["--gpus", "8", "--gpus", "64", "--gpus", "1024"]


@pytest.fixture
def config(tmp_path: Path) -> LmRun:
    """Of a model of 110 million parameters under ZeRO-3."""
    (tmp_path / "tokenizer").mkdir()
    ImageTokenizer(TINY).save(tmp_path / "tokenizer")
    return LmRun(
        output=tmp_path / "run",
        sources={"some": SourceConfig("shards")},
        tokenizer=tmp_path / "tokenizer",
        schedule=ScheduleConfig(3000, 1),
        text_ids=32_000,
        model=SHAPE,
        loader=LoaderConfig(sequence_length=4096, batch_rows=64),
        engine=EngineConfig(deepspeed=Path("configs/zero3.json"), micro_batch_rows=4),
        precision="bf16",
    )


def test_a_node_sends_by_all_its_adapters():
    """1 GB of each GPU: at 450 GB/s within a node, at 8 times 50 across; a ring of 64 GPUs on 8
    nodes has 7 hops across and 56 within.
    """
    exact = replace(USUAL, link_share=1.0)
    sent = Traffic({"all_gather": 10**9}, {"all_gather": 100})
    took = transfer(sent, 64, exact)
    assert took.node_s == pytest.approx(1 / 450)
    assert took.network_s == pytest.approx(1 / 400)
    assert took.latency_s == pytest.approx(100 * (8.4 + 7 * 14 + 56 * 3.4) * 1e-6)
    assert took.seconds == pytest.approx(1 / 400 + took.latency_s)
    alone = transfer(sent, 8, exact)
    assert alone.network_s == 0 and alone.node_s == pytest.approx(1 / 450)
    assert transfer(sent, 64, replace(exact, node_gpus=1)).network_s == pytest.approx(1 / 50)
    summed = Traffic({"all_reduce": 10**9}, {"all_reduce": 100})
    twice = transfer(summed, 64, exact).latency_s - took.latency_s
    assert twice == pytest.approx(100 * (7 * 14 + 56 * 3.4) * 1e-6)


def test_the_tokens_of_a_run_stay(config: LmRun):
    """Sixteen times the rows are a sixteenth of the steps; a GPU's state shrinks with ranks."""
    found, refused = at_scale(config, [1024, 8, 64], 80)
    assert not refused
    assert [one.plan.num_gpus for one in found] == [8, 64, 1024]
    assert [one.batch_rows for one in found] == [64, 64, 1024]
    assert [one.plan.micro_batch_rows for one in found] == [4, 1, 1]
    assert [one.num_steps for one in found] == [3000, 3000, 188]
    tokens = [one.num_steps * one.plan.tokens for one in found]
    assert tokens == pytest.approx([3000 * 64 * 4096] * 3, rel=0.003)
    moments = [one.plan.bytes_of("moments") for one in found]
    assert moments == pytest.approx([8 * found[0].plan.parameters / n for n in (8, 64, 1024)], 0.01)
    assert [one.plan.bytes_of("activations") for one in found][1:] == [
        found[0].plan.bytes_of("activations") / 4
    ] * 2


def test_hours_and_price_hold_what_failures_take(config: LmRun):
    assumed = Assumptions(usd_per_gpu_hour=2.0)
    found, _ = at_scale(config, [8, 1024], 80, assumed=assumed)
    for one in found:
        steps_h = one.num_steps * one.plan.likely_s / 3600
        assert one.hours == pytest.approx(steps_h / one.saved.share)
        assert one.usd == pytest.approx(2 * one.hours * one.plan.num_gpus)
        assert one.saved.share <= one.best.share + 1e-9 < 1
    assert found[1].best.share < found[0].best.share, "more GPUs fail more often"
    often, _ = at_scale(config, [1024], 80, assumed=replace(assumed, mtbf_h=5_000.0))
    assert often[0].hours > found[1].hours


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_on_the_host_leave_the_layer_at_work(config: LmRun, recompute: bool):
    """What goes there is what is no longer on the GPU, and takes its time both ways."""
    here = replace(config, engine=replace(config.engine, recompute=recompute))
    away = replace(here, engine=replace(here.engine, offload_activations=True))
    kept, left = (plan(one, 8, 80) for one in (here, away))
    (item,) = [one for one in left.memory if one.name == "activations"]
    assert item.gpu_bytes + item.host_bytes == kept.bytes_of("activations")
    assert item.host_bytes > 0 and left.host_bytes - kept.host_bytes == item.host_bytes
    stream = 4 * 4096 * SHAPE.width * 2
    gone = 4 * stream if recompute else 3 * (item.gpu_bytes - 3 * stream)
    assert item.host_bytes == gone
    moved_s = 2 * gone * left.accumulation / GPUS["H100"].host_bytes
    assert left.likely_s == pytest.approx(kept.likely_s + moved_s)


def test_a_short_run_is_saved_at_its_end_at_the_latest(config: LmRun):
    """No interval between checkpoints is longer than the run."""
    (short,), _ = at_scale(replace(config, schedule=ScheduleConfig(10, 1)), [8], 80)
    assert short.num_steps == short.saved.every_steps == 10
    assert 1 <= short.best.every_steps <= 10 and short.best.share >= short.saved.share


def test_a_run_that_only_fails_keeps_nothing(config: LmRun):
    """Every GPU fails each two hours, and starting again takes an hour."""
    hopeless = Assumptions(mtbf_h=2, restart_s=3600)
    found, _ = at_scale(config, [1024], 80, assumed=hopeless)
    assert found[0].saved.share == 0 and found[0].hours == float("inf")


def test_rows_that_make_no_groups_are_told_beside_the_others(config: LmRun):
    grouped = replace(config, loader=replace(config.loader, group_rows=16))
    found, refused = at_scale(grouped, [8, 10, 64], 80)
    assert [one.plan.num_gpus for one in found] == [8, 64]
    assert "group_rows" in refused[10]
    with pytest.raises(ValueError, match="10 GPUs: .*group_rows"):
        at_scale(grouped, [10], 80)


def test_micro_batches_shrink_to_the_rows_that_there_are(config: LmRun):
    assert of_rows(config, 8).engine.micro_batch_rows == 4
    assert of_rows(config, 32).engine.micro_batch_rows == 2
    assert of_rows(config, 128).loader.batch_rows == 128
    assert of_rows(config, 16) == config


def test_gpus_that_share_rows_count_as_one(config: LmRun):
    """They take the rows of a group, several at once where there are several."""
    shared = replace(config, engine=replace(config.engine, sequence_parallel=4))
    assert of_rows(shared, 64) == shared
    fitted = of_rows(shared, 512)
    assert (fitted.loader.batch_rows, fitted.engine.micro_batch_rows) == (128, 1)
    (lone,), refused = at_scale(shared, [64, 66], 80)
    assert (lone.plan.micro_batch_rows, lone.plan.accumulation) == (4, 1)
    assert lone.batch_rows == 64 and "does not divide 66 ranks" in refused[66]


def test_a_table_has_what_is_assumed_at_its_head(config: LmRun, tmp_path: Path):
    save(config, tmp_path / "config.yaml")
    line = ["plan", str(tmp_path / "config.yaml"), *COUNTS, "--memory-gb", "80"]
    plot = tmp_path / "plan.png"
    more = ["--usd-per-gpu-hour", "2", "--assume", "mtbf_h=20000", "--plot", str(plot)]
    done = CliRunner().invoke(train, [*line, *more])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert words.startswith("Predicted, not run.")
    assert words.index("fails in 20,000 hours") < words.index("memory of a GPU")
    *lines, said_last = done.output.splitlines()
    assert str(plot) in said_last and max(map(len, lines)) <= 80
    assert "…" not in done.output
    with Image.open(io.BytesIO(plot.read_bytes())) as drawn:
        assert drawn.size == (1100, 850)
        assert len(drawn.convert("RGB").getcolors(1 << 20) or ()) > 20
    found = json.loads(CliRunner().invoke(train, [*line, *more, "--json"]).output)
    assert [one["num_gpus"] for one in found["plans"]] == [8, 64, 1024]
    assert found["assumed"]["mtbf_h"] == 20000 and found["assumed"]["noise"] == USUAL.noise
    assert all(one["run"]["usd"] == 2 * one["run"]["gpu_hours"] for one in found["plans"])


def test_the_exit_status_says_whether_any_fits(config: LmRun, tmp_path: Path):
    save(config, tmp_path / "config.yaml")
    line = ["plan", str(tmp_path / "config.yaml"), *COUNTS, "--memory-gb"]
    assert CliRunner().invoke(train, [*line, "2"]).exit_code == 1
    lone = ["plan", str(tmp_path / "config.yaml"), "--gpus", "8", "--memory-gb", "80"]
    done = CliRunner().invoke(train, [*lone, "--plot", str(tmp_path / "plan.png")])
    assert done.exit_code == 2 and "more than once" in done.output
    found = json.loads(CliRunner().invoke(train, [*lone, "--json"]).output)
    assert found["run"]["num_steps"] == 3000 and 0.9 < found["run"]["best"]["share"] < 1


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("mtbf_h=0", "mtbf_h 0"),
        ("link_share=1.5", "link_share 1.5"),
        ("noise=-1", "noise -1"),
        ("mtbf=1000", "mtbf_h"),
        ("network_gb_s=fast", "network_gb_s"),
    ],
)
def test_what_cannot_be_assumed_is_refused(word: str, said: str):
    with pytest.raises(ValueError, match=said):
        load(Assumptions, overrides=(word,))
