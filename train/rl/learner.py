"""The policy and its objective as one module, which the engine trains.

In: samples. Out: the loss of a global batch of them. The probability of a choice is what generation
samples it with at temperature 1: the softmax over the ids that the grammar allows there, or the
image head's own.

Letters: M choices, N tokens, D width, V rows of the output table, W ids of a mask.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unimodal.cross_entropy import product_dtype
from unimodal.kernels import Kernel, attention, why_unavailable
from unimodal.sampling import log_probability
from unimodal.unified import UnifiedModel

from ..learner import TOTAL, Learner
from .objective import clipped, critical, divergence, num_critical, preference_loss
from .replay import CODE
from .report import sums
from .run import DpoConfig, GrpoConfig
from .samples import Packed, Sample, Scores, pack

CHUNK_LOGITS = 2**25  # of choices whose logits are held at once; those of more are computed twice
Scored = tuple[Tensor, Tensor]
"""Log-probabilities and entropies."""


class PolicyLearner(Learner[list[Sample]]):
    """A policy: a subclass says what it minimises."""

    def __init__(
        self,
        model: UnifiedModel,
        masks: Sequence[np.ndarray],
        kinds: Sequence[str] = (),
        device: str = "cpu",
        autocast: bool = False,
        attention: Kernel = "auto",
    ) -> None:
        """`masks`: those of the Replay that makes the samples' trajectories, a list that it adds
        to. `kinds`: those of the prompts, to report. Others: as of LanguageLearner.
        """
        super().__init__()
        self.model, self.masks, self.kinds = model, masks, kinds
        self.device, self.autocast, self.attention = device, autocast, attention
        table: Any = model.model.embed_tokens if model.config.tied_head else model.lm_head
        self.outside = [table.weight]
        self.scored: list[Scores] = []
        """Of the samples of the last forward."""

    def taught(self, samples: list[Sample]) -> list[Sample]:
        """Return the samples that add anything to the loss: the others need not be computed."""
        return samples

    def loss(
        self, samples: list[Sample], packed: Packed, log_p_M: Tensor, entropy_M: Tensor,
        norms: Mapping[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Return the samples' part of the loss of a global batch, and means over that to report."""
        raise NotImplementedError

    def norms(self, batch: list[Sample]) -> dict[str, float]:
        """What the batch adds to the sums that losses and reports are divided by."""
        return {
            "replies": len(batch),
            "choices": sum(map(len, batch)),
            "taught": sum(map(len, self.taught(batch))),
            "tokens": sum(len(one.trajectory.ids) for one in batch),
            **sums(batch, self.kinds),
        }

    def forward(
        self, micro_batch: list[Sample], norms: Mapping[str, float] | None = None
    ) -> dict[str, Tensor]:
        """Return TOTAL and what is reported; norms None: leave only the samples' scores in
        `scored`.
        """
        taught = micro_batch if norms is None else self.taught(micro_batch)
        some = taught or micro_batch[:1]  # so that all parameters have gradients, of 0
        pad = self.model.architecture.vocabulary.special("pad")
        packed = pack(some, pad, self.device, self._shares_prompts)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            log_p_M, entropy_M = self.scores(packed)
        self.scored = _apart(log_p_M, entropy_M, packed.lengths)
        if norms is None:
            return {TOTAL: log_p_M.sum()}
        total, reports = self.loss(some, packed, log_p_M, entropy_M, norms)
        reward = log_p_M.new_tensor([one.reward for one in micro_batch]).sum() / norms["replies"]
        entropy = len(taught) and entropy_M.detach().sum() / norms["taught"]
        reports["entropy"] = torch.as_tensor(entropy).to(reward)
        return {TOTAL: total, "loss": total.detach(), "reward": reward, **reports}

    @property
    def _shares_prompts(self) -> bool:
        """Return whether replies to one prompt are one document: not with flash-attn's kernels,
        which know causal documents alone.
        """
        dtype = product_dtype(self.model.lm_head_weight)
        why_no_flash = why_unavailable("flash", torch.device(self.device), dtype)
        return self.attention in ("flex", "sdpa") or why_no_flash is not None

    def scores(self, packed: Packed) -> Scored:
        """Return the log-probability and the entropy of each choice, float32 (M,) both."""
        model, batch = self.model, packed.batch
        dtype = product_dtype(model.lm_head_weight)
        attend = attention(batch.doc, batch.block, batch.private, self.attention, dtype)
        hidden_ND = model.hidden_states(batch, batch.positions, attend).flatten(0, 1)
        table_VD = model.output_table()
        # The head is called even where there is no code: other ranks gather its weights.
        numbers = sorted({CODE, *packed.mask_M.unique().tolist()})
        found, places = [], []
        for number in numbers:
            (place,) = (packed.mask_M == number).nonzero(as_tuple=True)
            scored = model.head.log_probability if number == CODE else self._words(number)
            ids, hidden = packed.ids_M[place], hidden_ND[packed.at_M[place]]
            found.append(_in_chunks(scored, hidden, table_VD, ids))
            places.append(place)
        back_M = torch.cat(places).argsort()
        log_p, entropy = (torch.cat(one)[back_M] for one in zip(*found, strict=True))
        return log_p, entropy

    def _words(self, number: int) -> Callable[[Tensor, Tensor, Tensor], Scored]:
        """Return what scores choices among the words that a mask allows."""
        allowed_W = torch.from_numpy(self.masks[number]).to(self.device)

        def scored(hidden_MD: Tensor, table_VD: Tensor, ids_M: Tensor) -> Scored:
            logits_MW = F.linear(hidden_MD, table_VD[: len(allowed_W)])
            return log_probability(logits_MW.masked_fill(~allowed_W, -torch.inf), ids_M)

        return scored

    def micro_batches(self, batch: list[Sample], rows: int) -> list[list[Sample]]:
        """So many samples each."""
        return [batch[start : start + rows] for start in range(0, len(batch), rows)]

    def digests(self, batch: list[Sample]) -> list[str]:
        """Of each sample's ids and reward."""
        return [
            hashlib.sha256(one.trajectory.ids.tobytes() + repr(one.reward).encode())
            .hexdigest()[:16] for one in batch
        ]  # fmt: skip


class GrpoLearner(PolicyLearner):
    """GRPO: what is maximised of each choice is its clipped surrogate, less the divergence from the
    starting model, plus its entropy, each with its weight (arXiv:2402.03300, eq. 3).
    """

    def __init__(self, config: GrpoConfig, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.config = config

    def taught(self, samples: list[Sample]) -> list[Sample]:
        """Those of groups whose rewards differ; all, where other terms than rewards count."""
        if self.config.kl or self.config.entropy:
            return samples
        return [one for one in samples if one.advantage]

    def norms(self, batch: list[Sample]) -> dict[str, float]:
        """Also the sum of the choices' weights."""
        return super().norms(batch) | {"weights": sum(self._weight(len(one)) for one in batch)}

    def loss(
        self, samples: list[Sample], packed: Packed, log_p_M: Tensor, entropy_M: Tensor,
        norms: Mapping[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Return the loss and, to report, the divergence and the share of choices that are clipped,
        in the mean over the choices that teach.
        """
        config = self.config
        old_M = _joined([one.old.log_p_n if one.old else None for one in samples], log_p_M)
        per_sample = log_p_M.new_tensor([one.advantage for one in samples])
        weight_M = self._weights(samples, packed, entropy_M, norms)
        surrogate_M, is_clipped_M = clipped(
            log_p_M, old_M, per_sample[packed.sample_M], config.clip_low, config.clip_high
        )
        gain_M = surrogate_M
        if config.entropy:
            gain_M = gain_M + config.entropy * entropy_M
        reports = {"clip_share": is_clipped_M.sum() / max(norms["taught"], 1)}
        if config.kl:
            kl_M = divergence(log_p_M, _joined([one.start_n for one in samples], log_p_M))
            gain_M = gain_M - config.kl * kl_M
            reports["kl"] = kl_M.detach().sum() / norms["choices"]
        return -(weight_M * gain_M).sum(), reports

    def _weights(
        self, samples: list[Sample], packed: Packed, entropy_M: Tensor, norms: Mapping[str, float]
    ) -> Tensor:
        """Return the weight of each choice in the loss of the global batch."""
        config = self.config
        known_M = _joined([one.old.entropy_n if one.old else None for one in samples], entropy_M)
        weight_M = torch.cat([
            critical(one, config.critical_share, config.rest_weight)
            for one in known_M.split(packed.lengths)
        ])  # fmt: skip
        if config.mean == "choices":
            return weight_M / norms["weights"]
        if config.mean == "constant":
            assert config.constant_tokens is not None, "it was asked for"
            return weight_M / (norms["replies"] * config.constant_tokens)
        of_reply = weight_M.new_tensor([self._weight(length) for length in packed.lengths])
        return weight_M / of_reply[packed.sample_M] / norms["replies"]

    def _weight(self, num_choices: int) -> float:
        """Return the sum of the weights of a reply's choices."""
        if self.config.critical_share is None:
            return float(num_choices)
        most = num_critical(num_choices, self.config.critical_share)
        return most + self.config.rest_weight * (num_choices - most)


class DpoLearner(PolicyLearner):
    """DPO: a batch is pairs of samples, the better one before the worse."""

    def __init__(self, config: DpoConfig, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.config = config

    def norms(self, batch: list[Sample]) -> dict[str, float]:
        """Also the number of pairs that tell anything."""
        return super().norms(batch) | {"pairs": sum(one.advantage for one in batch) / 2}

    def loss(
        self, samples: list[Sample], packed: Packed, log_p_M: Tensor, entropy_M: Tensor,
        norms: Mapping[str, float],
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Return the mean loss of the pairs that tell anything, and their mean margin."""
        of_sample = log_p_M.new_zeros(len(samples))
        log_p_R = of_sample.index_add(0, packed.sample_M, log_p_M)
        start_M = _joined([one.start_n for one in samples], log_p_M)
        start_R = of_sample.index_add(0, packed.sample_M, start_M)
        loss, margin = preference_loss(log_p_R, start_R, self.config.beta)
        tells = log_p_M.new_tensor([one.advantage for one in samples[::2]])
        share = tells / norms["pairs"] if norms["pairs"] else torch.zeros_like(tells)
        return (share * loss).sum(), {"margin": (share * margin.detach()).sum()}


def _in_chunks(
    scored: Callable[[Tensor, Tensor, Tensor], Scored],
    hidden_MD: Tensor, table_VD: Tensor, ids_M: Tensor,
) -> Scored:  # fmt: skip
    """Return the scores, with memory for CHUNK_LOGITS logits where there are more."""
    most = max(1, CHUNK_LOGITS // len(table_VD))
    if len(ids_M) <= most:
        return scored(hidden_MD, table_VD, ids_M)
    parts = [
        checkpoint(scored, hidden, table_VD, ids, use_reentrant=False)
        for hidden, ids in zip(hidden_MD.split(most), ids_M.split(most), strict=True)
    ]
    log_p, entropy = (torch.cat(one) for one in zip(*parts, strict=True))
    return log_p, entropy


def _joined(arrays: Sequence[np.ndarray | None], now_M: Tensor) -> Tensor:
    """Return arrays of each sample end to end; where they are None, the values of now."""
    if any(one is None for one in arrays):
        return now_M.detach()
    return torch.from_numpy(np.concatenate([one for one in arrays if one is not None])).to(now_M)


def _apart(log_p_M: Tensor, entropy_M: Tensor, lengths: list[int]) -> list[Scores]:
    parts = (one.detach().cpu().split(lengths) for one in (log_p_M, entropy_M))
    return [Scores(log_p.numpy(), entropy.numpy()) for log_p, entropy in zip(*parts, strict=True)]
