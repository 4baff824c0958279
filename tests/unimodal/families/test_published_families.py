"""What is taken as a published model, what is refused before a weight is read, and chat with it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import real_weights
import torch
from click.testing import CliRunner
from PIL import Image as PILImage
from published_families import change
from safetensors.torch import load_file, save_file

import unimodal
from unimodal import placing
from unimodal.attention import DenseAttention
from unimodal.branches import BranchInput
from unimodal.bundle import BundleError
from unimodal.command import main
from unimodal.families import emu3, published
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid

# --- loading ------------------------------------------------------------------------------------


def test_what_is_a_published_model(directories: dict[str, Path], tmp_path: Path):
    assert published.is_published(directories["emu3"])
    assert published.is_published("deepseek-community/Janus-Pro-1B")
    assert not published.is_published("runs/mine/bundle")
    assert not published.is_published(tmp_path) and not published.is_published("default")
    (tmp_path / "here").mkdir()
    assert not published.is_published(tmp_path / "here" / "nothing")


def test_hash_and_card(models: dict[str, Model], directories: dict[str, Path]):
    assert len({model.hash for model in models.values()}) == len(models)
    assert unimodal.load(directories["janus"]).hash == models["janus"].hash
    assert models["janus"].card["licence"] == "mit"


def test_old_buffers_are_no_weights(copied: Path, models: dict[str, Model]):
    tensors = load_file(copied / "model.safetensors")
    tensors["model.vision_model.embeddings.position_ids"] = torch.arange(36)[None]
    tensors["model.language_model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, copied / "model.safetensors")
    found = unimodal.load(copied).transformer.state_dict()
    assert found.keys() == models["janus"].transformer.state_dict().keys()


@pytest.mark.parametrize(
    "said, licence",
    [("license: other\nlicense_name: chameleon\n", "chameleon"), ("license: 'mit'\n", "mit"),
     ("", "not said")],
)  # fmt: skip
def test_the_licence_is_that_of_the_readme(copied: Path, said: str, licence: str):
    (copied / "README.md").write_text(f"---\n{said}---\n")
    assert published.look_at(str(copied))[1].licence == licence


def test_other_pixels_than_the_authors_are_refused(directories: dict[str, Path], tmp_path: Path):
    copy = Path(shutil.copytree(directories["emu3"], tmp_path / "copy"))
    path = copy / "processor_config.json"
    said = json.loads(path.read_text())
    change(path, image_processor=said["image_processor"] | {"image_mean": [0.48, 0.46, 0.41]})
    with pytest.raises(BundleError, match="processor_config.json: image_mean .*the authors' is"):
        unimodal.load(copy)


def test_sizes_that_cannot_be_drawn(models: dict[str, Model]):
    """Each is refused with what would do, before anything is drawn."""
    for name, size, said in (
        (
            "lumina",
            (48, 64),
            "size 48x64: .*whole multiples of 2, from 2 to 128; a code has 16 x 16",
        ),
        ("emu3", (13, 20), "13 x 20 pixels: both sides must be multiples of 4"),
        ("janus", (48, 48), "size 48x48: this model draws 24x24"),
    ):
        with pytest.raises(ValueError, match=said):
            unimodal.Chat(models[name], size=size)
    for name, size, tokens in (("emu3", (640, 640), "25,803"), ("lumina", (2048, 2048), "16,548")):
        chat = unimodal.Chat(models[name], size=size)
        said = f"a reply needs up to {tokens} of the model's .* ask for a smaller image"
        with pytest.raises(ValueError, match=said):
            chat("a dog", modality="image")


def test_a_dtype_is_that_of_the_transformer_alone(directories: dict[str, Path]):
    model = unimodal.load(directories["janus"], dtype="bfloat16")
    assert {one.dtype for one in model.transformer.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in model.image_tokenizer.parameters()} == {torch.float32}
    chat = unimodal.Chat(model, max_text_tokens=4)
    (image,) = chat("a dog", modality="image").images
    assert chat("what is this?", images=[image]).end in ("stop", "text budget")
    with pytest.raises(BundleError, match="dtype int8: one of float32, float16, bfloat16"):
        unimodal.load(directories["janus"], dtype="int8")
    with pytest.raises(ValueError, match="a bundle is float32"):
        unimodal.load("default", dtype="bfloat16")


@torch.inference_mode()
def hidden_vectors(model: Model) -> torch.Tensor:
    """What a model makes of the first forty ids."""
    ids_1T = torch.arange(40)[None]
    tokens = BranchInput(ids_1T, torch.zeros(1, 40, 2, dtype=torch.int64), [()])
    attend = DenseAttention(torch.ones(40, 40, dtype=torch.bool).tril()[None])
    return model.transformer.hidden_states(tokens, ids_1T, attend)


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="needs VNNI")
@pytest.mark.parametrize("name", ["janus", "anole"])
def test_layers_in_8_bits(directories: dict[str, Path], models: dict[str, Model], name: str):
    """Hidden vectors stay near those of float32; images are drawn and seen."""
    model = unimodal.load(directories[name], weights="int8")
    assert model.weights == "int8"
    chat = unimodal.Chat(model, max_text_tokens=4)
    (image,) = chat("a dog", modality="image").images
    assert chat("what is this?", [image], "text").end in ("stop", "text budget")
    found, expected = hidden_vectors(model), hidden_vectors(models[name])
    assert 0 < (found - expected).norm() / expected.norm() < 0.1
    with pytest.raises(ValueError, match="made of float32, not of bfloat16"):
        unimodal.load(directories[name], weights="int8", dtype="bfloat16")


@pytest.mark.parametrize("name", ["janus", "anole"])
def test_layers_on_two_devices(directories: dict[str, Path], models: dict[str, Model], name: str):
    """Hidden vectors are those of one device; images are drawn and seen."""
    model = unimodal.load(directories[name], "cpu:0,cpu:1")
    assert model.transformer.placement is not None
    assert len(set(model.transformer.layer_devices)) == 2
    chat = unimodal.Chat(model, max_text_tokens=4)
    (image,) = chat("a dog", modality="image").images
    assert chat("what is this?", [image], "text").end in ("stop", "text budget")
    found, expected = hidden_vectors(model), hidden_vectors(models[name])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_memory_is_looked_at_before_weights_are_read(copied: Path, monkeypatch: pytest.MonkeyPatch):
    (copied / "model.safetensors").write_bytes(b"weights that cannot be read")
    monkeypatch.setattr(placing, "free_bytes", lambda device: 10_000)
    with pytest.raises(BundleError) as refused:
        unimodal.load(copied)
    assert re.search(
        r"its weights take 0\.0 GB as float32, and 0\.0 GB are free on cpu", str(refused.value)
    )
    assert "dtype bfloat16 takes half as much" in str(refused.value)
    assert "licence: mit" in str(refused.value)


def test_what_config_says_is_refused_before_weights_are_read(copied: Path):
    (copied / "model.safetensors").write_bytes(b"weights that cannot be read")
    raw = json.loads((copied / "config.json").read_text())
    change(copied / "config.json", vision_config=raw["vision_config"] | {"use_qk_norm": True})
    with pytest.raises(
        BundleError, match="vision_config.use_qk_norm True: only False.*licence: mit"
    ):
        unimodal.load(copied)
    for kind, said in (("multi_modality", "take deepseek-community/Janus-Pro-1B"), ("t5", "'t5'")):
        change(copied / "config.json", model_type=kind)
        with pytest.raises(BundleError, match=said):
            unimodal.load(copied)


def test_a_tokenizer_without_a_mark_is_refused(copied: Path):
    path = copied / "tokenizer.json"
    path.write_text(path.read_text().replace("<end_of_image>", "<other>"))
    with pytest.raises(BundleError, match="tokenizer.json: it lacks the special tokens <end_of_im"):
        unimodal.load(copied)


def test_pickles_are_never_read(copied: Path):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(BundleError, match="pytorch_model.bin.*no pickle is ever read"):
        unimodal.load(copied)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda t: t.pop("lm_head.weight") is None, "has shape|missing|lm_head"),
        (lambda t: t.pop("model.aligner.fc1.bias"), "missing: tower.projector.first.bias"),
        (lambda t: t.update({"model.more": torch.ones(2)}), "no place in this family: model.more"),
        (
            lambda t: t.update({"model.aligner.fc1.bias": torch.full((32,), torch.nan)}),
            "model.aligner.fc1.bias holds numbers that are not finite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(copied: Path, damage, said: str):
    tensors = load_file(copied / "model.safetensors")
    damage(tensors)
    save_file(tensors, copied / "model.safetensors")
    if "lm_head.weight" not in tensors:  # is tied then, whatever a flag says
        assert unimodal.load(copied).transformer.config.tied_head
        return
    with pytest.raises(BundleError, match=said):
        unimodal.load(copied)


# --- the command --------------------------------------------------------------------------------


def run(*words: object) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_draws_and_answers(directories: dict[str, Path], tmp_path: Path):
    drawing = tmp_path / "dog.png"
    said = run(
        "chat", directories["janus"], "--prompt", "a dog", "--draw", "--output", drawing, "--json"
    )
    assert json.loads(said.splitlines()[-1])["images"] == [str(drawing)]
    assert PILImage.open(drawing).size == (24, 24)
    said = run(
        "chat", "--model", directories["chat"], "--prompt", "what?", "--image", drawing, "--json"
    )
    assert json.loads(said.splitlines()[-1])["images"] == []


def test_the_command_names_what_cannot_be(directories: dict[str, Path]):
    for words, said in (
        (["chat", directories["chat"], "--prompt", "a dog", "--draw"], "answers in words alone"),
        (["chat", "a/b", "--model", "c/d"], "two models: a/b and --model c/d"),
        (["chat", "--draw"], "--draw is for one request"),
        (["chat", directories["chat"], "--device", "tpu", "--prompt", "x"], "--device tpu"),
    ):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 2 and said in done.output, done.output


@pytest.mark.parametrize("name", ["emu3", "janus", "chameleon"])
def test_the_script_for_real_weights_runs(
    directories: dict[str, Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    """Here on weights of which most of the facts do not hold, and it says so."""
    monkeypatch.setattr(emu3, "DRAWN", Grid(2, 3))
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    PILImage.fromarray(noise).save(photo)
    weights = "int8" if torch.cpu._is_vnni_supported() and name == "chameleon" else "fp32"
    report = real_weights.examined(
        str(directories[name]), "cpu:0,cpu:1", None, weights, photo, tmp_path / "out"
    )
    assert report["weights_as"] == weights and sum(report["layers"].values()) > 1
    assert json.loads(json.dumps(report)) == report and not all(report["facts"].values())
    assert ("drew" in report) == (name != "chameleon") and "says" in report
    assert any("smallest angle" in fact for fact in report["facts"]) == (name == "janus")
    if name == "janus":
        assert report["facts"]["the head is not tied"]
