"""Tiny vision models as Hugging Face stores them, with random weights, and images to give them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unimodal.sequence import Span
from unimodal.tower import Tower, TowerNetwork

MEAN, STD = [0.3, 0.4, 0.5], [0.2, 0.25, 0.3]
SIDE, PATCH, WIDTH = 32, 8, 24
SHAPE = {
    "hidden_size": WIDTH, "intermediate_size": 40, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 50}  # fmt: skip
SQUARE = {"size": {"height": SIDE, "width": SIDE}, "resample": 3}
CROPPED = {"do_center_crop": True, "size": {"shortest_edge": 40}, "resample": 2,
           "crop_size": {"height": SIDE, "width": SIDE}}  # fmt: skip


# A tower of random weights for a model that is made in memory.
SMALL = Tower(
    TowerNetwork("dinov2", 16, 8, 2, 2, 24, stored_side=2), 16, tuple(MEAN), tuple(STD)
)  # fmt: skip


def given_spans(step: int, rows: int) -> tuple[tuple[Span, ...], ...]:
    """Return spans of images that are given in the second half of the rows, none or two a row."""
    views = iter(images(2 * rows, step, (SMALL.side, SMALL.side)))

    def of_row(row: int) -> tuple[Span, ...]:
        if row < rows // 2 or row % 2 == step % 2:
            return ()
        return tuple(Span(at, at + 4, SMALL.grid, pixels=next(views)) for at in (1, 21))

    return tuple(map(of_row, range(rows)))


def vision_model(kind: str) -> Any:
    """Return a model of random weights, norms and biases included."""
    import transformers as hf

    torch.manual_seed(len(kind))
    dino = {name: value for name, value in SHAPE.items() if name != "intermediate_size"}
    made: Any = {
        "siglip": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**SHAPE)),
        "siglip with text": lambda: hf.SiglipModel(
            hf.SiglipConfig(text_config=TEXT, vision_config=SHAPE)
        ),
        "clip": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**SHAPE)),
        "clip with text": lambda: hf.CLIPModel(
            hf.CLIPConfig(text_config=TEXT, vision_config=SHAPE)
        ),
        "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**dino, mlp_ratio=2)),
        "dinov2 gated": lambda: hf.Dinov2Model(
            hf.Dinov2Config(**dino, mlp_ratio=2, use_swiglu_ffn=True)
        ),
    }[kind]()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return made.eval()


def write_tower(folder: Path, kind: str = "siglip", **about: Any) -> Path:
    """Write a vision model and its preprocessing, and return its folder."""
    vision_model(kind).save_pretrained(folder)
    write_preprocessing(folder, **(about or SQUARE))
    return folder


def write_preprocessing(folder: Path, **about: Any) -> None:
    """Write a preprocessor_config.json."""
    said = {"image_mean": MEAN, "image_std": STD, **about}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))


def images(number: int, seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> list[np.ndarray]:
    """Return images of random pixels, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(number)]


def vision_part(model: nn.Module) -> Any:
    """Return the vision model of one that may have a text model beside it."""
    return getattr(model, "vision_model", model)
