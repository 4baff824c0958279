"""A vision tower lets images that are given enter as soft vectors, as LLaVA does.

Liu et al., "Improved Baselines with Visual Instruction Tuning" (LLaVA-1.5, arXiv:2310.03744): a
vision network makes a vector of each patch, and a projector makes of it what stands in the place of
a token's embedding. Here is what such a network is and how it is given an image; the module is
TowerEmbedder (tower_embedder.py).

    image (a soft vector) * patches image_end        of an image that is given
    image size_h size_w ... image_end                 of one that is drawn: its codes

With `codes`, the codes of a given image follow its soft vectors. A layout may say otherwise what
stands around them (layout.py, SoftLayout).
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from PIL import Image as PILImage

from unimodal.tokenizer.grid import Grid

from .document import Image, Part

EFFICIENTNET: Final = "efficientnet-lite0"
Kind = Literal["siglip", "clip", "dinov2", "efficientnet-lite0"]
ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "quick_gelu")
GIVEN_ROLES = ("system", "user")
TOWER = "tower."  # how names of parameters begin
NETWORK, PROJECTOR = f"{TOWER}network.", f"{TOWER}projector."


@dataclass(frozen=True)
class TowerNetwork:
    """A TowerNetwork determines the parameters of a tower's network, up to the layer in use.

    Of EfficientNet-Lite0 only `width`, `patch` and `num_layers` say something.
    """

    kind: Kind
    width: int
    """Numbers of a patch's features."""
    patch: int
    """Pixels of a patch's side."""
    num_layers: int
    num_heads: int = 1
    mlp_width: int = 0
    stored_side: int = 0
    """Patches of a side for which positions are stored; for others they are interpolated."""
    activation: str = "gelu"
    norm_eps: float = 1e-6
    gated: bool = False
    """Whether the MLP is a SwiGLU."""
    qkv_bias: bool = True
    final_norm: bool = True
    """Whether what the last layer gives is normalised."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        least = {"width": 1, "patch": 1, "num_layers": 0, "num_heads": 1, "mlp_width": 0}
        found = [
            f"{name} {getattr(self, name)}: at least {bound}"
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if self.num_heads > 0 and self.width % self.num_heads:
            found.append(f"num_heads {self.num_heads}: does not divide the width {self.width}")
        if self.activation not in ACTIVATIONS:
            found.append(f"activation {self.activation!r}: one of {', '.join(ACTIVATIONS)}")
        return found


@dataclass(frozen=True)
class Tower:
    """A Tower is a vision network, how it is given an image, and how that enters the model."""

    network: TowerNetwork
    side: int
    """Pixels of a side of the square that the network is given."""
    mean: tuple[float, float, float]
    """What is taken from each channel of pixels in [0, 1]."""
    std: tuple[float, float, float]
    """What the channels are divided by after that."""
    shortest: int | None = None
    """Pixels to which the shorter side is resized before the square is cut out of the middle; None:
    the image becomes the square as a whole, whatever its shape."""
    filter: int = PILImage.Resampling.BICUBIC
    """The filter of resizing, by Pillow's number."""
    trained: bool = False
    """Whether the network learns; False: only the projector does."""
    codes: bool = False
    """Whether given images enter as codes too, behind their soft vectors."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = []
        if self.side < 1 or self.side % self.network.patch:
            found.append(f"side {self.side}: a multiple of the patch, {self.network.patch} pixels")
        if self.shortest is not None and self.shortest < self.side:
            found.append(f"shortest {self.shortest}: at least the side, {self.side}")
        if not all(one > 0 for one in self.std):
            found.append(f"std {list(self.std)}: above 0")
        return found

    @property
    def grid(self) -> Grid:
        """Return the rows and columns of patches."""
        return Grid(self.side // self.network.patch, self.side // self.network.patch)

    def view(self, pixels_HW3: np.ndarray) -> np.ndarray:
        """Return an image as the network is given it, uint8 (side, side, 3)."""
        image, side = PILImage.fromarray(pixels_HW3), self.side
        if self.shortest is None:
            return np.asarray(image.resize((side, side), self.filter))
        # The longer side is rounded down, and the middle too, as transformers do it.
        short = min(image.size)
        width, height = (self.shortest * one // short for one in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        resized = image.resize((width, height), self.filter)
        return np.asarray(resized.crop((left, top, left + side, top + side)))


def is_given(part: Part) -> bool:
    """Return whether a part is an image that the model is given, not one that is drawn: it is the
    user's, or, outside of turns, context.
    """
    if not isinstance(part, Image):
        return False
    return part.role in GIVEN_ROLES or (part.role is None and part.weight == 0)
