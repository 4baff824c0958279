"""`eval fidelity`: LPIPS equal to torch-fidelity's, and folders of written reconstructions."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from tiny_tokenizers import of_patches

from unimodal.command import main
from unimodal.eval.lpips import STAGES, Lpips, _convolutions
from unimodal.tokenizer.autoencoder import ImageTokenizer

CONFIG = of_patches(levels=(4, 4, 4), encoder_width=8, decoder_width=8, num_blocks=1, pixel_width=4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, torch.Generator]:
    """Random weights in the two published files' shapes, and the generator after them."""
    folder, drawn = tmp_path_factory.mktemp("weights"), torch.Generator().manual_seed(0)
    vgg = {}
    for name, one in _convolutions():
        size = (2 / one.weight[0].numel()) ** 0.5
        vgg[f"features.{name}.weight"] = torch.randn(one.weight.shape, generator=drawn) * size
        vgg[f"features.{name}.bias"] = torch.randn(one.weight.shape[0], generator=drawn) * 0.1
    lines = {
        f"lin{at}.model.1.weight": torch.rand(1, stage[-1], 1, 1, generator=drawn)
        for at, stage in enumerate(STAGES)
    }
    for name, tensors in (("vgg.pth", vgg), ("linear.pth", lines)):
        torch.save(tensors, folder / name)
    return folder / "vgg.pth", folder / "linear.pth", drawn


def test_lpips_is_that_of_torch_fidelity(weights: tuple[Path, Path, torch.Generator]) -> None:
    """What SampleSimilarityLPIPS of torch-fidelity 0.4.0 gave with these weights and images."""
    vgg, linear, drawn = weights
    first, second = (torch.randint(0, 256, (2, 3, 48, 40), generator=drawn) for _ in range(2))
    lpips = Lpips(vgg, linear)
    found = lpips(first / 127.5 - 1, second / 127.5 - 1)
    assert found.tolist() == pytest.approx([0.7178548, 0.7134051], abs=1e-5)
    assert lpips(first / 127.5 - 1, first / 127.5 - 1).tolist() == [0, 0]


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_what_eval_tokenizer_writes_is_compared(
    weights: tuple[Path, Path, torch.Generator], tmp_path: Path
) -> None:
    photos, out, report = tmp_path / "photos", tmp_path / "out", tmp_path / "report.json"
    photos.mkdir()
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (16, 24, 3), dtype=np.uint8) for _ in range(3)]
    for number, one in enumerate(pixels):
        PILImage.fromarray(one).save(photos / f"{number}.png")
    ImageTokenizer(CONFIG).save(tmp_path)
    words = ("eval", "tokenizer", tmp_path, photos, "--reconstructions", out)
    done = command(*words)
    assert done.exit_code == 0, done.output
    names = ["000000.png", "000001.png", "000002.png"]
    for side in ("originals", "reconstructions"):
        assert sorted(file.name for file in (out / side).iterdir()) == names
    assert np.array_equal(np.asarray(PILImage.open(out / "originals" / names[1])), pixels[1])
    sides = (out / "originals", out / "reconstructions")
    done = command("eval", "fidelity", *sides, "--lpips-weights", *weights[:2], "--json", report)
    assert done.exit_code == 0, done.output
    found = json.loads(report.read_text())
    assert [one["name"] for one in found["predictions"]] == names
    values = [one["lpips"] for one in found["predictions"]]
    ((label, score),) = found["scores"].items()
    assert label == "lpips_vgg16_n3_reference_originals" and score["n"] == 3
    assert min(values) > 0 and score["value"] == pytest.approx(np.mean(values))
    again = command(*words)
    assert again.exit_code == 2 and "is not empty: give a new folder" in again.output
    (out / "originals" / "more.png").write_bytes(b"")
    done = command("eval", "fidelity", *sides, "--lpips-weights", *weights[:2])
    assert done.exit_code == 2 and "holds 4 images" in done.output
    assert "not in both: more.png" in done.output


def test_what_is_missing_is_named(
    weights: tuple[Path, Path, torch.Generator], tmp_path: Path
) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        PILImage.new("RGB", (16, 16)).save(tmp_path / side / "0.png")
    words = ("eval", "fidelity", tmp_path / "a", tmp_path / "b")
    vgg, linear, _ = weights
    swapped = command(*words, "--lpips-weights", linear, vgg)
    assert swapped.exit_code == 2 and "are no weights of LPIPS" in swapped.output
    text = tmp_path / "text.pth"
    text.write_text("words")
    other = command(*words, "--lpips-weights", text, linear)
    assert other.exit_code == 2 and "text.pth is no file of weights alone" in other.output
    assert "weights_only" not in other.output, "torch advises to run what else a file holds"


def test_rfid_without_its_extra_says_what_to_get(
    weights: tuple[Path, Path, torch.Generator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        PILImage.new("RGB", (16, 16)).save(tmp_path / side / "0.png")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    words = ("eval", "fidelity", tmp_path / "a", tmp_path / "b", "--inception-weights", weights[0])
    done = command(*words)
    assert done.exit_code == 2 and "FID and rFID need the extra `metrics`" in done.output
