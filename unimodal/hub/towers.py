"""Read the vision towers of published models: SigLIP, CLIP and DINOv2 of Hugging Face.

In: a directory or a hub id, of the vision model alone or of one with a text model beside it, or
`efficientnet-lite0`. Out: a Tower and its weights under our names; or one ValueError that says what
is wrong. Configuration and preprocessing are read first, and of a hub id fetched first. Nothing is
unpickled.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..claims import excess
from ..efficientnet import pretrained
from ..manifest import read_json
from ..tensors import (
    DTYPES,
    INDEX,
    PlannedTensor,
    StoredTensor,
    WeightsError,
    find_tensors,
    in_memory,
)
from ..tower import EFFICIENTNET, NETWORK, Kind, Tower, TowerNetwork
from ..tower_embedder import network_of
from .checkpoint import fetch, raw_config
from .pickles import missing_weights

KINDS: dict[str, Kind] = {
    "siglip_vision_model": "siglip",
    "clip_vision_model": "clip",
    "dinov2": "dinov2",
}
PREFIX = "vision_model."  # of the tower's weights in a model that has a text model too
EFFICIENTNET_SIDE = 224
PREPROCESSING = "preprocessor_config.json"
# Their names, without the prefix -> ours.
NAMES = {
    r"embeddings\.(?:class_embedding|cls_token)": "class_token",
    r"embeddings\.(?:position_embedding\.weight|position_embeddings)": "positions",
    r"embeddings\.(?:patch_embedding|patch_embeddings\.projection)\.(\w+)": r"patch.\1",
    r"pre_layrnorm\.(\w+)": r"pre_norm.\1",
    r"(?:post_layernorm|layernorm)\.(\w+)": r"norm.\1",
    r"encoder\.layers?\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)": r"layers.\1.attention.\2.\3",
    r"encoder\.layers?\.(\d+)\.attention\.attention\.(\w+)\.(\w+)": r"layers.\1.attention.\2.\3",
    r"encoder\.layers?\.(\d+)\.self_attn\.(?:out_proj|projection_layer)\.(\w+)":
        r"layers.\1.attention.output.\2",
    r"encoder\.layers?\.(\d+)\.attention\.output\.dense\.(\w+)": r"layers.\1.attention.output.\2",
    r"encoder\.layers?\.(\d+)\.(?:layer_)?norm([12])\.(\w+)": r"layers.\1.norm\2.\3",
    r"encoder\.layers?\.(\d+)\.layer_scale([12])\.lambda1": r"layers.\1.scale\2",
    r"encoder\.layers?\.(\d+)\.mlp\.(?:fc1|weights_in)\.(\w+)": r"layers.\1.mlp.fc1.\2",
    r"encoder\.layers?\.(\d+)\.mlp\.(?:fc2|weights_out)\.(\w+)": r"layers.\1.mlp.fc2.\2",
}  # fmt: skip
LETTERS = {".q.": ".query.", ".k.": ".key.", ".v.": ".value."}


@dataclass(frozen=True, eq=False)
class FoundTower:
    """A FoundTower is a tower and how its weights are written, by the model's own names."""

    tower: Tower
    weights: list[PlannedTensor]

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of the tower and its weights."""
        found = hashlib.sha256(repr(replace(self.tower, trained=False, codes=False)).encode())
        for tensor in self.weights:
            found.update(repr((tensor.name, tensor.dtype, tensor.shape)).encode())
            for chunk in tensor.chunks():
                found.update(chunk)
        return found.hexdigest()


def read_tower(source: str, layer: int | None = None, side: int | None = None) -> FoundTower:
    """Return the vision tower of a directory, a hub id, or `efficientnet-lite0`.

    layer: which hidden state is taken, counted from the last one, -1, as transformers does; None:
    the network's last one, with its final norm. Of EfficientNet: which of its five feature maps.
    side: pixels of a side of what it is given; None: what its preprocessing says.

    Raise ValueError where there is none, where it is of another kind, where it lacks its
    preprocessing or weights, and for a layer or a side that it does not have.
    """
    try:
        if source == EFFICIENTNET:
            return _efficientnet(layer, side)
        directory = fetch(source, ("config.json", PREPROCESSING))
        network = _network(directory, layer)
        tower = _tower(network, _preprocessing(directory), side)
        if problems := [*network.problems(), *tower.problems()]:
            raise ValueError("; ".join(problems))
        directory = fetch(source, ("config.json", PREPROCESSING, "*.safetensors", INDEX))
        return FoundTower(tower, list(_weights(directory, network)))
    except ValueError as error:
        raise ValueError(f"vision tower {source}: {error}") from error


def _efficientnet(layer: int | None, side: int | None) -> FoundTower:
    network, module = pretrained(-1 if layer is None else layer)
    # As its authors train it: (x - 127) / 128 of pixels in [0, 255].
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    tower = Tower(network, side or EFFICIENTNET_SIDE, mean, std)
    if problems := tower.problems():
        raise ValueError("; ".join(problems))
    named = ((name, one.detach()) for name, one in module.named_parameters())
    return FoundTower(tower, [in_memory(f"{NETWORK}{name}", one) for name, one in named])


# --- what is said of it -------------------------------------------------------------------------


def _network(directory: Path, layer: int | None) -> TowerNetwork:
    from transformers import AutoConfig

    if not (directory / "config.json").is_file():
        raise ValueError("there is no config.json: give the folder of a SigLIP, CLIP or DINOv2")
    path = directory / "config.json"
    if problem := excess(path, raw_config(path)):
        raise ValueError(f"config.json: {problem}")
    try:
        config: Any = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"config.json is of no known kind ({_first_line(error)})") from error
    vision = getattr(config, "vision_config", config)
    kind = KINDS.get(vision.model_type)
    if kind is None:
        is_text = vision is config and hasattr(config, "vocab_size")
        what = "a text model without a vision tower" if is_text else "of another kind"
        raise ValueError(
            f"it is {what}, {config.model_type}: take a SigLIP, CLIP or DINOv2, or {EFFICIENTNET}"
        )
    num_layers = _num_layers(vision.num_hidden_layers, layer)
    side, patch = _one(vision.image_size, "image_size"), _one(vision.patch_size, "patch_size")
    gated = bool(getattr(vision, "use_swiglu_ffn", False))
    mlp_width = getattr(vision, "intermediate_size", None)
    if mlp_width is None:  # DINOv2
        mlp_width = int(vision.hidden_size * vision.mlp_ratio)
        # Two thirds, rounded up to a multiple of 8, as transformers has it.
        mlp_width = (int(mlp_width * 2 / 3) + 7) // 8 * 8 if gated else mlp_width
    if vision.num_channels != 3:
        raise ValueError(f"num_channels {vision.num_channels}: images have 3")
    return TowerNetwork(
        kind,
        vision.hidden_size, patch, num_layers, vision.num_attention_heads, mlp_width,
        side // patch, vision.hidden_act, vision.layer_norm_eps, gated,
        bool(getattr(vision, "qkv_bias", True)),
        # CLIP's last norm is that of its pooled vector alone.
        layer is None and kind != "clip",
    )  # fmt: skip


def _num_layers(there: int, layer: int | None) -> int:
    """Return how many layers come before a hidden state; the first state is before any."""
    if layer is None:
        return there
    if not -there - 1 <= layer <= -1:
        raise ValueError(f"layer {layer}: it has {there} layers, so -1 to {-there - 1}")
    return there + 1 + layer


def _preprocessing(directory: Path) -> Mapping[str, Any]:
    path = directory / PREPROCESSING
    if not path.is_file():
        raise ValueError(
            f"there is no {PREPROCESSING}, which says the size, mean and std of its images: copy "
            "it there from the published model"
        )
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{PREPROCESSING} is no configuration")
    return found


def _tower(network: TowerNetwork, about: Mapping[str, Any], side: int | None) -> Tower:
    size, crop = about.get("size", {}), about.get("crop_size", {})
    size = {"shortest_edge": size} if isinstance(size, int) else size
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    shortest = size.get("shortest_edge")
    if about.get("do_center_crop") and shortest is not None:
        said = _square(crop, "crop_size")
    elif shortest is not None:
        raise ValueError(
            f"{PREPROCESSING} resizes the shorter side to {shortest} pixels and crops nothing; a "
            "tower is given squares: set do_center_crop and crop_size there"
        )
    else:
        said = _square(size, "size")
    side = said if side is None else side
    normalised, factor = about.get("do_normalize", True), about.get("rescale_factor", 1 / 255)
    mean = about.get("image_mean", (0.5,) * 3) if normalised else (0.0,) * 3
    std = about.get("image_std", (0.5,) * 3) if normalised else (1.0,) * 3
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(f"image_mean {mean} and image_std {std}: three numbers each")
    # x * factor of pixels in [0, 255] is a multiple of x / 255.
    mean, std = (tuple(value / (255 * factor) for value in one) for one in (mean, std))
    shortest = shortest if shortest is None else round(shortest * side / said)
    return Tower(network, side, mean, std, shortest, about.get("resample", 3))


def _square(sides: Mapping[str, Any], key: str) -> int:
    height, width = sides.get("height"), sides.get("width")
    if not isinstance(height, int) or height != width:
        raise ValueError(f"{key} {dict(sides)}: a square, as height and width in pixels")
    return height


def _one(value: Any, key: str) -> int:
    values = {*value} if isinstance(value, list | tuple) else {value}
    if len(values) != 1:
        raise ValueError(f"{key} {value}: a square")
    return int(values.pop())


# --- its weights --------------------------------------------------------------------------------


def _weights(directory: Path, network: TowerNetwork) -> Iterator[PlannedTensor]:
    """Yield the weights that the network takes. ValueError names those that are not there."""
    if problem := missing_weights(directory):
        raise ValueError(problem)
    try:
        stored = find_tensors(directory)
    except WeightsError as error:
        raise ValueError(str(error)) from error
    if any(name.startswith(PREFIX) for name in stored):
        stored = {
            name.removeprefix(PREFIX): one
            for name, one in stored.items()
            if name.startswith(PREFIX)
        }
    named = {name_of(name): place for name, place in stored.items()}
    with torch.device("meta"):
        wanted = {name: one.shape for name, one in network_of(network).named_parameters()}
    wrong = _wrong(wanted, named)
    if wrong:
        raise ValueError(f"its weights are not those of its config.json: {', '.join(wrong[:3])}")
    for name, shape in wanted.items():
        place = named[name]
        yield PlannedTensor(f"{NETWORK}{name}", place.dtype, tuple(shape), place.chunks)


def _wrong(wanted: Mapping[str, Iterable[int]], named: Mapping[str, StoredTensor]) -> list[str]:
    """Return what is wrong with each weight; theirs may have axes of length 1 before ours."""
    found = []
    for name, shape in wanted.items():
        if name not in named:
            found.append(f"{name} is missing")
        elif _without_ones(named[name].shape) != _without_ones(shape):
            found.append(f"{name} is {list(named[name].shape)} instead of {list(shape)}")
        elif named[name].dtype not in DTYPES:
            found.append(f"{name} is of dtype {named[name].dtype}: one of {', '.join(DTYPES)}")
    return found


def _without_ones(shape: Iterable[int]) -> list[int]:
    return [size for size in shape if size != 1]


def name_of(theirs: str) -> str:
    """Return our name, within the network, of a weight of a vision model in Hugging Face's form."""
    for pattern, ours in NAMES.items():
        if match := re.fullmatch(pattern, theirs):
            name = match.expand(ours)
            for letter, word in LETTERS.items():
                name = name.replace(f"attention{letter}", f"attention{word}")
            return name
    return theirs


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
