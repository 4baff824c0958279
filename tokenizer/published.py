"""What published image tokenizers have in common: frozen weights, one codebook, one code a place.

They are never trained here and have no weights but the published ones. Encoding and decoding take
a few images at a time, so that memory does not grow with the batch.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from . import stored_weights
from .codebook import Codebook
from .grid import Grid
from .pyramid import PyramidConfig
from .stored_weights import CONFIG, WEIGHTS

KIND = "kind"  # the key of tokenizer.json that says which class the tokenizer has
PIXELS_AT_ONCE = 2**18  # at full resolution an activation takes 0.5 to 1 KiB a pixel


class PublishedTokenizer(nn.Module):
    """A frozen autoencoder with a codebook: subclasses say what lies between pixels and vectors."""

    kind: ClassVar[str]
    config_class: ClassVar[type[PyramidConfig]]
    num_groups = 1
    latent_width = 0
    levels: tuple[int, ...] = PyramidConfig.levels
    quantize: Codebook

    def __init__(self, config: PyramidConfig, weights: Mapping[str, torch.Tensor] | None):
        """Take the weights, of any floating dtype, as float32; with None they have shapes alone.

        ValueError names everything that is wrong with the config, or with the weights.
        """
        super().__init__()
        if config.problems():
            raise ValueError("; ".join(config.problems()))
        self.config = config
        with torch.device("meta"):  # no initial weights are drawn: the given ones replace them
            self._build()
        if weights is not None:
            self._fill(weights)
        self.eval().requires_grad_(False)

    def _fill(self, weights: Mapping[str, torch.Tensor]) -> None:
        if problems := _weight_problems(self.state_dict(), weights):
            raise ValueError("; ".join(problems))
        whole = {name: tensor.float() for name, tensor in weights.items()}
        self.load_state_dict(whole, assign=True)

    def _build(self) -> None:
        """Make the modules that the config asks for."""
        raise NotImplementedError

    def _latents(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return what is quantized, float (B, D, h, w)."""
        raise NotImplementedError

    def _images(self, vectors_BDhw: torch.Tensor) -> torch.Tensor:
        """Return images, not bounded, float (B, 3, H, W), of codes' vectors."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: what is frozen has no other."""
        return super().train(False)

    @property
    def decodes(self) -> bool:
        """Return whether there is a decoder; without it, `decode` raises ValueError."""
        return True

    @property
    def num_codes(self) -> int:
        """Return how many different codes there are."""
        return self.config.num_codes

    @property
    def geometry(self) -> PyramidConfig:
        """Return which grid belongs to which size of image."""
        return self.config

    def code_vectors(self, codes_nG: torch.Tensor) -> torch.Tensor:
        """Return the vectors of codes, float32 (n, D), about their mean and with a mean square
        length of one: how far apart codes are must not depend on the scale of the published table.
        """
        table_VD = self.quantize.table_VD
        middle_D = table_VD.mean(0)
        length = (table_VD - middle_D).square().sum(1).mean().sqrt()
        return (self.quantize(codes_nG[:, 0]) - middle_D) / length

    @torch.inference_mode()
    def encode(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """Return the codes of images, int64 (B, n, 1) in reading order, and their grid.

        Images are float32 (B, 3, H, W) in [-1, 1]; ValueError for sides that will not do.
        """
        shape = tuple(images_BCHW.shape)
        if len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"images of shape {shape}: (B, 3, H, W)")
        grid = self.config.grid_of(*shape[2:])
        codes = [
            self.quantize.nearest(self._latents(part).movedim(1, -1).flatten(0, -2))
            for part in images_BCHW.split(_at_once(shape[2] * shape[3]))
        ]
        return torch.cat(codes).reshape(shape[0], grid.size, 1), grid

    @torch.inference_mode()
    def decode(self, content_BnX: torch.Tensor, grid: Grid) -> torch.Tensor:
        """Return the images of codes, float32 (B, 3, H, W) in [-1, 1].

        Codes are int64 (B, n, 1); ValueError where they do not fill the grid, or are no codes.
        """
        codes_Bn1 = content_BnX
        if codes_Bn1.shape[1:] != (grid.size, 1) or grid.scales:
            raise ValueError(f"codes of shape {tuple(codes_Bn1.shape)} do not fill {grid}")
        height, width = self.config.size_of(grid)
        self.config.grid_of(height, width)  # the bounds of a side
        vectors = self.quantize(codes_Bn1[..., 0]).unflatten(1, (grid.height, grid.width))
        parts = vectors.movedim(-1, 1).split(_at_once(height * width))
        return torch.cat([self._images(part) for part in parts]).clamp(-1, 1)  # a pixel's range

    @property
    def hash(self) -> str:
        """Return the SHA-256 (hex) of config and weights: codes carry it to say whose they are."""
        return stored_weights.hash_of(self._config_json(), self)

    def _config_json(self) -> str:
        return json.dumps({KIND: self.kind, **asdict(self.config)}, sort_keys=True)

    @property
    def num_bytes(self) -> int:
        """Return about how many bytes `save` writes."""
        return stored_weights.num_bytes(self)

    def save(self, directory: Path) -> None:
        """Write weights and config into a directory; see stored_weights.py."""
        stored_weights.write(directory, self._config_json(), self)

    @classmethod
    def load(cls, directory: Path, fields: Mapping[str, Any]) -> Self:
        """Read the weights that `save` wrote; `fields`: the content of tokenizer.json.

        ValueError names the file at fault.
        """
        config = cls.config_of(directory, fields)
        path = directory / WEIGHTS
        try:
            return cls(config, load_file(str(path)))
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged or belongs to another: {error}") from error

    @classmethod
    def config_of(cls, directory: Path, fields: Mapping[str, Any]) -> PyramidConfig:
        """Return the config in the content of tokenizer.json; ValueError where it is none."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
            if name != KIND
        }
        try:
            config = cls.config_class(**values)
            problems = config.problems()
        except TypeError as error:  # a key that is not known, a value of another type
            problems = [str(error)]
        if problems:
            said = "; ".join(problems)
            raise ValueError(f"{directory / CONFIG} describes no {cls.kind} tokenizer: {said}")
        return config


def _at_once(num_pixels: int) -> int:
    """Return how many images of so many pixels are worked on together."""
    return max(1, PIXELS_AT_ONCE // num_pixels)


def _weight_problems(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> list[str]:
    """Return why weights do not fill these modules, one sentence each."""
    problems = []
    if missing := expected.keys() - found.keys():
        problems.append(f"weights are missing: {_few(missing)}")
    if foreign := found.keys() - expected.keys():
        problems.append(f"weights have no place: {_few(foreign)}")
    for name in sorted(expected.keys() & found.keys()):
        shape, wanted = tuple(found[name].shape), tuple(expected[name].shape)
        if shape != wanted:
            problems.append(f"{name} has shape {shape}, the config asks for {wanted}")
        elif not found[name].isfinite().all():
            problems.append(f"{name} holds numbers that are not finite: it is damaged")
    return problems


def _few(names: Iterable[str]) -> str:
    first, more = sorted(names)[:4], len(list(names)) - 4
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
