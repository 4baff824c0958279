"""How well people would like images: models of preference, by prompt and image.

In: images with their prompts, weights on disk. Out: a score for each image.

- PickScore (Kirstain et al. 2023, arXiv:2305.01569, eq. 1): a CLIP of `transformers`, exp(t) times
  the cosine of text and image. Some report the cosine alone, so both are given.
- HPSv2 (Wu et al. 2023, arXiv:2306.09341): the cosine of a CLIP ViT-H/14 of the package `hpsv2`.
- ImageReward (Xu et al. 2023, arXiv:2304.05977): of the package `image-reward`.

The last two have not yet been run on their official weights: packages and weights were not at hand.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PILImage
from torch.nn import functional as F

from ..intervals import mean
from ..loading import quiet_loading
from ..lpips import read_weights
from ..report import progress
from ..score import Prediction, digest
from .embedder import weights_hash
from .prompted import Prompted

PICKSCORE = (
    "download yuvalkirstain/PickScore_v1, and laion/CLIP-ViT-H-14-laion2B-s32B-b79K for --processor"
)
MOST_TOKENS = 77  # of a prompt, as CLIP reads them


class Preference(ABC):
    """A model of preference; numbers carry its name."""

    name: str
    hash: str

    @abstractmethod
    def score(self, prompt: str, image: PILImage.Image) -> dict[str, float]:
        """Return the measured values of an image, the first of them the score."""


class PickScore(Preference):
    """A CLIP that was trained on people's choices, from a folder with its processor."""

    def __init__(self, weights: Path, processor: Path | None = None, device: str = "cpu") -> None:
        """Load it; ValueError where weights or processor are missing."""
        from transformers import CLIPModel, CLIPProcessor

        if not weights.exists():
            raise ValueError(f"there is no {weights}: {PICKSCORE}")
        try:
            with quiet_loading():
                model, told = CLIPModel.from_pretrained(
                    weights, local_files_only=True, output_loading_info=True
                )
            self._processor = CLIPProcessor.from_pretrained(
                processor or weights, local_files_only=True
            )
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{processor or weights} and {weights} hold no CLIP with its processor "
                f"({first_line}): {PICKSCORE}"
            ) from error
        if told["missing_keys"]:
            raise ValueError(
                f"{weights} lacks weights: {', '.join(sorted(told['missing_keys'])[:3])}"
            )
        self._model = model.float().eval().to(device)
        self.name, self.hash = f"pickscore_{weights.resolve().name}", weights_hash(self._model)

    @torch.inference_mode()
    def score(self, prompt: str, image: PILImage.Image) -> dict[str, float]:
        """Return exp(t) cos(text, image), and the cosine."""
        device = self._model.device
        seen = self._processor(images=image, return_tensors="pt").to(device)
        read = self._processor(
            text=prompt, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt"
        ).to(device)
        sides = (self._model.get_image_features(**seen), self._model.get_text_features(**read))
        image_1D, text_1D = (F.normalize(getattr(s, "pooler_output", s), dim=-1) for s in sides)
        cosine = (text_1D * image_1D).sum()
        return {"score": float(self._model.logit_scale.exp() * cosine), "cosine": float(cosine)}


class Hpsv2(Preference):
    """The CLIP ViT-H/14 of `hpsv2`, with the weights of a file (`HPS_v2.1_compressed.pt`)."""

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        """Load it; ValueError where the package or the weights are missing."""
        stored = read_weights(weights)
        try:
            from hpsv2.src.open_clip import create_model_and_transforms, get_tokenizer
        except ImportError as error:
            raise _without("hpsv2", error) from error
        model, _, self._prepare = create_model_and_transforms(
            "ViT-H-14", device=device, output_dict=True, light_augmentation=True
        )
        model.load_state_dict(stored["state_dict"])
        self._model, self._device = model.eval(), device
        self._tokenizer = get_tokenizer("ViT-H-14")
        self.name = f"hpsv2-{version('hpsv2')}_{weights.stem}"
        self.hash = weights_hash(model)

    @torch.inference_mode()
    def score(self, prompt: str, image: PILImage.Image) -> dict[str, float]:
        """Return the cosine of text and image."""
        found = self._model(
            self._prepare(image)[None].to(self._device), self._tokenizer([prompt]).to(self._device)
        )
        return {"score": float((found["image_features"] * found["text_features"]).sum())}


class ImageReward(Preference):
    """The reward model of `image-reward`, from a folder with `ImageReward.pt` and
    `med_config.json`.
    """

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        """Load it; ValueError where the package or the weights are missing."""
        file, config = weights / "ImageReward.pt", weights / "med_config.json"
        read_weights(file)  # the package would run whatever else the file holds
        if not config.is_file():
            raise ValueError(f"{config} is missing: download it from THUDM/ImageReward")
        try:
            import ImageReward as package
        except ImportError as error:
            raise _without("image-reward", error) from error
        self._model = package.load(str(file), device=device, med_config=str(config))
        self.name = f"image-reward-{version('image-reward')}_{weights.resolve().name}"
        self.hash = weights_hash(self._model)

    def score(self, prompt: str, image: PILImage.Image) -> dict[str, float]:
        """Return the reward, about normal over people's images."""
        return {"score": float(self._model.score(prompt, image))}


def preference_report(model: Preference, images: Sequence[Prompted]) -> dict[str, Any]:
    """Return scores, predictions and settings; ValueError for a score that is no number.

    Intervals are over prompts: images of one prompt are liked together.
    """
    predictions: list[Prediction] = []
    for one in progress(images, model.name):
        pixels, file_hash = one.picture.open()
        found = model.score(one.prompt, PILImage.fromarray(pixels))
        for value in found.values():
            if value != value or abs(value) == float("inf"):
                raise ValueError(f"{model.name} scores {one.picture.name} with {value}")
        about = {"name": one.picture.name, "kind": model.name, "prompt": one.prompt}
        about["group"] = one.prompt  # images of one prompt are no independent ones
        predictions.append({**about, "image": file_hash, "value": found["score"], **found})
    values = [name for name in predictions[0] if name in ("score", "cosine")]
    block = f"{model.name}_n{len(images)}"
    hashes = "".join(one["image"] for one in predictions)
    settings = {
        "scorer": model.name, "scorer_hash": model.hash,
        "prompts": digest([one.prompt for one in images]),
        "drawn_images": hashlib.sha256(hashes.encode()).hexdigest(),
    }  # fmt: skip
    scores = {block: {name: mean(_of_prompts(predictions, name)) for name in values}}
    return {"scores": scores, "predictions": predictions, "settings": settings}


def _of_prompts(predictions: Sequence[Prediction], name: str) -> list[float]:
    """Return the mean value of each prompt's images."""
    prompts: dict[str, list[float]] = {}
    for one in predictions:
        prompts.setdefault(one["prompt"], []).append(one[name])
    return [sum(some) / len(some) for some in prompts.values()]


def _without(package: str, error: ImportError) -> ValueError:
    return ValueError(
        f"this score needs the package {package} ({error}): in an environment of its own install "
        f"unimodal[metrics], then `pip install --no-deps {package}`, which pins old versions of "
        "others"
    )
