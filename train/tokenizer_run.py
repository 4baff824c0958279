"""What a run of the image tokenizer is told: its config, and which values do not go together."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal

from unimodal.data.sizes import ImageRule, buckets, patch_problems
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.losses import TokenizerLossConfig

from .loop import LoopConfig
from .optimizer import OptimizerConfig
from .schedule import ScheduleConfig


@dataclass(frozen=True)
class TokenizerRun:
    """Configure a run of the image tokenizer."""

    output: Path
    """The run's directory; the trained tokenizer is written to `output/tokenizer`."""
    shards: str
    """The shards whose images are learned, all images of each sample: a folder of .tar files, one
    .tar file, a URL, or `pipe:` and a command; or a folder of image files, inner ones included."""
    schedule: ScheduleConfig
    """Of `model.pixels`, which learn nothing: how many batches of images are measured."""
    weights: Path | None = None
    """The image tokenizer, of the same `model`, whose weights training begins with: what a run has
    written, or a bundle. None: weights are drawn from `seed`."""
    freeze_codes: bool = False
    """Keep encoder and quantizer of `weights` as they are: the decoder learns alone, from its own
    weights or, where `model` gives it another shape, from new ones."""
    decoder_storage: Literal["fp32", "bf16"] = "fp32"
    """The dtype of the finished decoder's weights at rest: bf16 rounds them, in half the bytes."""
    index: str | None = None
    """A folder that `unimodal data index` has written of these shards: images then need not be
    found again. None: they are at the first start, and kept in the cache."""
    images: ImageRule | None = None
    """How images are resized; None: not at all, and their sides are multiples of the patch."""
    batch_images: int = 32
    """Images of a batch, all of one size."""
    bad_share: float = 0.01
    """Share of samples that cannot be used (0 to 1) above which the run stops."""
    min_usage: float = 0.3
    """Share of codes that are to be in use (0 to 1): below it the run warns. Not of latents."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of convolutions and matrix products; the quantizer's arithmetic and weights are float32."""
    seed: int = 0
    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def problems(self) -> list[str]:
        """Return what is wrong with the values, one sentence each."""
        found = [] if self.batch_images > 0 else [f"batch_images {self.batch_images}: at least 1"]
        found += [
            f"{name} {getattr(self, name)}: from 0 to 1"
            for name in ("bad_share", "min_usage")
            if not 0 <= getattr(self, name) <= 1
        ]
        if self.optimizer.muon_lr is not None:
            found.append("optimizer.muon_lr: an image tokenizer is trained by AdamW alone")
        if not self.model.autoencoder.problems() and not (self.images and self.images.problems()):
            found += size_problems(self.images, self.model)
        found += self._freezing_problems() if self.freeze_codes else []
        if self.decoder_storage == "bf16" and not self.loss.sees_pixels:
            found.append("decoder_storage bf16: without a loss of pixels there is no decoder")
        found += self._latent_problems() if self.model.is_continuous else []
        return found if self.seed >= 0 else [*found, f"seed {self.seed}: at least 0"]

    def _freezing_problems(self) -> list[str]:
        found = []
        if self.weights is None:
            found.append("freeze_codes: codes of no meaning would be kept; give trained `weights`")
        if not self.loss.sees_pixels:
            found.append("freeze_codes: only the decoder learns, and loss has no term of pixels: "
                         "give l1, l2 or perceptual")  # fmt: skip
        if self.loss.semantic is not None:
            found.append("loss.semantic: it teaches codes, which freeze_codes keeps: leave it out")
        return found

    def _latent_problems(self) -> list[str]:
        defaults = {one.name: one.default for one in fields(self) if one.default is not MISSING}
        found = []
        if self.min_usage != defaults["min_usage"]:
            found.append(f"min_usage {self.min_usage}: there are no codes; leave it out")
        if not self.loss.sees_pixels:
            found.append("loss: latents are learned with their decoder: give l1, l2 or perceptual")
        if self.model.pixels is None:
            return found
        defaults |= {"loss": TokenizerLossConfig(), "optimizer": OptimizerConfig()}
        unused = ("weights", "freeze_codes", "decoder_storage", "precision", "loss", "optimizer")
        return found + [
            f"{name}: model.pixels learn nothing; leave it out"
            for name in unused
            if getattr(self, name) != defaults[name]
        ]


def size_problems(rule: ImageRule | None, model: TokenizerConfig) -> list[str]:
    """Return why images that are sized so cannot be encoded, one sentence each."""
    if found := patch_problems(rule, model.patch):
        return found
    for width, height in buckets(rule) if rule is not None else ():
        try:
            model.autoencoder.grid_of(height, width)
        except ValueError as error:
            return [f"images.target_pixels {rule.target_pixels if rule else 0}: {error}"]
    return []
