"""The command's own verbs, and errors as a user meets them."""

import errno
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.numpy import load_file, save_file

from unimodal import bundle
from unimodal.command import _message, main
from unimodal.model import Model
from unimodal.tokenizer.pixels import to_tensor


@pytest.fixture
def model(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """What every --model gives."""
    monkeypatch.setattr(bundle, "load", lambda path: tiny_model)
    return tiny_model


@pytest.fixture
def image(tmp_path: Path, model: Model) -> Path:
    """An image of the model's own size."""
    width, height = model.canvas
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels_HWC).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(*words: object) -> str:
    """The message of a command that must end with exit code 2 and one line of error."""
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_encode_and_decode(model: Model, image: Path, tmp_path: Path, suffix: str):
    codes = tmp_path / f"codes{suffix}"
    assert invoke("encode", image, "--output", codes).output == f"{codes}\n"
    result = invoke("decode", codes, "--output", tmp_path / "out")
    assert result.output == f"{tmp_path / 'out' / 'noise.png'}\n"
    image_BCHW = to_tensor([Image.open(image)])
    expected_BCHW = model.image_tokenizer.decode(*model.image_tokenizer.encode(image_BCHW))
    decoded_BCHW = to_tensor([Image.open(tmp_path / "out" / "noise.png")])
    assert torch.allclose(decoded_BCHW, expected_BCHW, atol=0.5 / 127.5 + 1e-6)


def test_the_codes_are_the_tokenizers(model: Model, image: Path, tmp_path: Path):
    invoke("encode", image, "--output", tmp_path / "a.safetensors")
    invoke("encode", image, "--output", tmp_path / "a.json")
    codes_1n1, grid = model.image_tokenizer.encode(to_tensor([Image.open(image)]))
    expected_hw = codes_1n1.reshape(grid.height, grid.width).numpy()
    table_hw = load_file(tmp_path / "a.safetensors")["noise.png"]
    assert table_hw.dtype == np.int32 and (table_hw == expected_hw).all()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content == {
        "tokenizer": model.image_tokenizer.hash,
        "images": {"noise.png": expected_hw.tolist()},
    }


def test_a_size_and_images_of_one_name(model: Model, image: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    Image.new("L", (50, 50), 128).save(tmp_path / "other" / "noise.png")
    images = [image, tmp_path / "other" / "noise.png"]
    result = invoke("encode", *images, "--output", tmp_path / "a.json", "--size", 32, 16)
    assert "other/noise.png: grey converted to RGB" in result.stderr.replace(str(tmp_path), "")
    assert "resized and cropped from 50 x 50 to 32 x 16 pixels" in result.stderr
    tables = json.loads((tmp_path / "a.json").read_text())["images"]
    assert {name: np.shape(table) for name, table in tables.items()} == {
        "noise.png": (2, 4),
        "noise-2.png": (2, 4),
    }


def test_images_that_cannot_be_encoded(model: Model, image: Path, tmp_path: Path):
    output = tmp_path / "a.json"
    assert "there is no file" in refused("encode", tmp_path / "none.png", "--output", output)
    assert "ends in .safetensors or .json" in refused("encode", image, "--output", "a.png")
    message = refused("encode", image, "--output", output, "--size", 30, 16)
    assert "30 x 16" in message and "multiples of 8" in message
    assert not output.exists()


def test_codes_files_that_cannot_be_decoded(model: Model, tmp_path: Path):
    def write(name: str, content: object) -> Path:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / name

    def codes(table: object) -> dict:
        return {"tokenizer": model.image_tokenizer.hash, "images": {"a.png": table}}

    plain = tmp_path / "plain.safetensors"
    save_file({"a.png": np.zeros((2, 2), np.int32)}, plain)  # no hash
    for path, words in {
        tmp_path / "none.json": "No such file",
        tmp_path / "none.safetensors": "No such file",
        write("text.json", "hello"): "is not a codes file",
        write("text.safetensors", "hello"): "is not a codes file",
        write("list.json", [1]): "is not a codes file",
        plain: "is not a codes file",
        write("foreign.json", {**codes([[1]]), "tokenizer": "f" * 64}): "made by tokenizer ffff",
        write("ragged.json", codes([[1], [1, 2]])): "is not a codes file",
        write("half.json", codes([[0.5]])): "is not a table",
        write("empty.json", codes([])): "is not a table",
        write("large.json", codes([[64]])): "holds codes 64 to 64; they are 0 to 63",
        write("below.json", codes([[-1]])): "holds codes -1 to -1",
    }.items():
        assert words in refused("decode", path, "--output", tmp_path / "out"), path
    assert not (tmp_path / "out").exists()


def test_a_failed_write_keeps_the_older_file(model: Model, image: Path, small_disk: Path):
    output, filler = small_disk / "a.json", small_disk / "filler"
    output.write_text("older")
    with suppress(OSError):
        filler.write_bytes(b"x" * 64 * 1024)
    assert f"cannot write {output}: No space left" in refused("encode", image, "--output", output)
    assert output.read_text() == "older" and sorted(small_disk.iterdir()) == [output, filler]


def test_an_images_name_cannot_leave_the_directory(model: Model, tmp_path: Path):
    content = {
        "tokenizer": model.image_tokenizer.hash,
        "images": {"../../evil.jpg": [[1, 2], [3, 4]]},
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    result = invoke("decode", tmp_path / "a.json", "--output", tmp_path / "out" / "in")
    assert result.output == f"{tmp_path / 'out' / 'in' / 'evil.jpg.png'}\n"


def test_errors_are_one_line_unless_debugging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ("decode", "a.json", "--output", "out", "--model", tmp_path / "none")
    assert str(tmp_path / "none") in refused(*words)
    assert isinstance(invoke("--debug", *words).exception, ValueError)
    monkeypatch.setenv("UNIMODAL_DEBUG", "1")
    assert isinstance(invoke(*words).exception, ValueError)


def test_a_verb_that_is_not_there():
    result = invoke("dance")
    assert result.exit_code == 2 and "No such command 'dance'" in result.stderr


def test_an_option_that_is_called_otherwise_now():
    done = CliRunner().invoke(main, ["data", "inspect", "shards", "--row-length", "8"])
    assert done.exit_code == 2
    assert "--row-length: it is called --sequence-length now" in done.output
    for old, new in {"--picture": "--image", "--pictures": "--images"}.items():
        done = CliRunner().invoke(main, ["data", "convert", "photos", "shards", old, "name"])
        assert done.exit_code == 2 and f"{old}: it is called {new} now" in done.output
    done = CliRunner().invoke(main, ["chat", "--area", "8"])
    assert "No such option" in done.output and "is called" not in done.output


def test_errors_of_the_system_are_words():
    full = OSError(errno.ENOSPC, "No space left on device", "/disk/a")
    again = "; make room and run the same command again"
    assert _message(full) == f"/disk/a: No space left on device{again}"
    assert _message(FileNotFoundError(errno.ENOENT, "No such file", "b")) == "b: No such file"
    assert _message(OSError("as it is")) == "as it is"
