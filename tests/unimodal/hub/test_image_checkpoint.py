"""Image tokenizers in checkpoints of published models: what is taken, and what is refused."""

import json
from pathlib import Path

import numpy as np
import published_tokenizers as made
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from unimodal.codec import ImageCodec
from unimodal.document import Image
from unimodal.hub.checkpoint import CheckpointError
from unimodal.hub.image_checkpoint import read_image_config, read_image_tokenizer
from unimodal.image_tokenizers import find_tokenizer, load_tokenizer, tokenizer_config
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.vqgan import Vqgan

LLAMA = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip


def whole_chameleon() -> transformers.PreTrainedModel:
    config = transformers.ChameleonConfig(
        **LLAMA, vq_config=made.CHAMELEON, vocabulary_map={"<image>": 5, "IMGIMGAZ": 6}
    )
    model = transformers.ChameleonForConditionalGeneration(config)
    model.model.vqmodel.load_state_dict(made.chameleon().state_dict())
    return model


def whole_emu3() -> transformers.PreTrainedModel:
    config = transformers.Emu3Config(
        text_config=LLAMA | {"pad_token_id": 0}, vq_config=made.EMU3, vocabulary_map={"<image>": 5}
    )
    model = transformers.Emu3ForConditionalGeneration(config)
    model.model.vqmodel.load_state_dict(made.emu3().state_dict())
    return model


def whole_janus() -> transformers.PreTrainedModel:
    vision = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 24,
        "patch_size": 4, "projection_dim": 32,
    }  # fmt: skip
    config = transformers.JanusConfig(
        text_config=LLAMA, vision_config=vision,
        vq_config=made.JANUS | {"projection_dim": 32, "image_token_embed_dim": 32},
    )  # fmt: skip
    model = transformers.JanusForConditionalGeneration(config)
    model.model.vqmodel.load_state_dict(made.janus().state_dict())
    return model


WHOLE = {
    "chameleon": (whole_chameleon, made.chameleon),
    "emu3": (whole_emu3, made.emu3),
    "janus": (whole_janus, made.janus),
}


@pytest.mark.parametrize("family", WHOLE)
def test_a_whole_model_holds_the_tokenizer_that_stands_alone(family: str, tmp_path: Path) -> None:
    whole, alone = WHOLE[family]
    whole().save_pretrained(tmp_path / "whole", max_shard_size="100KB")
    alone().save_pretrained(tmp_path / "alone")
    assert len([*(tmp_path / "whole").glob("*.safetensors")]) > 3
    (tmp_path / "whole" / "tokenizer.json").write_text("{}")  # that of its text
    found = [load_tokenizer(tmp_path / name) for name in ("whole", "alone")]
    assert found[0].hash == found[1].hash
    assert found[0].config == found[1].config
    wanted = tokenizer_config(tmp_path / "whole")
    assert wanted is not None and wanted.num_codes == 96
    codec = find_tokenizer(tmp_path / "whole")
    assert codec.canvas == {"chameleon": (32, 32), "janus": (24, 24), "emu3": (512, 512)}[family]


def test_files_of_the_language_model_are_not_needed(tmp_path: Path) -> None:
    whole_chameleon().save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for name, file in index.items() if ".vqmodel." in name}
    (spare, *_) = sorted(set(index.values()) - needed)
    (tmp_path / spare).unlink()
    assert read_image_tokenizer(tmp_path).num_codes == 96
    (tmp_path / min(needed)).unlink()
    with pytest.raises(CheckpointError, match="fetch it again"):
        read_image_tokenizer(tmp_path)


def test_the_hubs_cache_is_used_for_an_id(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "models--somebody--small"
    made.emu3().save_pretrained(home / "snapshots" / ("0" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    found = find_tokenizer(Path("somebody/small"))
    assert found.tokenizer.hash == read_image_tokenizer(home / "snapshots" / ("0" * 40)).hash
    with pytest.raises(ValueError, match="the hub did not give it"):
        find_tokenizer(Path("somebody/else"))
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match="there is no such directory"):
        find_tokenizer(Path("runs/tokenizer"))  # a path that is not there is no id


def test_old_and_half_precision_names(tmp_path: Path) -> None:
    """Emu3's older files say `vqmodel.`, and weights may be bfloat16."""
    whole_emu3().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    wanted = read_image_tokenizer(tmp_path)
    stored = {name.removeprefix("model."): t for name, t in load_file(path).items()}
    save_file(stored, path)
    assert read_image_tokenizer(tmp_path).hash == wanted.hash
    save_file(
        {name: t.bfloat16() if t.is_floating_point() else t for name, t in stored.items()}, path
    )
    found = read_image_tokenizer(tmp_path)
    assert {p.dtype for p in found.state_dict().values()} == {torch.float32}
    assert found.hash != wanted.hash


def authors_emu3(folder: Path) -> None:
    """Write Emu3's own repository of the tokenizer: other names in config and weights."""
    made.emu3().save_pretrained(folder)
    config = {
        "model_type": "Emu3VisionVQ", "auto_map": {}, "architectures": ["Emu3VisionVQModel"],
        "codebook_size": 96, "embed_dim": 4, "z_channels": 4, "double_z": False, "in_channels": 3,
        "out_channels": 3, "temporal_downsample_factor": 4, "ch": 32, "ch_mult": [1, 1, 2],
        "num_res_blocks": 1, "attn_resolutions": [2], "dropout": 0.0, "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    stored = read_image_tokenizer(folder).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in stored.items()},
              folder / "model.safetensors")  # fmt: skip


def test_emu3s_own_files(tmp_path: Path) -> None:
    made.emu3().save_pretrained(tmp_path / "hf")
    authors_emu3(tmp_path / "authors")
    names = load_file(tmp_path / "authors" / "model.safetensors")
    assert {"encoder.down.2.attn.0.q.weight", "decoder.mid.attn_1.norm.conv_y.weight"} <= set(names)
    found = [load_tokenizer(tmp_path / name) for name in ("hf", "authors")]
    assert found[0].hash == found[1].hash


def test_taming_counts_levels_from_the_finest_and_janus_from_the_coarsest(tmp_path: Path) -> None:
    """Anole's decoder has taming's names: the same weights, renamed, give the same pixels."""
    made.janus(embed_dim=8).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    janus = read_image_tokenizer(tmp_path)
    state = {
        name.replace(".up.0.", ".up.9.").replace(".up.2.", ".up.0.").replace(".up.9.", ".up.2."): t
        for name, t in load_file(path).items()
    }
    # A codebook of vectors of length one, which Chameleon's rule leaves as they are.
    state["quantize.embedding.weight"] = janus.quantize.table_VD
    state["loss.discriminator.weight"] = torch.zeros(3)
    save_file(state, path)
    config = made.CHAMELEON | {"attn_resolutions": [8], "model_type": "chameleon_vqgan"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    anole = read_image_tokenizer(tmp_path)
    assert anole.decodes and isinstance(anole, Vqgan) and not anole.config.is_normalised
    codes = torch.arange(24)[None, :, None]
    assert torch.equal(anole.decode(codes, Grid(4, 6)), janus.decode(codes, Grid(4, 6)))
    assert anole.hash != janus.hash


def changed(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gemma2"}, "model_type 'gemma2' has no known image tokenizer: one of cham"),
        ({"quantizer_type": "ibq"}, "quantizer_type 'ibq' is not understood"),
        ({"double_latent": True}, "double_latent True: only False is supported"),
        ({"num_attention_heads": 2}, "num_attention_heads 2: only 1 is supported"),
        ({"hidden_size": 48}, "hidden_size 48: the last level has 64 channels"),
        ({"temporal_downsample_factor": 3}, "num_frames 3: a power of two"),
        ({"base_channels": "many"}, "it is not understood"),
        ({"channel_multiplier": []}, "it is not understood|multiple of 32"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(tmp_path: Path, values, message: str) -> None:
    made.emu3().save_pretrained(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()  # the configuration is read first
    read_image_config(tmp_path)
    changed(tmp_path, **values)
    with pytest.raises(CheckpointError, match=message):
        read_image_tokenizer(tmp_path)


def test_attention_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    made.chameleon().save_pretrained(tmp_path)
    changed(tmp_path, attn_type="linear", conv_shortcut=True)
    with pytest.raises(CheckpointError, match="attn_type 'linear'") as caught:
        read_image_tokenizer(tmp_path)
    assert len(caught.value.problems) == 2


def test_an_encoder_without_attention(tmp_path: Path) -> None:
    model = made.chameleon(attn_type="none")
    model.save_pretrained(tmp_path)
    images = made.images(16, 24)
    with torch.no_grad():
        wanted = model.encode(images).image_tokens
    assert torch.equal(read_image_tokenizer(tmp_path).encode(images)[0].flatten(), wanted)


def test_weights_that_do_not_fit_or_are_damaged(tmp_path: Path) -> None:
    made.janus().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    stored = load_file(path)
    save_file(stored | {"encoder.extra.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"no place: encoder\.extra\.weight"):
        read_image_tokenizer(tmp_path)
    save_file(stored | {"quant_conv.bias": torch.full((4,), torch.nan)}, path)
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias holds numbers that are not fin"):
        read_image_tokenizer(tmp_path)
    save_file(stored | {"quant_conv.bias": torch.zeros(4, dtype=torch.int8)}, path)
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias is I8"):
        read_image_tokenizer(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_image_tokenizer(tmp_path)


def test_pickles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    made.janus().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    way_out = "no pickle is ever read: take a copy with safetensors, or convert it once with"
    with pytest.raises(ValueError, match=rf"pickled \(pytorch_model\.bin\), and {way_out}"):
        find_tokenizer(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "vqgan.ckpt")
    for place in (tmp_path, tmp_path / "vqgan.ckpt"):  # as they lie beside Anole and Lumina
        with pytest.raises(ValueError, match=rf"pickled \(vqgan\.ckpt\), and {way_out}"):
            load_tokenizer(place)


def test_documents_are_encoded_size_by_size(tmp_path: Path) -> None:
    """Images of a document that are of unlike size have the codes that each has alone."""
    made.emu3().save_pretrained(tmp_path)
    codec = ImageCodec(load_tokenizer(tmp_path))
    draw = np.random.default_rng(0).integers
    images = [Image(draw(0, 256, (*size, 3), np.uint8)) for size in ((16, 24), (24, 16), (16, 24))]
    together = codec.encode(images)
    for image, encoded in zip(images, together, strict=True):
        (alone,) = codec.encode([image])
        assert encoded.grid == alone.grid
        assert np.array_equal(encoded.codes, alone.codes)
