"""What training minimises: unreduced losses weighed and reduced, one function for each kind of
model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal.cross_entropy import Targets, linear_cross_entropy, product_dtype
from unimodal.embedder import Reader
from unimodal.heads.next_code import Drawer
from unimodal.kernels import Kind, attention
from unimodal.sequence import IGNORE, Batch
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.transformer import Transformer


@dataclass(frozen=True)
class LossConfig:
    """Weights of the modalities' mean losses, so that one answer is not drowned by 64 codes."""

    text: float = 1.0
    image: float = 1.0
    z: float = 0.0
    """Weight of the z-loss beside each target's loss: the square of log Z, which keeps logits from
    drifting."""
    sliced: bool = True
    """A text target normalises over text and control ids, an image target over codes: what the
    grammar lets stand there. False: over all ids, for a sampler without a grammar."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        found = [
            f"{name} {getattr(self, name)}: at least 0"
            for name in ("text", "image", "z")
            if not getattr(self, name) >= 0
        ]
        if self.text == self.image == 0:
            found.append("text and image are both 0: nothing would be learned")
        return found


@dataclass(frozen=True)
class Losses:
    """The scalar to minimise, and scalars to report, which may lie on a GPU.

    Those of `language` add up over micro-batches and ranks; `reported` says what is logged of the
    sums. Their names are the same for every batch of a run.
    """

    total: Tensor
    sums: dict[str, Tensor]

    @property
    def reports(self) -> dict[str, float]:
        """What is logged when this is all there is."""
        values = torch.stack([value.detach().double() for value in self.sums.values()])
        return reported(dict(zip(self.sums, values.tolist(), strict=True)))


def reported(sums: dict[str, float]) -> dict[str, float]:
    """Sums of `Losses.sums` over a global batch -> what is logged: loss_X is sum_X by weight_X, and
    left out where nothing has a weight.
    """
    found: dict[str, float] = {}
    for name, value in sums.items():
        kind, _, what = name.partition("_")
        if kind != "sum":
            found[name] = int(value) if kind == "targets" else value
        elif weight := sums[f"weight_{what}"]:
            found[f"loss_{what}"] = value / weight
    return found


def modalities(labels_BT: Tensor, first_code: int) -> dict[str, Tensor]:
    """Which positions have a text's or a special token's id to predict, and which an image code:
    bool, as labels_BT.
    """
    is_code_BT = labels_BT >= first_code
    return {"text": (labels_BT != IGNORE) & ~is_code_BT, "image": is_code_BT}


def target_weights(batch: Batch, first_code: int) -> dict[str, float]:
    """The sum of the targets' weights for each modality.

    Added up over the micro-batches and ranks of a global batch, they are the `norms` of `language`.
    """
    chosen = modalities(batch.labels, first_code)
    return {name: float(batch.weights[chosen_BT].sum()) for name, chosen_BT in chosen.items()}


def language(
    transformer: Transformer,
    reader: Reader,
    drawer: Drawer,
    batch: Batch,
    config: LossConfig,
    norms: Mapping[str, float] | None = None,
    sources: Sequence[str] = (),
    kind: Kind = "auto",
) -> Losses:
    """The loss of packed rows: sum over modalities m of config.m * sum_m / norms[m].

    sum_m is the weighted sum of the losses of the batch's targets. `norms` are the sums of the
    target weights of the global batch that this is a micro-batch of (None: the batch is all of it),
    so the totals of its micro-batches add up to its loss. A modality of which the global batch has
    no target adds nothing; one of which this micro-batch has none adds zero, with gradients of
    zero.

    With the names of `sources` (two or more), the losses are also reported for each. `kind` says
    which kernels compute attention.
    """
    dtype = product_dtype(transformer.head_weight)
    attend = attention(batch.doc, batch.block, batch.private, kind, dtype)
    hidden_BTD = transformer(reader(transformer, batch.ids), batch.positions, attend)
    chosen = modalities(batch.labels, drawer.vocabulary.first_code)
    if norms is None:
        norms = target_weights(batch, drawer.vocabulary.first_code)
    targets = []
    for modality, chosen_BT in chosen.items():
        scale = getattr(config, modality) / norms[modality] if norms[modality] else 0.0
        one = _targets(batch, chosen_BT, scale, _ids(modality, drawer, config.sliced))
        assert norms[modality] or not len(one.at_M), f"{modality} targets, but a norm of 0"
        targets.append(one)
    total, losses = linear_cross_entropy(
        hidden_BTD.flatten(0, 1), transformer.head_weight, targets, config.z
    )
    sums: dict[str, Tensor] = {"loss": total}
    for (modality, chosen_BT), losses_M in zip(chosen.items(), losses, strict=True):
        sums[f"targets_{modality}"] = chosen_BT.sum()
        sums |= _sums(modality, losses_M, batch.weights[chosen_BT])
        if len(sources) > 1:
            source_M = batch.source[chosen_BT]
            for number, name in enumerate(sources):
                here_M = batch.weights[chosen_BT] * (source_M == number)
                sums |= _sums(f"{modality}/{name}", losses_M, here_M)
    return Losses(total, {name: value.detach() for name, value in sums.items()})


def _ids(modality: str, drawer: Drawer, sliced: bool) -> tuple[int, int]:
    """Over which ids a target's loss normalises."""
    if not sliced:
        return 0, drawer.vocabulary.size
    return drawer.ids if modality == "image" else (0, drawer.vocabulary.first_code)


def _targets(batch: Batch, chosen_BT: Tensor, scale: float, ids: tuple[int, int]) -> Targets:
    (at_M,) = chosen_BT.flatten().nonzero(as_tuple=True)
    return Targets(at_M, batch.labels[chosen_BT], scale * batch.weights[chosen_BT], *ids)


def _sums(what: str, losses_M: Tensor, weights_M: Tensor) -> dict[str, Tensor]:
    return {f"weight_{what}": weights_M.sum(), f"sum_{what}": (losses_M * weights_M).sum()}


def reconstruction(tokenizer: ImageTokenizer, images_BCHW: Tensor) -> Losses:
    """Mean absolute and mean squared error of pixels in [-1, 1]: the first for sharp edges, the
    second for PSNR.
    """
    error_BCHW = tokenizer(images_BCHW) - images_BCHW
    absolute, squared = error_BCHW.abs().mean(), error_BCHW.square().mean()
    total = absolute + squared
    psnr = 10 * torch.log10(4 / squared)
    return Losses(total, {"loss": total, "absolute": absolute, "psnr_db": psnr})
