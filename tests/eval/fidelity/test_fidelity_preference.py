"""`eval preference`: PickScore by its formula on a small random CLIP, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image as PILImage

from unimodal.command import main
from unimodal.eval.fidelity.preference import PickScore
from unimodal.eval.fidelity.prompted import prompted_images
from unimodal.eval.geneval.folder import DRAWN
from unimodal.eval.predictions import PredictionsFile

PROMPTS = ("a red dog", "two green cats")


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP with its processor, as `yuvalkirstain/PickScore_v1` is laid out."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import (
        CLIPConfig,
        CLIPImageProcessorPil,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
    )

    path = tmp_path_factory.mktemp("models") / "tiny-pick"
    torch.manual_seed(0)
    width = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text = width | {"num_attention_heads": 2, "vocab_size": 12, "eos_token_id": 1}
    vision = width | {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        path
    )
    words = ["<pad>", "<end>", "<unk>", "a", "red", "dog", "two", "green", "cats"]
    table = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    table.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    size = {"height": 16, "width": 16}
    CLIPProcessor(CLIPImageProcessorPil(size=size, crop_size=size), tokenizer).save_pretrained(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of two prompts, named as T2I-CompBench names them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "drawn"
    folder.mkdir()
    for prompt, sample in ((PROMPTS[0], 0), (PROMPTS[0], 1), (PROMPTS[1], 0)):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        PILImage.fromarray(pixels).save(folder / f"{prompt}_{sample:06d}.png")
    return folder


def test_pick_score_by_its_formula(clip: Path, images: Path) -> None:
    """exp(t) E_text(x) . E_image(y) of unit vectors (arXiv:2305.01569, eq. 1), written out."""
    from transformers import AutoProcessor, CLIPModel

    model, processor = CLIPModel.from_pretrained(clip).eval(), AutoProcessor.from_pretrained(clip)
    scorer = PickScore(clip)
    for one in prompted_images(images):
        pixels = PILImage.fromarray(one.picture.open()[0])
        inputs = processor(text=one.prompt, images=pixels, return_tensors="pt")
        with torch.no_grad():
            pooled = model.vision_model(inputs["pixel_values"]).pooler_output
            image = model.visual_projection(pooled)[0]
            text = model.text_projection(model.text_model(inputs["input_ids"]).pooler_output)[0]
            cosine = float(image @ text / (image.norm() * text.norm()))
            scale = float(model.logit_scale.exp())
        found = scorer.score(one.prompt, pixels)
        assert found["cosine"] == pytest.approx(cosine, abs=1e-6) and abs(cosine) > 1e-3
        assert found["score"] == pytest.approx(scale * cosine, abs=1e-4)


def test_scores_of_a_folder(clip: Path, images: Path, tmp_path: Path) -> None:
    """Prompts count once each, however many images they have; a JSON file gives the same."""
    out = tmp_path / "scores.json"
    with PredictionsFile(images / DRAWN, {"model": "a" * 64}):
        pass  # the images are there already
    done = command("eval", "preference", images, "--weights", clip, "--json", out)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    told = ("drawing_model", "device", "precision", "training_overlap")
    assert [found["recipe"][name] for name in told] == ["a" * 64, "cpu", "float32", "not checked"]
    rows = found["predictions"]
    assert [one["prompt"] for one in rows] == [PROMPTS[0], PROMPTS[0], PROMPTS[1]]
    value = ((rows[0]["score"] + rows[1]["score"]) / 2 + rows[2]["score"]) / 2
    block = found["scores"]["pickscore_tiny-pick_n3"]
    assert block["score"]["value"] == pytest.approx(value) and block["score"]["n"] == 2
    named = tmp_path / "named.json"
    named.write_text(json.dumps({PROMPTS[1]: f"drawn/{PROMPTS[1]}_000000.png"}))
    done = command("eval", "preference", named, "--weights", clip, "--json", out)
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["predictions"][0]["score"] == rows[2]["score"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.png", "http://10.0.0.1/x.png", "none.png"])
def test_images_that_are_elsewhere_are_refused(name: str, tmp_path: Path, clip: Path) -> None:
    named = tmp_path / "named.json"
    named.write_text(json.dumps({"a dog": name}))
    done = command("eval", "preference", named, "--weights", clip)
    assert done.exit_code == 2 and "1 of 1 images cannot be used" in done.output


def test_what_cannot_be_had_is_named(
    images: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("hpsv2", "ImageReward"):
        monkeypatch.setitem(sys.modules, package, None)
    words = ("eval", "preference", images)
    none = command(*words, "--weights", tmp_path)
    assert none.exit_code == 2 and "download yuvalkirstain/PickScore_v1" in none.output
    other = command(*words, "--by", "hpsv2", "--weights", tmp_path / "HPS_v2.1_compressed.pt")
    assert other.exit_code == 2 and "there is no such file of weights" in other.output
    torch.save({"state_dict": {}}, tmp_path / "HPS_v2.1_compressed.pt")
    other = command(*words, "--by", "hpsv2", "--weights", tmp_path / "HPS_v2.1_compressed.pt")
    assert other.exit_code == 2 and "needs the package hpsv2" in other.output
    (tmp_path / "med_config.json").write_text("{}")
    torch.save({}, tmp_path / "ImageReward.pt")
    other = command(*words, "--by", "imagereward", "--weights", tmp_path)
    assert other.exit_code == 2 and "needs the package image-reward" in other.output
    extra = command(*words, "--by", "hpsv2", "--weights", clip, "--processor", clip)
    assert extra.exit_code == 2 and "--processor is of pickscore" in extra.output
    (images / "unnamed.png").write_bytes((images / f"{PROMPTS[1]}_000000.png").read_bytes())
    unnamed = command(*words, "--weights", clip)
    assert unnamed.exit_code == 2 and "does not say its prompt" in unnamed.output
