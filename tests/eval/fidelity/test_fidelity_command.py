"""`eval fidelity` and `eval copies`: folders and shards, as tiny Hugging Face models see them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones import write_backbone
from click.testing import CliRunner, Result
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file

from unimodal.command import main
from unimodal.data.shards import ShardWriter
from unimodal.document import Document, Image
from unimodal.eval.fidelity.embedder import features_of, load
from unimodal.eval.fidelity.images import ImageSet
from unimodal.eval.fidelity.prompted import prompted_images
from unimodal.eval.geneval.folder import DRAWN, sample_file, write_prompt
from unimodal.eval.geneval.prompts import Prompt, Wanted
from unimodal.eval.predictions import PredictionsFile
from unimodal.tokenizer.pixels import ImageError


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def drawn(seed: int, count: int, light: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 6, 5, 3)) * light
    return [one.astype(np.uint8).repeat(8, 0).repeat(8, 1) for one in small]


def folder(path: Path, images: list[np.ndarray]) -> Path:
    path.mkdir()
    for number, one in enumerate(images):
        PILImage.fromarray(one).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("models") / "tiny-convnext")


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "tiny-dinov2"
    config = Dinov2Config(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    Dinov2Model(config).save_pretrained(path)
    about = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(about))
    return path


def test_features_are_the_models_own(dinov2: Path, tmp_path: Path) -> None:
    """The class token behind the last norm, of the image as Pillow resizes it."""
    from transformers import AutoModel

    images = drawn(0, 3)
    found = features_of(load(str(dinov2), side=28), ImageSet.of(folder(tmp_path / "a", images)))
    small = [
        PILImage.fromarray(one).resize((28, 28), PILImage.Resampling.BICUBIC) for one in images
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(one) for one in small])).movedim(-1, 1) / 255
    with torch.no_grad():
        state = AutoModel.from_pretrained(dinov2).eval()((pixels - 0.5) / 0.5).last_hidden_state
    assert np.allclose(found.x_nC, state[:, 0].numpy(), atol=1e-5) and found.x_nC.std() > 0.1
    assert found.names == ("0.png", "1.png", "2.png")


def test_a_pooler_that_is_not_stored_is_not_used(tmp_path: Path) -> None:
    """It would be drawn anew in each run: the mean is taken, and the name says so."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=16, patch_size=8,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    about = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(about))
    first, second = (load(str(tmp_path / "vit"), side=16) for _ in range(2))
    assert first.name == "vit_mean_bicubic-16"
    assert torch.equal(first.look(drawn(0, 2)), second.look(drawn(0, 2)))
    with pytest.raises(ValueError, match="224 x 224 pixels .*give --resize 16"):
        load(str(tmp_path / "vit"))


def test_nearer_sets_have_smaller_distances(convnext: Path, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", drawn(0, 24))
    sides = {"alike": drawn(1, 20), "dark": drawn(2, 20, 0.2), "same": drawn(0, 24)}
    scores = {}
    for name, images in sides.items():
        out = tmp_path / f"{name}.json"
        done = command(
            "eval", "fidelity", photos, folder(tmp_path / name, images), "--backbone", convnext,
            "--resize", 32, "--json", out,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        found = json.loads(out.read_text())
        shared = 24 if name == "same" else 0
        assert found["recipe"]["images_in_both_sets"] == shared
        assert ("note: 24 images are in both sets" in done.output) == bool(shared)
        ((label, scores[name]),) = found["scores"].items()
        digest = found["recipe"]["reference"]
        assert (found["recipe"]["device"], found["recipe"]["precision"]) == ("cpu", "float32")
        wanted = f"tiny-convnext_pooled_bicubic-32_n{len(images)}_reference_photos-{digest[:8]}_n24"
        assert label == wanted and len(found["recipe"]["backbone_hash"]) == 64
    value = {name: {k: one["value"] for k, one in row.items()} for name, row in scores.items()}
    assert value["same"]["frechet"] == pytest.approx(0, abs=1e-9)
    assert value["alike"]["frechet"] < value["dark"]["frechet"] / 3
    assert value["alike"]["kid_x1000"] < value["dark"]["kid_x1000"]
    assert (value["same"]["precision"], value["same"]["recall"]) == (1, 1)
    assert value["dark"]["precision"] < value["alike"]["precision"]


def test_what_is_missing_is_named(convnext: Path, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", drawn(0, 6))
    nowhere = command("eval", "fidelity", photos, photos, "--backbone", tmp_path / "none")
    assert nowhere.exit_code == 2 and "cannot be had" in nowhere.output
    assert "efficientnet-lite0" in nowhere.output
    (tmp_path / "empty").mkdir()
    empty = command("eval", "fidelity", photos, tmp_path / "empty", "--backbone", convnext)
    assert empty.exit_code == 2 and "no images in" in empty.output
    (photos / "6.png").write_bytes((photos / "5.png").read_bytes()[:80])
    broken = command("eval", "fidelity", photos, photos, "--backbone", convnext, "--resize", 32)
    assert broken.exit_code == 2 and "6.png: the image is damaged" in " ".join(
        broken.output.split()
    )
    loose = command("eval", "fidelity", photos, photos, "--resize", 32, "--lpips-weights",
                    photos / "0.png", photos / "0.png")  # fmt: skip
    assert loose.exit_code == 2 and "--resize: of --backbone" in loose.output


@pytest.mark.parametrize("kind", ["geneval", "a file", "shards"])
def test_a_broken_image_is_named_with_its_folder(tmp_path: Path, kind: str) -> None:
    home, content = tmp_path / "home", b"\x89PNG\r\n\x1a\n cut"
    home.mkdir()
    name = {"geneval": "00000/0000", "a file": "a.png", "shards": "a.tar/k.png"}[kind]
    if kind == "geneval":
        write_prompt(home, 0, Prompt("single_object", (Wanted("cat", 1),), "a photo of a cat"))
        sample_file(home, 0, 0).write_bytes(content)
        with pytest.raises(ImageError, match=f"^{home}/{name}: "):
            prompted_images(home)[0].picture.open()
    elif kind == "a file":
        (home / name).write_bytes(content)
    else:
        with tarfile.open(home / "a.tar", "w") as tar:
            member = tarfile.TarInfo("k.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(ImageError, match=f"^{home}/{name}: "):
        ImageSet.of(home).pictures[0].open()


def test_copies_of_shards_are_found(convnext: Path, tmp_path: Path) -> None:
    known = drawn(0, 30)
    (tmp_path / "shards").mkdir()
    with ShardWriter(tmp_path / "shards") as writer:
        for number, pixels in enumerate(known):
            writer.write(f"{number:03d}", Document((Image(pixels),)))
    nearly = known[7].copy()
    nearly[:8, :8] //= 2
    mine = folder(tmp_path / "mine", [known[3], nearly, *drawn(5, 4)])
    out, sheet = tmp_path / "copies.json", tmp_path / "sheet.png"
    done = command(
        "eval", "copies", mine, tmp_path / "shards", "--backbone", convnext, "--resize", 32,
        "--neighbours", 10, "--json", out, "--contact-sheet", sheet,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    rows = found["predictions"]
    assert "/003." in rows[0]["nearest"] and rows[0]["identical"] and rows[0]["copy"]
    assert "/007." in rows[1]["nearest"] and rows[1]["copy"] and not rows[1]["identical"]
    assert [one["copy"] for one in rows[2:]] == [False] * 4
    ((label, scores),) = found["scores"].items()
    assert scores["copies"]["value"] == pytest.approx(2 / 6) and "alpha0.5_of_10_n6" in label
    assert found["recipe"]["num_training"] == 30
    assert PILImage.open(sheet).width > 200


def test_how_sides_were_drawn_is_told(convnext: Path, tmp_path: Path) -> None:
    ours, theirs = (folder(tmp_path / name, drawn(k, 12)) for k, name in enumerate("ab"))
    for side, model in ((ours, "a" * 64), (theirs, "b" * 64)):
        with PredictionsFile(side / DRAWN, {"model": model, "seed": 5}):
            pass  # the images are there already
    for verb, side in (("fidelity", "reference"), ("copies", "training")):
        sides = (theirs, ours) if verb == "fidelity" else (ours, theirs)
        few = ("--neighbours", 10) if verb == "copies" else ()
        out = tmp_path / f"{verb}.json"
        words = ("--backbone", convnext, "--resize", 32, "--json", out)
        done = command("eval", verb, *sides, *words, *few)
        assert done.exit_code == 0, done.output
        told = json.loads(out.read_text())["recipe"]
        assert (told["drawing_model"], told["drawing_seed"]) == ("a" * 64, 5)
        assert told[f"{side}_drawing_model"] == "b" * 64
        assert (told["device"], told["precision"]) == ("cpu", "float32")
        assert told.get("training_overlap") == (None if verb == "copies" else "not checked")


def test_a_model_that_sees_nothing_is_refused(tmp_path: Path) -> None:
    weights = write_backbone(tmp_path) / "model.safetensors"
    save_file({name: x * torch.nan for name, x in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match="not finite: its weights are damaged"):
        load(str(tmp_path), side=32)


def test_a_model_that_draws_at_random_is_refused(tmp_path: Path) -> None:
    from transformers import ViTMAEConfig, ViTMAEModel

    torch.manual_seed(0)
    config = ViTMAEConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=32, patch_size=4,
    )  # fmt: skip
    ViTMAEModel(config).save_pretrained(tmp_path)
    about = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="differently each time"):
        load(str(tmp_path), side=32)
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "mask_ratio": 0.0}))
    assert load(str(tmp_path), side=32).name.endswith("_mean_bicubic-32")
