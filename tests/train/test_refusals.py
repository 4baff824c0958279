"""What cannot be trained is refused in one message, before any work is done."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_tokenizers import of_patches

from unimodal.config import ConfigError, load, save
from unimodal.data.loader import LoaderConfig
from unimodal.data.sources import SourceConfig
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train import lm, loop
from unimodal.train import zero as engine
from unimodal.train.given import read_given
from unimodal.train.loop import LoopConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.plan.plan import plan
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig
from unimodal.train.zero import EngineConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def config(tmp_path: Path) -> LmRun:
    (tmp_path / "tokenizer").mkdir()
    tiny = of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8)
    ImageTokenizer(tiny).save(tmp_path / "tokenizer")
    (tmp_path / "shards").mkdir()
    return LmRun(
        output=tmp_path / "run",
        sources={"one": SourceConfig(str(tmp_path / "shards"))},
        tokenizer=tmp_path / "tokenizer",
        schedule=ScheduleConfig(2, 1),
    )


def refused(config: LmRun, words: str) -> None:
    with pytest.raises((ValueError, OSError), match=words) as found:
        lm.train(config)
    assert "Traceback" not in str(found.value) and not config.output.exists()


def test_missing_shards(config: LmRun) -> None:
    refused(config, "one: .*shards")


def test_ranks_without_a_way_to_share(config: LmRun, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="2 ranks were launched, and engine.deepspeed does not"):
        read_given(config, 2)
    shared = replace(config, engine=EngineConfig(CONFIGS / "zero3.json"))
    with pytest.raises(ValueError, match="batch_rows 8 .* among 9 ranks: launch at most 8"):
        read_given(shared, 9)
    uneven = replace(shared, engine=replace(shared.engine, micro_batch_rows=3))
    with pytest.raises(ValueError, match="micro_batch_rows 3 does not divide 4 rows of a rank"):
        read_given(uneven, 2)


def test_ranks_compute_whole_groups_of_rows_at_the_same_time(config: LmRun) -> None:
    """Or parts of one: never rows of two groups, which cost differently."""
    engine = EngineConfig(CONFIGS / "zero3.json")
    grouped = replace(config, engine=engine, loader=LoaderConfig(batch_rows=48, group_rows=8))
    for world, micro, problem in (
        (8, 1, ""), (8, 3, ""), (2, 4, ""), (1, 4, ""), (1, None, ""), (4, 3, "the 12 rows"),
        (2, 3, "the 6 rows"), (3, 2, "the 6 rows"), (3, None, ""), (5, None, ""),
        (5, 1, "launch 4 or 8 ranks"), (49, 1, "does not divide"),
    ):  # fmt: skip
        found = replace(grouped, engine=replace(engine, micro_batch_rows=micro))
        problems = found.rank_problems(world)
        assert [problem in one for one in problems] == [True] * bool(problem), (world, micro)
    uneven = replace(grouped, engine=replace(engine, micro_batch_rows=3))
    with pytest.raises(ValueError, match="12 rows .* no whole groups of loader.group_rows 8"):
        read_given(uneven, 4)
    with pytest.raises(ValueError, match="12 rows .* no whole groups of loader.group_rows 8"):
        plan(uneven, 4, 80)


def test_packages_that_are_not_there(config: LmRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine, loop):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    lacking = replace(
        config, engine=EngineConfig(CONFIGS / "zero3.json"), loop=LoopConfig(wandb="project")
    )
    refused(
        lacking, "engine.deepspeed: not installed; pip install[^\n]*\n *loop.wandb: not installed"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_kernels_without_a_gpu(config: LmRun) -> None:
    refused(replace(config, engine=EngineConfig(attention="flex")), "engine.attention flex: .*GPU")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_compilation_without_a_compiler(config: LmRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was met at the first step, in a traceback of torch's."""
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    refused(
        replace(config, engine=EngineConfig(compile=True)),
        "engine.compile: needs a C\\+\\+ compiler .* there is no /nonexistent/c\\+\\+: install it",
    )
    monkeypatch.setenv("CXX", sys.executable)  # is there, whatever it compiles
    assert EngineConfig(compile=True).obstacles() == []
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "there is no " in EngineConfig(compile=True).obstacles()[0]
    assert EngineConfig().obstacles() == []


def test_deepspeed_files_that_cannot_be(tmp_path: Path, config: LmRun) -> None:
    path, yaml = tmp_path / "zero.json", tmp_path / "lm.yaml"
    save(config, yaml)
    for text, words in (
        ("{", "no JSON with zero_optimization.stage"),
        ('{"zero_optimization": {"stage": 4}}', "stage 4: 1, 2 or 3"),
        ('{"zero_optimization": {"stage": 3}, "bf16": {}}', "bf16: the run's own settings"),
        ('{"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}', "not to nvme"),
        ('{"zero_optimization": {"stage": 1}, "tensor_parallel": {"autotp_size": 2}}', "qk_norm"),
        ('{"zero_optimization": {"stage": 1}, "sequence_parallel_size": 2}', "engine.sequence_par"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load(LmRun, yaml, [f"engine.deepspeed={path}"])
    with pytest.raises(ConfigError, match="no JSON"):
        load(LmRun, yaml, [f"engine.deepspeed={tmp_path / 'none.json'}"])


def test_muon_needs_whole_matrices(tmp_path: Path, config: LmRun) -> None:
    save(config, tmp_path / "lm.yaml")
    words = [f"engine.deepspeed={CONFIGS / 'zero3.json'}", "optimizer.muon_lr=0.01"]
    with pytest.raises(ConfigError, match="Muon needs whole matrices"):
        load(LmRun, tmp_path / "lm.yaml", words)


def test_a_checkpoint_of_another_model_or_a_damaged_one(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from zero_cases import Case, made, steps

    from unimodal.train.checkpoint import Checkpoint
    from unimodal.train.ranks import Ranks

    case = Case(save=str(tmp_path / "run"))
    steps(made(case, Ranks()), case)
    saved = tmp_path / "run" / "step_00000002"
    untied = made(Case(tied=False), Ranks())
    with pytest.raises(ValueError, match="is of another model: lm_head.weight differ"):
        untied.restore(Checkpoint(saved))
    with pytest.raises(ValueError, match="holds no averaged weights"):
        made(Case(ema_decay=0.5), Ranks()).restore(Checkpoint(saved))
    (file,) = saved.glob("rank_*")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="step_00000002 cannot be read .*remove it to go on from"):
        Checkpoint(saved)
    file.unlink()
    with pytest.raises(ValueError, match="step_00000002 cannot be read"):
        Checkpoint(saved)


def test_optimizer_problems() -> None:
    assert OptimizerConfig(ema_decay=1.0).problems() == ["ema_decay 1.0: above 0 and below 1"]


def test_old_names_of_a_run() -> None:
    """Each key is told by the name it has now, wherever a run has it."""
    renamed = {
        "loader.row_length": "loader.sequence_length",
        "loader.pictures": "loader.images",
        "loader.images.area": "loader.images.target_pixels",
        "loader.images.widest": "loader.images.max_aspect_ratio",
        "loader.images.smallest": "loader.images.min_side",
        "engine.micro_rows": "engine.micro_batch_rows",
        "sources.one.form": "sources.one.format",
        "sources.one.part": "sources.one.split",
        "held_out.sources.one.part_by": "held_out.sources.one.split_by",
        "held_out.sources.one.picture_weight": "held_out.sources.one.image_weight",
        "sampling.max_pictures": "sampling.max_images",
        "optimizer.average": "optimizer.ema_decay",
    }
    with pytest.raises(ConfigError) as caught:
        load(LmRun, None, [f"{old}=null" for old in renamed] + ["loader.stages=[{area: 1}]"])
    for old, new in (renamed | {"loader.stages.0.area": "loader.stages.0.target_pixels"}).items():
        assert f"{old}: it is called {new} now" in caught.value.problems
