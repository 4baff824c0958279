"""Other families' checkpoints: the same logits as transformers', or one clear refusal."""

import json
from pathlib import Path

import checkpoints
import pytest
import torch
from checkpoints import logits
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from unimodal.hub.checkpoint import (
    CheckpointError,
    fetch,
    read_checkpoint,
    read_config,
)
from unimodal.hub.config_json import config_json
from unimodal.hub.rotary import read_rope
from unimodal.rope import RopeScaling, frequencies
from unimodal.tensors import weight_files
from unimodal.transformer import Transformer, TransformerConfig

ROPES = {
    "linear": {"factor": 3.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
}


def ours(directory: Path) -> Transformer:
    """A checkpoint as our transformer, float32."""
    weights = {}
    for path in weight_files(directory):
        weights |= {name: tensor.float() for name, tensor in load_file(path).items()}
    config = read_checkpoint(directory).config
    if config.tied_head:
        weights.pop("lm_head.weight", None)
    model = Transformer(config)
    model.load_state_dict(weights)
    return model.eval()


def ids(length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(0, checkpoints.NUM_ROWS, (2, length), generator=generator)


@torch.inference_mode()
def difference(directory: Path, model, length: int = 40) -> float:
    """The largest between our logits and theirs."""
    ids_BT = ids(length)
    return float((logits(ours(directory), ids_BT) - model(ids_BT).logits).abs().max())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_logits_are_those_of_transformers(family, tied, tmp_path):
    model = checkpoints.save(tmp_path, family, tied, seed=3, shard="20KB")
    assert len(weight_files(tmp_path)) > 1
    assert read_checkpoint(tmp_path).family == family
    assert difference(tmp_path, model) <= 1e-5


def test_what_config_json_leaves_out_is_as_the_family_has_it(tmp_path):
    shape = {"num_key_value_heads": 4, "rms_norm_eps": 1e-6}
    model = checkpoints.save(tmp_path, "llama", tied=False, **shape)
    old = json.loads((tmp_path / "config.json").read_text())
    for name in (*shape, "tie_word_embeddings", "rope_parameters", "head_dim"):
        old.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert difference(tmp_path, model) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("kind", ROPES)
def test_stretched_positions_far_beyond_the_original_context(kind, family, tmp_path):
    rope = {"rope_type": kind, "rope_theta": 5e3, **ROPES[kind]}
    model = checkpoints.save(tmp_path, family, rope_parameters=rope)
    assert read_checkpoint(tmp_path).config.rope.kind == kind
    assert difference(tmp_path, model, length=250) <= 1e-5
    plain = ours(tmp_path)
    object.__setattr__(plain.config, "rope", None)
    with torch.inference_mode():
        wrong = (logits(plain, ids(250)) - model(ids(250)).logits).abs().max()
    assert wrong > 1e-2  # the scaling matters


@pytest.mark.parametrize(
    "more",
    [
        {"beta_fast": 16.0, "beta_slow": 2.0},
        {"truncate": False},
        {"attention_factor": 1.5},
        {"mscale": 0.7, "mscale_all_dim": 1.1},
        {"factor": 1.0},
    ],
    ids=str,
)
def test_frequencies_of_yarn_are_those_of_transformers(more):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": "yarn", "rope_theta": 1e6, **ROPES["yarn"], **more}
    config = checkpoints.FAMILIES["qwen3"][0](
        head_dim=64, max_position_embeddings=256, rope_parameters=rope
    )
    theirs_h, factor = ROPE_INIT_FUNCTIONS["yarn"](config)
    scaling = read_rope(config.rope_parameters, 256)
    ours_h, our_factor = frequencies(64, 1e6, scaling)
    torch.testing.assert_close(ours_h, theirs_h, rtol=1e-6, atol=0)
    assert our_factor == pytest.approx(factor, rel=1e-12)


def test_the_old_spelling_of_rope_scaling(tmp_path):
    checkpoints.save(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    old = {"rope_theta": 7e3, "rope_scaling": {"type": "linear", "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(config | old))
    found = read_checkpoint(tmp_path).config
    assert (found.rope_theta, found.rope.kind, found.rope.factor) == (7e3, "linear", 2.0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert difference(tmp_path, model, length=100) <= 1e-5


REFUSED = {
    "layers beyond the weights": (
        "qwen3",
        {"num_hidden_layers": 10**9},
        "num_hidden_layers 1,000,000,000 x hidden_size .*, and its weights have",
    ),
    "gpt2": ("llama", {"model_type": "gpt2"}, "'gpt2' is not supported: one of llama, mistral"),
    "window": ("mistral", {"sliding_window": 64}, "sliding_window 64: our attention"),
    "qwen2's window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1},
        "sliding_window 32",
    ),
    "layers": (
        "qwen3",
        {"layer_types": ["full_attention", "sliding_attention"]},
        "layer_types sliding_attention: only full_attention",
    ),
    "dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
        "'dynamic' is not supported: one of default, linear, llama3, yarn, longrope",
    ),
    "partial": (
        "llama",
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor 0.5",
    ),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}, "mlp_bias: only Qwen2's"),
    "qwen3's biases": ("qwen3", {"attention_bias": True}, "attention_bias: only Qwen2's"),
    "gelu": ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu': only 'silu'"),
    "quantized": (
        "llama",
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "quantization_config: quantized weights are not read",
    ),
    "width": ("llama", {"hidden_size": 64}, "config.json says"),
    "layer": ("llama", {"num_hidden_layers": 3}, "weights are missing: model.layers.2.input"),
    "fewer": ("llama", {"num_hidden_layers": 1}, "weights have no place in this family: model.la"),
    "head": ("llama", {"tie_word_embeddings": False}, "weights are missing: lm_head.weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_words(case, tmp_path):
    family, values, words = REFUSED[case]
    checkpoints.save(tmp_path, family)
    checkpoints.change(tmp_path, **values)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path)


def test_a_window_that_config_json_does_not_name_is_as_mistral_has_it(tmp_path):
    checkpoints.save(tmp_path, "mistral", max_position_embeddings=8192)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["sliding_window"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="sliding_window 4096: our attention sees"):
        read_checkpoint(tmp_path)
    checkpoints.change(tmp_path, max_position_embeddings=4096)  # which hides nothing then
    assert read_checkpoint(tmp_path).config.max_positions == 4096


def test_all_problems_come_at_once(tmp_path):
    checkpoints.save(tmp_path, "mistral")
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    checkpoints.change(tmp_path, sliding_window=9, hidden_act="gelu", rope_parameters=dynamic)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path)
    assert len(caught.value.problems) == 3


def test_weights_that_are_pickled_missing_or_cut(tmp_path):
    checkpoints.save(tmp_path, "llama", shard="20KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match=f"{shard.name} is no whole safetensors file"):
        read_checkpoint(tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"lacks {shard.name}: fetch it again"):
        read_checkpoint(tmp_path)
    for path in tmp_path.glob("model*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="there is neither model.safetensors nor"):
        read_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match="pickled .pytorch_model.bin., and no pickle is ever"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no config.json"):
        read_checkpoint(tmp_path)


def test_an_index_cannot_lead_out_of_the_directory(tmp_path):
    checkpoints.save(tmp_path, "llama", shard="20KB")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="does not say which file holds which tensor"):
        read_checkpoint(tmp_path)


def test_what_is_neither_a_directory_nor_on_the_hub(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no directory, nor an id of the hub"):
        fetch(str(tmp_path / "nowhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="nobody/nothing is no directory, and the hub did not"):
        fetch("nobody/nothing")


def test_a_checkpoint_of_the_hub_is_taken_from_its_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--somebody--small"
    checkpoints.save(home / "snapshots" / ("0" * 40), "llama")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    assert read_checkpoint(fetch("somebody/small")).family == "llama"


SHAPES = [
    {},
    {"qk_norm": True, "tied_head": False},
    {"attention_bias": True},
    {"width": 20, "num_heads": 6, "num_kv_heads": 3},  # heads do not divide the width
    *({"rope": RopeScaling(kind, 4.0, 64)} for kind in ROPES),
    {"rope": RopeScaling("yarn", 4.0, 64, truncate=False, attention_factor=1.25)},
]


@pytest.mark.parametrize("values", SHAPES, ids=str)
def test_a_configuration_goes_out_and_comes_back(values, tmp_path):
    shape = dict(num_ids=61, width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8)
    config = TransformerConfig(**{**shape, "mlp_width": 24, "max_positions": 256, **values})
    written = config_json(config, "float32", {"bos": 1, "eos": 2, "pad": 0})
    (tmp_path / "config.json").write_text(json.dumps(written))
    _, found = read_config(tmp_path)
    if config.rope is not None and config.rope.kind == "linear":
        assert found.rope.factor == config.rope.factor  # all that it has
    else:
        assert found == config
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).eval()
    mine = Transformer(config)
    missing = model.load_state_dict(mine.state_dict(), strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"} and not missing.unexpected_keys
    ids_BT = ids(150) % 61
    with torch.inference_mode():
        assert (logits(mine, ids_BT) - model(ids_BT).logits).abs().max() <= 1e-5


def test_a_configuration_of_no_family_is_refused():
    config = TransformerConfig(61, 32, 1, 4, 2, 8, 24, qk_norm=True, attention_bias=True)
    with pytest.raises(
        ValueError, match="no family of Hugging Face has qk_norm and attention_bias"
    ):
        config_json(config, "float32", {})
