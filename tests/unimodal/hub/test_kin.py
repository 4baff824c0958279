"""Families that are Llama with small differences: the logits of transformers, there and back."""

from dataclasses import asdict
from pathlib import Path

import checkpoints
import pytest
import torch
import transformers
from checkpoints import logits
from safetensors.torch import load_file
from test_checkpoint import ids
from transformers import AutoModelForCausalLM

from unimodal import load
from unimodal.bundle import read_contents
from unimodal.hub.checkpoint import CheckpointError, read_checkpoint, read_config
from unimodal.hub.export import export, restore
from unimodal.hub.grow import Growth, grow
from unimodal.tokenizer.grid import Grid

LENGTH = 120  # beyond the context that Ministral-3's queries grow from


@pytest.fixture(scope="module", params=checkpoints.KIN)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kin")


@pytest.fixture(scope="module")
def theirs(family, folder):
    return checkpoints.save(folder / family / "old", family, seed=3, dtype=torch.float32)


@pytest.fixture(scope="module")
def grown(family, folder, theirs, tiny_model) -> Path:
    growth = Growth(grid=Grid(3, 2), context=128)
    return grow(
        folder / family / "old", tiny_model.image_tokenizer, folder / family / "new", growth
    )


@torch.inference_mode()
def test_logits_of_old_ids_are_those_of_transformers(family, folder, theirs, grown):
    assert read_checkpoint(folder / family / "old").family == family
    ids_BT = ids(LENGTH)
    ours = load(grown).transformer
    found = logits(ours, ids_BT)[..., : checkpoints.NUM_ROWS]
    assert (found - theirs(ids_BT).logits).abs().max() <= 1e-5


@torch.inference_mode()
def test_the_export_is_of_the_family_and_has_the_same_logits(family, folder, grown):
    out = export(grown, folder / family / "out")
    again = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert type(again) is checkpoints.KIN[family][1]
    found, config = read_config(out), read_contents(grown).config.transformer
    # Of a linear scaling the factor alone is written.
    assert (found[0], asdict(found[1]) | {"rope": ...}) == (family, asdict(config) | {"rope": ...})
    ids_BT = torch.cat((ids(LENGTH), ids(LENGTH) + 50), dim=0)  # some of them new
    ours = load(grown).transformer
    assert (logits(ours, ids_BT) - again(ids_BT).logits).abs().max() <= 1e-5
    back = restore(out, folder / family / "back")
    assert read_contents(back).hash == read_contents(grown).hash


@torch.inference_mode()
def test_a_phi_of_long_context_as_far_as_its_original_one(tiny_model, tmp_path):
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
    rope |= {"short_factor": [1.0, 1.5, 3.0], "long_factor": [2.0, 9.0, 9.0]}
    more = {"original_max_position_embeddings": 128, "sliding_window": 9000}
    theirs = checkpoints.save(
        tmp_path / "old", "phi3", max_position_embeddings=512, rope_parameters=rope, **more
    )
    new = grow(
        tmp_path / "old", tiny_model.image_tokenizer, tmp_path / "new", Growth(grid=Grid(3, 2))
    )
    ours = load(new)
    assert ours.context == 128 and ours.transformer.config.rotary_width == 6
    found = logits(ours.transformer, ids(LENGTH))
    assert (found[..., : checkpoints.NUM_ROWS] - theirs(ids(LENGTH)).logits).abs().max() <= 1e-5
    again = AutoModelForCausalLM.from_pretrained(export(new, tmp_path / "out")).eval()
    assert (found - again(ids(LENGTH)).logits).abs().max() <= 1e-5


WHOLES = {
    "gemma3_text": (transformers.Gemma3Config, transformers.Gemma3ForConditionalGeneration,
                    {"model_type": "siglip_vision_model"}),
    "ministral3": (transformers.Mistral3Config, transformers.Mistral3ForConditionalGeneration,
                   {"model_type": "pixtral", "head_dim": 16}),
}  # fmt: skip


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("text", WHOLES)
def test_the_language_model_of_one_that_sees(text, is_tied, tiny_model, tmp_path):
    make, kind, vision = WHOLES[text]
    small = checkpoints.save(tmp_path / "text", text, is_tied)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = make(text_config=small.config, vision_config=vision | sizes,
                  tie_word_embeddings=is_tied)  # fmt: skip
    whole = kind(config).eval()
    whole.model.language_model.load_state_dict(small.model.state_dict())
    whole.lm_head.load_state_dict(small.lm_head.state_dict())
    whole.save_pretrained(tmp_path / "whole")
    (tmp_path / "text" / "tokenizer.json").rename(tmp_path / "whole" / "tokenizer.json")
    growth = Growth(grid=Grid(3, 2), context=128)
    grown = grow(tmp_path / "whole", tiny_model.image_tokenizer, tmp_path / "new", growth)
    ours = load(grown).transformer
    assert ours.config.tied_head == is_tied
    with torch.inference_mode():
        found = logits(ours, ids(100))[..., : checkpoints.NUM_ROWS]
        assert (found - whole(ids(100)).logits).abs().max() <= 1e-5


def test_a_joined_matrix_has_the_rows_of_its_parts(folder):
    theirs = checkpoints.save(folder / "joined" / "old", "phi3", tied=False)
    parts = read_checkpoint(folder / "joined" / "old").weights
    whole = theirs.model.layers[1].self_attn.qkv_proj.weight
    rows = {name: torch.cat(list(parts[f"model.layers.1.self_attn.{name}.weight"].row_blocks()))
            for name in ("q_proj", "k_proj", "v_proj")}  # fmt: skip
    assert torch.equal(torch.cat(list(rows.values())).float(), whole)
    assert [len(one) for one in rows.values()] == [32, 16, 16]


def test_bytes_of_joined_matrices_come_back(folder, tiny_model):
    checkpoints.save(folder / "bytes" / "old", "phi3", dtype=torch.bfloat16)
    growth = Growth(grid=Grid(3, 2))
    new = grow(
        folder / "bytes" / "old", tiny_model.image_tokenizer, folder / "bytes" / "new", growth
    )
    out = load_file(export(new, folder / "bytes" / "out") / "model.safetensors")
    old = load_file(folder / "bytes" / "old" / "model.safetensors")
    assert out.keys() == old.keys() - {"lm_head.weight"}
    for name, tensor in out.items():
        assert torch.equal(tensor[: len(old[name])], old[name]), name


REFUSED = {
    "qwen3_5_text": ({"layer_types": ["linear_attention"]}, "qwen3 .it has layers of linear"),
    "qwen3_next": ({"num_experts": 4}, "the nearest is qwen3_moe"),
    "mixtral": ({"num_local_experts": 4}, "the nearest is qwen3_moe"),
    "deepseek_v3": ({"n_routed_experts": 4, "kv_lora_rank": 8}, "qwen3_moe .it has latent"),
    "gemma2": ({"attn_logit_softcapping": 50.0}, "the nearest is gemma3_text .it has soft-capped"),
    "gemma3n": ({"text_config": {"hidden_size": 8}}, "gemma3_text .it has a language model beside"),
    "olmo3": ({}, "the nearest is olmo2"),
    "gpt2": ({}, "the nearest is llama$"),
}  # fmt: skip


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_is_refused_names_the_nearest(model_type, tmp_path):
    values, words = REFUSED[model_type]
    checkpoints.save(tmp_path, "llama")
    checkpoints.change(tmp_path, model_type=model_type, **values)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path)
