"""The colour of an object, as GenEval asks CLIP for it.

In: an image, boxes and masks of objects, their class. Out: one of the ten colours for each.

1. All but the object is painted grey (#999), and its box cut out.
2. The cut-out is made 224 x 224 pixels as open_clip does: bicubic, the shorter side first, centre.
3. A colour's text feature is the mean of three templates' features, each of length 1.
4. The nearest colour by cosine wins (100 times it, where a softmax is wanted; here only the order).

The official model is OpenAI's ViT-L/14: `openai/clip-vit-large-patch14` of the hub holds the same
weights. The official script runs it in half precision on a GPU; here it is float32. It has not yet
been run on the official weights.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from ..loading import quiet_loading
from .prompts import COLOURS

TEMPLATES = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)
GREY = (0x99, 0x99, 0x99)
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of OpenAI's CLIP, of pixels in [0, 1]
SCALE = (0.26862954, 0.26130258, 0.27577711)


class ClipColours:
    """Names colours with a CLIP of `transformers`, read from a folder."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load model and tokenizer; ValueError where the folder has none."""
        from transformers import CLIPModel, CLIPTokenizer

        weights = folder / "model.safetensors"
        if not weights.exists():
            raise ValueError(
                f"no CLIP in {folder}: download openai/clip-vit-large-patch14 (config.json, "
                "model.safetensors, tokenizer files) and give its folder"
            )
        try:
            with quiet_loading():
                model = CLIPModel.from_pretrained(folder, local_files_only=True)
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ValueError(f"{folder} holds no CLIP of transformers: {error}") from error
        self._model, self._tokenizer = model.float().eval().to(device), tokenizer
        self.hash = hashlib.sha256(weights.read_bytes()).hexdigest()
        self._side = int(model.config.vision_config.image_size)
        self._features_10D = cache(self._text_features)

    def name(
        self, image_HW3: np.ndarray, boxes_N5: np.ndarray, masks_NHW: np.ndarray, name: str
    ) -> list[str]:
        """Return the colour of each object of the class `name`; masks: bool."""
        crops = [
            cut_out(image_HW3, box_5, mask_HW)
            for box_5, mask_HW in zip(boxes_N5, masks_NHW, strict=True)
        ]
        if not crops:
            return []
        with torch.no_grad():
            pixels_N3HW = torch.stack([prepared(crop, self._side) for crop in crops])
            features_ND = self._features(
                self._model.get_image_features(pixels_N3HW.to(self._model.device))
            )
            nearest_N = (features_ND @ self._features_10D(name).T).argmax(dim=1)
        return [COLOURS[k] for k in nearest_N.tolist()]

    def _text_features(self, name: str) -> Tensor:
        """Return the features of the ten colours of a class, of length 1: (10, D)."""
        texts = [t.format(colour=colour, name=name) for colour in COLOURS for t in TEMPLATES]
        tokens = self._tokenizer(texts, padding=True, return_tensors="pt").to(self._model.device)
        with torch.no_grad():
            features_TD = self._features(self._model.get_text_features(**tokens))
        means_10D = features_TD.unflatten(0, (len(COLOURS), len(TEMPLATES))).mean(dim=1)
        return F.normalize(means_10D, dim=-1)

    @staticmethod
    def _features(output: Any) -> Tensor:
        """Return a tower's projected features, of length 1."""
        return F.normalize(getattr(output, "pooler_output", output), dim=-1)


def cut_out(image_HW3: np.ndarray, box_5: Sequence[float], mask_HW: np.ndarray) -> Image.Image:
    """Return what is in a box, all but the mask's pixels grey."""
    painted_HW3 = np.where(mask_HW[:, :, None], image_HW3, np.array(GREY, np.uint8))
    left, top, right, bottom = (round(float(side)) for side in box_5[:4])
    return Image.fromarray(painted_HW3).crop((left, top, right, bottom))


def prepared(image: Image.Image, side: int) -> Tensor:
    """Return an image as CLIP takes it, float32 (3, side, side): open_clip's evaluation transform.

    The shorter side becomes `side`, bicubic; the middle is cut out; pixels are standardised.
    """
    # Multiplied first, as torchvision does: side / 49 * 98 would fall below 2 side.
    width, height = (int(side * k / min(image.size)) for k in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    middle = resized.crop((left, top, left + side, top + side))
    pixels_3HW = torch.from_numpy(np.array(middle)).permute(2, 0, 1).float() / 255
    return (pixels_3HW - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
