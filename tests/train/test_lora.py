"""Adapters: old weights stay, new rows train, and what comes out is what peft would make of it."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import checkpoints
import launching
import numpy as np
import pytest
import torch
from checkpoints import logits
from pair import Pair
from safetensors.torch import load_file, save_file
from tiny_runs import exact, metrics, recipe
from train_files import modes
from transformers import AutoModelForCausalLM

import unimodal
from unimodal import manifest
from unimodal.bundle import read_contents
from unimodal.config import ConfigError, load, save
from unimodal.data.sources import SourceConfig
from unimodal.hub.export import export
from unimodal.hub.grow import TABLES, Growth, grow
from unimodal.tensors import weight_files
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.train import lm
from unimodal.train.checkpoint import EMA, Checkpoint, newest
from unimodal.train.heldout import HeldOutConfig
from unimodal.train.initial import ShapeConfig
from unimodal.train.lora import LoraConfig
from unimodal.train.optimizer import OptimizerConfig
from unimodal.train.run import LmRun
from unimodal.train.zero import EngineConfig

pytestmark = pytest.mark.usefixtures("one_thread")
PeftModel = pytest.importorskip("peft", reason="needs the extra `train`: peft").PeftModel
ROOT = Path(__file__).resolve().parents[2]
NUM_OLD = checkpoints.NUM_ROWS
LORA = LoraConfig(rank=4, alpha=6, targets=("q_proj", "v_proj", "down_proj"))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def grown(request, tokenizer: Path, tmp_path_factory) -> Path:
    """A Qwen3 in bfloat16 with a vocabulary that has grown."""
    folder = tmp_path_factory.mktemp("grown")
    checkpoints.save(folder / "old", tied=request.param, dtype=torch.bfloat16)
    image = ImageTokenizer.load(tokenizer)
    return grow(folder / "old", image, folder / "new", Growth(grid=Grid(3, 2)))


def run(output: Path, shards: Path, tokenizer: Path, grown: Path, steps: int) -> LmRun:
    config = recipe(output, shards, tokenizer, steps)
    return replace(
        config,
        weights=grown,
        lora=LORA,
        text_ids=None,
        model=None,
        loader=replace(config.loader, sequence_length=256, batch_rows=2),
        held_out=HeldOutConfig({"scenes": SourceConfig(str(shards))}, rows=2, every_steps=8),
        optimizer=OptimizerConfig(lr=1e-2, weight_decay=0.1, ema_decay=0.5),
    )


@pytest.fixture(scope="module")
def finished(grown: Path, shards: Path, tokenizer: Path, tmp_path_factory) -> Path:
    """The directory of a run of eight steps."""
    output = tmp_path_factory.mktemp("run") / "whole"
    lm.train(run(output, shards, tokenizer, grown, 8))
    return output


def last(output: Path) -> Checkpoint:
    found = newest(output)
    assert found is not None
    return found


def base(grown: Path) -> dict[str, torch.Tensor]:
    return unimodal.load(grown).transformer.state_dict()


def test_the_adapter_is_as_readable_as_the_user_has_it(finished: Path):
    mask = os.umask(0)
    os.umask(mask)
    found = modes(finished)
    assert {"adapter/adapter_model.safetensors", "adapter/adapter_config.json"} <= set(found)
    assert set(found.values()) == {0o666 & ~mask, 0o777 & ~mask}


def test_adapters_and_new_rows_train_and_nothing_else(finished: Path, grown: Path):
    before, checkpoint = base(grown), last(finished)
    tables = [name for name in TABLES if name in before]
    adapters = {name for name in checkpoint.shapes if ".lora_" in name}
    assert set(checkpoint.shapes) == {*tables, *adapters} and len(adapters) == 2 * 3 * 2
    for name in tables:
        after = checkpoint.whole(name)
        assert torch.equal(after[:NUM_OLD], before[name][:NUM_OLD])
        assert torch.equal(checkpoint.whole(name, EMA)[:NUM_OLD], before[name][:NUM_OLD])
        assert (after[NUM_OLD:] != before[name][NUM_OLD:]).any(
            1
        ).sum() > 30  # those of rows that the texts hold
    assert all(checkpoint.whole(name).any() for name in adapters)
    losses = [one["loss"] for one in metrics(finished)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def merged(finished: Path, grown: Path) -> dict[str, torch.Tensor]:
    """What the bundle has in float32, computed here again."""
    weights, checkpoint = base(grown), last(finished)
    for name in weights:
        stem = name.removesuffix(".weight")
        if name in checkpoint.shapes:
            weights[name] = checkpoint.whole(name, EMA)
        elif f"{stem}.lora_A.default.weight" in checkpoint.shapes:
            a, b = (checkpoint.whole(f"{stem}.lora_{x}.default.weight", EMA) for x in "AB")
            weights[name] = weights[name] + LORA.alpha / LORA.rank * b @ a
    return weights


def test_the_bundle_has_the_adapters_added(finished: Path, grown: Path):
    found, expected = base(finished / "bundle"), merged(finished, grown)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        # Sums of another order may round to the neighbouring bfloat16.
        torch.testing.assert_close(found[name], tensor.bfloat16().float(), rtol=2**-7, atol=1e-6)
    assert unimodal.load(finished / "bundle").card["config"]["lora"]["rank"] == 4


@torch.inference_mode()
def test_peft_puts_the_adapter_on_the_export(finished: Path, grown: Path, tmp_path: Path):
    exported = AutoModelForCausalLM.from_pretrained(
        export(grown, tmp_path / "hf"), dtype=torch.float32
    )
    ids_BT = torch.randint(
        0,
        read_contents(grown).config.vocabulary.size,
        (2, 60),
        generator=torch.Generator().manual_seed(0),
    )
    bare = exported.eval()(ids_BT).logits
    theirs = PeftModel.from_pretrained(exported, finished / "adapter").eval()
    model = unimodal.load(grown).transformer
    model.load_state_dict(merged(finished, grown))
    ours = logits(model, ids_BT)
    assert (theirs(ids_BT).logits - ours).abs().max() <= 1e-5
    assert (bare - ours).abs().max() > 1e-2


def test_a_resumed_run_is_the_same_run(
    finished: Path,
    grown: Path,
    shards: Path,
    tokenizer: Path,
    tmp_path: Path,
):
    whole = run(tmp_path / "cut", shards, tokenizer, grown, 8)
    cut = replace(whole, schedule=replace(whole.schedule, num_steps=3))
    lm.train(cut)
    lm.train(whole)
    assert exact(tmp_path / "cut") == exact(finished)
    for name in ("bundle/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (finished / name).read_bytes()
    with pytest.raises(ValueError, match="holds a run with another lora"):
        lm.train(replace(whole, lora=replace(LORA, rank=2)))


@pytest.mark.parametrize(
    "grown", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tied", "untied"],
    indirect=True,
)  # fmt: skip
def test_two_ranks_of_zero_3_train_the_same_adapters(
    finished: Path,
    grown: Path,
    shards: Path,
    tokenizer: Path,
    tmp_path: Path,
    pair: Pair,
):
    engine = EngineConfig(deepspeed=ROOT / "configs" / "zero3.json", timeout_s=100)
    config = replace(run(tmp_path / "two", shards, tokenizer, grown, 8), engine=engine)
    save(config, tmp_path / "lm.yaml")
    pair(launching.train, str(tmp_path / "lm.yaml"))
    np.testing.assert_allclose(
        [one["loss"] for one in metrics(tmp_path / "two")],
        [one["loss"] for one in metrics(finished)],
        atol=1e-5,
    )
    measured = [
        json.loads((path / "before.json").read_text()) for path in (finished, tmp_path / "two")
    ]
    assert measured[0] == pytest.approx(measured[1], abs=1e-5) and len(measured[0]) == 4
    alone, two, before = last(finished), last(tmp_path / "two"), base(grown)
    assert alone.shapes == two.shapes
    for name in alone.shapes:
        # Adam divides rounding errors by their own size: a small gradient's sign may differ.
        assert (alone.whole(name) - two.whole(name)).abs().median() < 1e-5
        if name in TABLES:
            assert torch.equal(two.whole(name)[:NUM_OLD], before[name][:NUM_OLD])
    assert (tmp_path / "two" / "adapter" / "adapter_config.json").exists()


def test_what_cannot_be_is_said_before_work(
    shards: Path, tokenizer: Path, tmp_path: Path, monkeypatch
):
    config = replace(recipe(tmp_path / "run", shards, tokenizer, 1), lora=LORA)
    with pytest.raises(ValueError, match="lora: it needs `weights`"):
        lm.train(config)
    with pytest.raises(ValueError, match=r"peft is not installed; pip install 'unimodal\[train\]'"):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        lm.train(replace(config, weights=tmp_path))
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()
    save(replace(config, lora=LoraConfig(rank=0, targets=("qproj",))), tmp_path / "lm.yaml")
    with pytest.raises(ConfigError) as caught:
        load(LmRun, tmp_path / "lm.yaml")
    for words in ("lora: it needs `weights`", "rank 0: at least 1", "targets ['qproj']: some of q"):
        assert words in str(caught.value)


# --- what the weights at rest are ---------------------------------------------------------------


def files(directory: Path) -> dict[str, torch.Tensor]:
    """The tensors of a bundle as they lie, with the dtypes that they have there."""
    found: dict[str, torch.Tensor] = {}
    for path in weight_files(directory):
        found |= load_file(path)
    return found


@pytest.fixture(scope="module", params=[torch.float16, torch.float32], ids=str)
def wide(request, tokenizer: Path, tmp_path_factory) -> Path:
    """A grown Qwen3 whose numbers bfloat16 does not hold."""
    folder = tmp_path_factory.mktemp("wide")
    checkpoints.save(folder / "old", dtype=request.param)
    image = ImageTokenizer.load(tokenizer)
    return grow(folder / "old", image, folder / "new", Growth(grid=Grid(3, 2)))


def test_the_bases_dtype_stays(wide: Path, shards: Path, tokenizer: Path, tmp_path: Path):
    lm.train(run(tmp_path / "run", shards, tokenizer, wide, 2))
    before, after = files(wide), files(tmp_path / "run" / "bundle")
    assert {name: tensor.dtype for name, tensor in after.items()} == {
        name: tensor.dtype for name, tensor in before.items()
    }
    adapted = tuple(f"{target}.weight" for target in LORA.targets)
    for name, tensor in before.items():
        if name in TABLES:
            assert torch.equal(after[name][:NUM_OLD], tensor[:NUM_OLD])
            assert not torch.equal(after[name], tensor)
        else:
            assert torch.equal(after[name], tensor) != name.endswith(adapted), name


def test_a_weight_beyond_the_bases_dtype_is_no_infinity(
    wide: Path, shards: Path, tokenizer: Path, tmp_path: Path
):
    """A rate so high that new rows leave float16's range: float32 holds them."""
    config = run(tmp_path / "run", shards, tokenizer, wide, 1)
    scale = {"model.embed_tokens": 1e9}
    config = replace(config, optimizer=OptimizerConfig(lr=1e-3, lr_scale=scale))
    if files(wide)[TABLES[0]].dtype == torch.float16:
        with pytest.raises(ValueError, match="embed_tokens.weight has a weight of .* F16 cannot"):
            lm.train(config)
        assert not (tmp_path / "run" / "bundle").exists()
    else:
        lm.train(config)
        assert files(tmp_path / "run" / "bundle")[TABLES[0]].abs().max() > 65504


@torch.inference_mode()
def test_logits_of_old_text_keep_their_bits(
    wide: Path, shards: Path, tokenizer: Path, tmp_path: Path
):
    """Of a run that learns next to nothing: whatever changes, changes by rounding."""
    config = run(tmp_path / "run", shards, tokenizer, wide, 2)
    with torch.inference_mode(False):
        lm.train(replace(config, optimizer=OptimizerConfig(lr=1e-12)))
    ids_BT = torch.randint(0, NUM_OLD, (2, 50), generator=torch.Generator().manual_seed(0))
    models = [unimodal.load(path).transformer for path in (wide, tmp_path / "run" / "bundle")]
    old, new = (logits(model, ids_BT)[..., :NUM_OLD] for model in models)
    assert torch.equal(old, new)


def test_a_run_that_trains_all_keeps_the_dtype_too(
    wide: Path, shards: Path, tokenizer: Path, tmp_path: Path
):
    """And what the base lacks has that of its embedding; of a base of two dtypes each stays."""
    mixed = tmp_path / "mixed"
    shutil.copytree(wide, mixed)
    (path,) = weight_files(mixed)
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].bfloat16()
    save_file(tensors, path)
    manifest.write(mixed)
    config = run(tmp_path / "run", shards, tokenizer, mixed, 1)
    shape = ShapeConfig(
        width=48, num_layers=2, num_heads=4, num_kv_heads=2, head_width=16, mlp_width=40,
        rope_theta=10_000.0, max_positions=256, addresses=True,
    )  # fmt: skip
    lm.train(replace(config, lora=None, model=shape))
    after = files(tmp_path / "run" / "bundle")
    dtype = tensors["model.embed_tokens.weight"].dtype
    assert {name for name in after if after[name].dtype != dtype} == {"model.norm.weight"}
    assert after["model.norm.weight"].dtype == torch.bfloat16
    assert {"embedder.rows.weight", "embedder.columns.weight"} <= set(after)


def test_a_run_from_scratch_rests_in_bfloat16(shards: Path, tokenizer: Path, tmp_path: Path):
    finished = lm.train(recipe(tmp_path / "run", shards, tokenizer, 1))
    assert {tensor.dtype for tensor in files(finished).values()} == {torch.bfloat16}
