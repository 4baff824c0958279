"""What training minimises: unreduced losses weighed and reduced, one function for each kind of
model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unimodal.cross_entropy import Targets, linear_cross_entropy, product_dtype
from unimodal.heads.head import targets_of
from unimodal.kernels import Kernel, attention
from unimodal.sequence import MODALITIES, PADDING, TEXT, Batch
from unimodal.unified import UnifiedModel

from . import balance
from .sequence_parallel import SequenceGroup


@dataclass(frozen=True)
class LossConfig:
    """Weights of the modalities' mean losses, so that one answer is not drowned by 64 codes."""

    text: float = 1.0
    image: float = 1.0
    z: float = 0.0
    """Weight of the z-loss: the square of log Z, which keeps logits from drifting, beside
    the loss of text, and of codes that have rows of the output table: other heads have no Z."""
    sliced: bool = True
    """A text target normalises over text and control ids, an image target over codes: what the
    grammar lets stand there. False: over all ids, for a sampler without a grammar."""
    balance: float | None = None
    """Weight of the loss that keeps a model's experts equally busy (balance.py); None: 0.001 where
    there are experts."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        found = [
            f"{name} {getattr(self, name)}: at least 0"
            for name in ("text", "image", "z", "balance")
            if getattr(self, name) is not None and not getattr(self, name) >= 0
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
    left out where nothing has a weight; choices_E becomes the loads of experts.
    """
    found: dict[str, float] = {}
    choices = {name: value for name, value in sums.items() if name.startswith("choices_")}
    for name, value in sums.items():
        kind, _, what = name.partition("_")
        if name in choices:
            continue
        if kind != "sum":
            found[name] = int(value) if kind == "targets" else value
        elif weight := sums[f"weight_{what}"]:
            found[f"loss_{what}"] = value / weight
    return found | balance.loads(choices)


def target_weights(batch: Batch) -> dict[str, float]:
    """Return the sum of the targets' weights for each modality.

    Added up over the micro-batches and ranks of a global batch, they are the `norms` of `language`.
    """
    return {
        name: float(batch.weights[batch.modality == number].sum())
        for number, name in enumerate(MODALITIES, start=1)
    }


def language(
    model: UnifiedModel,
    batch: Batch,
    config: LossConfig,
    norms: Mapping[str, float] | None = None,
    sources: Sequence[str] = (),
    kind: Kernel = "auto",
    group: SequenceGroup | None = None,
) -> Losses:
    """Return the loss of packed rows: the sum over modalities m of config.m * sum_m / norms[m], and
    with experts config.balance times the mean balance loss of norms["tokens"] tokens.

    sum_m is the weighted sum of the losses of the batch's targets. `norms` are the sums of the
    target weights of the global batch that this is a part of (None: the batch is all of it), so
    the totals of its parts add up to its loss. A modality of which the global batch has no target
    adds nothing; one of which this part has none adds zero, with gradients of zero.

    With the names of `sources` (two or more), the losses are also reported for each. `kind` says
    which kernels compute attention. With a `group` of ranks that share the batch, the losses are
    those of this rank's part of it.
    """
    if norms is None:
        tokens = float((batch.doc != PADDING).sum())
        norms = {**target_weights(batch), "tokens": tokens}
    attend = attention(
        batch.doc, batch.block, batch.private, kind, product_dtype(model.lm_head_weight)
    )
    if group is None:
        hidden_BTD = model.hidden_states(batch, batch.positions, attend)
    else:
        hidden_BTD, batch = group.hidden_states(model, batch, attend)
    hidden_ND = hidden_BTD.flatten(0, 1)
    table_VD = model.output_table()
    scales = {
        name: getattr(config, name) / norms[name] if norms[name] else 0.0 for name in MODALITIES
    }
    text = _text_targets(model, batch, scales["text"], config.sliced)
    image = model.head.targets(batch, scales["image"], config.sliced)
    targets = [text] if image is None else [text, image]
    total, losses = linear_cross_entropy(hidden_ND, table_VD, targets, config.z)
    if image is None:
        image_total, image_M = model.head(hidden_ND, table_VD, batch, scales["image"])
        total, losses = total + image_total, [*losses, image_M]
    experts = balance.balance(model.routings(), batch.doc)
    if experts and norms["tokens"]:
        weight = balance.WEIGHT if config.balance is None else config.balance
        total = total + weight * experts["sum_balance"] / norms["tokens"]
    sums: dict[str, Tensor] = {"loss": total, **experts}
    for number, (name, losses_M) in enumerate(zip(MODALITIES, losses, strict=True), start=1):
        assert norms[name] or not len(losses_M), f"{name} targets, but a norm of 0"
        chosen_BT = batch.modality == number
        sums[f"targets_{name}"] = chosen_BT.sum()
        sums |= _sums(name, losses_M, batch.weights[chosen_BT])
        if len(sources) > 1:
            source_M = batch.source[chosen_BT]
            for at, source in enumerate(sources):
                here_M = batch.weights[chosen_BT] * (source_M == at)
                sums |= _sums(f"{name}/{source}", losses_M, here_M)
    return Losses(total, {name: value.detach() for name, value in sums.items()})


def _text_targets(model: UnifiedModel, batch: Batch, scale: float, sliced: bool) -> Targets:
    """Return the batch's text and special tokens as rows of the output table."""
    at_M, weights_M = targets_of(batch, TEXT)
    vocabulary, labels_M = model.architecture.vocabulary, batch.labels.flatten()[at_M]
    if not sliced:
        return Targets(at_M, labels_M, scale * weights_M, 0, vocabulary.size)
    mask = vocabulary.word_mask
    allowed = None if mask is None else torch.from_numpy(mask)
    return Targets(at_M, labels_M, scale * weights_M, 0, vocabulary.num_words, allowed)


def _sums(what: str, losses_M: Tensor, weights_M: Tensor) -> dict[str, Tensor]:
    return {f"weight_{what}": weights_M.sum(), f"sum_{what}": (losses_M * weights_M).sum()}
