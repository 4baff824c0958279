"""A tiny vision backbone as Hugging Face stores one, with random weights."""

import json
from pathlib import Path

import torch

MEAN, STD = [0.3, 0.4, 0.5], [0.2, 0.25, 0.3]
WIDTHS = [4, 8, 8, 12]


def write_backbone(folder: Path) -> Path:
    """Write a ConvNeXt of four stages and its normalisation, and return its folder."""
    from transformers import ConvNextConfig, ConvNextModel

    torch.manual_seed(0)
    ConvNextModel(ConvNextConfig(hidden_sizes=WIDTHS, depths=[1] * 4)).save_pretrained(folder)
    about = {"image_mean": MEAN, "image_std": STD, "image_processor_type": "ConvNextImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder
