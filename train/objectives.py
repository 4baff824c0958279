"""What training minimises: unreduced losses weighed and reduced, one function for each kind of
model.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from unimodal.attention import PackedAttention
from unimodal.drawer import Drawer
from unimodal.reader import Reader
from unimodal.sequence import IGNORE, Batch
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.transformer import Transformer


@dataclass(frozen=True)
class LossConfig:
    """Weights of the modalities' mean losses, so that one answer is not drowned by 64 codes."""

    text: float = 1.0
    image: float = 1.0
    z: float = 0.0
    """Weight of the z-loss: the mean square of log Z, which keeps logits from drifting."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        found = [
            f"{name} {value}: at least 0" for name, value in vars(self).items() if not value >= 0
        ]
        if self.text == self.image == 0:
            found.append("text and image are both 0: nothing would be learned")
        return found


class UncompiledAttention(PackedAttention):
    """Stays outside compiled graphs: its documents' lengths are others in every batch."""

    @torch.compiler.disable
    def __call__(
        self, layer: int, q_BHTd: torch.Tensor, k_BGTd: torch.Tensor, v_BGTd: torch.Tensor
    ) -> torch.Tensor:
        """Attention within each document, out_BHTd."""
        return super().__call__(layer, q_BHTd, k_BGTd, v_BGTd)


@dataclass(frozen=True)
class Losses:
    """The scalar to minimise, and what to report of it."""

    total: torch.Tensor
    reports: dict[str, float]


def language(
    transformer: Transformer, reader: Reader, drawer: Drawer, batch: Batch, config: LossConfig
) -> Losses:
    """The loss of packed rows, each modality's sum divided by its weight in the batch.

    The grammar lets a position hold either a code or anything else, never both. So the loss of
    text normalises over text and control ids alone, that of a picture is its drawer's, and only
    the logits that they need are computed.
    """
    attend = UncompiledAttention(batch.doc, batch.block, batch.private)
    hidden_BTD = transformer(reader(transformer, batch.ids), batch.positions, attend)
    first = drawer.vocabulary.first_code
    is_code_BT = batch.labels >= first
    total = hidden_BTD.new_zeros(())
    reports: dict[str, float] = {}
    for name, weight, chosen_BT in (
        ("text", config.text, (batch.labels != IGNORE) & ~is_code_BT),
        ("image", config.image, is_code_BT),
    ):
        weights_N, count = batch.weights[chosen_BT], int(chosen_BT.sum())
        reports[f"targets_{name}"] = count
        reports[f"weight_{name}"] = float(weights_N.sum())
        if count == 0:
            continue
        hidden_ND, labels_N = hidden_BTD[chosen_BT], batch.labels[chosen_BT]
        if name == "image":
            logits_NV = _full(drawer.logits(transformer, hidden_ND))
            losses_N = drawer.losses(logits_NV, labels_N)
        else:
            logits_NV = _full(transformer.logits(hidden_ND, 0, first))
            losses_N = F.cross_entropy(logits_NV, labels_N, reduction="none")
        loss = (losses_N * weights_N).sum() / weights_N.sum()
        total = total + weight * loss
        reports[f"loss_{name}"] = loss.item()
        if config.z:
            # PaLM (arXiv 2204.02311, sec. 5): z * log^2 Z
            square_N = logits_NV.logsumexp(-1).square()
            total = total + config.z * (square_N * weights_N).sum() / weights_N.sum()
    return Losses(total, {"loss": total.item(), **reports})


def _full(logits: torch.Tensor) -> torch.Tensor:
    """Half precision never touches a loss."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def reconstruction(tokenizer: ImageTokenizer, images_BCHW: torch.Tensor) -> Losses:
    """Mean absolute and mean squared error of pixels in [-1, 1]: the first for sharp edges, the
    second for PSNR.
    """
    error_BCHW = tokenizer(images_BCHW) - images_BCHW
    absolute, squared = error_BCHW.abs().mean(), error_BCHW.square().mean()
    total = absolute + squared
    psnr = 10 * torch.log10(4 / squared)
    reports = {"loss": total.item(), "absolute": absolute.item(), "psnr_db": psnr.item()}
    return Losses(total, reports)
