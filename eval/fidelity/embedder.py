"""What a vision model sees in an image, as one vector.

In: images, uint8 (H, W, 3), of any sizes. Out: features, float32 (n, C).

1. Pillow resizes the whole image to `side` x `side` pixels, bicubic and antialiased: distances
   depend on how that is done (Parmar et al. 2022, arXiv:2104.11222), so the numbers' names say it.
2. The model's pooled output is taken (of DINOv2 the class token behind the last norm, as Stein et
   al. 2023, arXiv:2306.04675, take it). A checkpoint without a pooler gives the mean of its last
   hidden state instead, and the name says that too.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from unimodal.tokenizer import backbone
from unimodal.tokenizer.pixels import to_tensor

from ..loading import quiet_loading
from ..report import progress
from ..round_trip import batches
from .images import ImageSet

DINOV2 = "facebook/dinov2-large"
SIDE, BATCH = 224, 16
Look = Callable[[Sequence[np.ndarray]], Tensor]
"""A function from images to their features, float (B, C)."""


@dataclass(frozen=True, eq=False)
class Embedder:
    """A vision model, ready for use."""

    name: str
    """Of model, pooling and resizing, as numbers carry it."""
    hash: str
    """SHA-256 (hex) of its weights."""
    look: Look


@dataclass(frozen=True, eq=False)
class Features:
    """What was seen in a set of images."""

    set_name: str
    names: tuple[str, ...]
    x_nC: np.ndarray
    """float32."""
    pixels: tuple[str, ...]
    """SHA-256 (hex) of the size and the pixels of each."""
    digest: str
    """SHA-256 (hex) of the files, in order."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def reference(self) -> str:
        """Return the name of the set as a reference: of its folder, its content, its size."""
        return f"{self.set_name}-{self.digest[:8]}_n{len(self)}"


def features_of(embedder: Embedder, images: ImageSet) -> Features:
    """Look at all images; ValueError where a feature is not finite, ImageError for a broken one."""
    found, pixels, digest = [], [], hashlib.sha256()
    for batch in progress(batches(images.pictures, BATCH), f"looking at {images.name}"):
        arrays = []
        for picture in batch:
            array, file_hash = picture.open()
            arrays.append(array)
            digest.update(file_hash.encode())
            pixels.append(hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest())
        seen_BC = embedder.look(arrays).float().cpu()
        for picture, seen_C in zip(batch, seen_BC, strict=True):
            if not bool(seen_C.isfinite().all()):
                raise ValueError(
                    f"{embedder.name} sees numbers that are not finite in {picture.name}: its "
                    "weights are damaged"
                )
        found.append(seen_BC.numpy())
    names = tuple(picture.name for picture in images.pictures)
    return Features(
        images.name, names, np.concatenate(found), tuple(pixels), digest.hexdigest()
    )  # fmt: skip


def load(name: str, side: int = SIDE, device: str = "cpu") -> Embedder:
    """Return a Hugging Face vision model by its name or local path, or `efficientnet-lite0`.

    ValueError, with what to get, where it cannot be had or does not take images of this size.
    """
    found = _efficientnet() if name == backbone.EFFICIENTNET else _hugging_face(name, side)
    network = found.network.requires_grad_(False).eval().to(device)
    mean_C11, std_C11 = (torch.tensor(one)[:, None, None] for one in (found.mean, found.std))

    @torch.inference_mode()
    def look(images: Sequence[np.ndarray]) -> Tensor:
        x_BCHW = (to_tensor([resized(image, side) for image in images]) + 1) / 2
        return found.take(((x_BCHW - mean_C11) / std_C11).to(device))

    short = name.rstrip("/").rpartition("/")[2]
    return Embedder(f"{short}_{found.kind}_bicubic-{side}", weights_hash(network), look)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """Return an image as uint8 (side, side, 3)."""
    whole = PILImage.fromarray(image)
    return np.asarray(whole.resize((side, side), PILImage.Resampling.BICUBIC))


def weights_hash(network: nn.Module) -> str:
    """Return the SHA-256 (hex) of the names and bytes of all weights and buffers."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A network, and how it is asked."""

    network: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    """Of the channels that the network expects, for pixels in [0, 1]."""
    take: Callable[[Tensor], Tensor]
    """A function from images (B, C, H, W) that are normalised to features (B, C)."""
    kind: str
    """What the features are: pooled or mean."""


def _efficientnet() -> _Loaded:
    loaded = backbone.load(backbone.EFFICIENTNET)
    mean, std = loaded.mean_C11.flatten().tolist(), loaded.std_C11.flatten().tolist()
    return _Loaded(
        loaded, mean, std, lambda x_BCHW: loaded.features(x_BCHW)[-1].mean((2, 3)), "mean"
    )


def _hugging_face(name: str, side: int) -> _Loaded:
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        config = AutoConfig.from_pretrained(name)
        processor, _ = ImageProcessingMixin.get_image_processor_dict(name)
        mean, std = processor["image_mean"], processor["image_std"]
        vision = getattr(config, "vision_config", config)
        with quiet_loading():
            network, told = AutoModel.from_pretrained(
                name, config=vision, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, KeyError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the vision model {name} cannot be had ({first_line}): give the folder of one with "
            f"its preprocessor_config.json, download it (`hf download {name}`), or take "
            f"{backbone.EFFICIENTNET}"
        ) from error
    lacking = [key for key in told["missing_keys"] if "pooler" not in key]
    if lacking:
        raise ValueError(f"{name} lacks weights of its vision model: {', '.join(lacking[:3])}")
    # A pooler that the checkpoint lacks was drawn at random: nothing may rest on it.
    tried = _tried(name, network.eval(), side)
    pools = not told["missing_keys"] and getattr(tried, "pooler_output", None) is not None

    def take(x_BCHW: Tensor) -> Tensor:
        seen = network(x_BCHW)
        return seen.pooler_output.flatten(1) if pools else _mean(seen.last_hidden_state)

    _check_steady(name, take, side)
    return _Loaded(network, mean, std, take, "pooled" if pools else "mean")


@torch.inference_mode()
def _check_steady(name: str, take: Callable[[Tensor], Tensor], side: int) -> None:
    """Raise ValueError for a model that draws at random, as masked autoencoders hide patches, and
    for one that sees nothing.
    """
    image_1CHW = torch.linspace(-1, 1, 3 * side * side).reshape(1, 3, side, side)
    first, *others = (take(image_1CHW) for _ in range(3))
    if not bool(first.isfinite().all()):
        raise ValueError(f"{name} sees numbers that are not finite: its weights are damaged")
    if not all(torch.allclose(first, one, rtol=1e-3, atol=1e-3) for one in others):
        raise ValueError(
            f"{name} sees the same image differently each time (it hides parts at random): take "
            "another model, or set its mask_ratio to 0"
        )


def _mean(state: Tensor) -> Tensor:
    """Return the mean over places (B, C, h, w) or tokens (B, T, C)."""
    return state.mean((2, 3)) if state.ndim == 4 else state.mean(1)


@torch.inference_mode()
def _tried(name: str, network: Any, side: int) -> Any:
    """Return what the network says to a black image; ValueError where it refuses the size."""
    try:
        return network(torch.zeros(1, 3, side, side))
    except (ValueError, RuntimeError) as error:
        wanted = getattr(network.config, "image_size", None)
        way_out = "" if wanted in (None, side) else f": give --resize {wanted}"
        raise ValueError(
            f"{name} does not take images of {side} x {side} pixels ({error}){way_out}"
        ) from error
