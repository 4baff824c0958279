"""The loss on data that is never learned from, beside what any model without context reaches.

In: held-out sources, read as training reads its own. Out, for each source and modality: the mean
loss in nats and the unigram entropy of the same targets: the loss of the best model that always
predicts the same distribution, even one that knew these very targets. Below it, something of the
context was learned.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

import torch

from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.rows import Encode
from unimodal.data.sources import SourceConfig
from unimodal.sequence import Batch, Sequencer

from .objectives import modalities

MODALITIES = ("text", "image")


@dataclass(frozen=True)
class HeldOutConfig:
    """What is measured beside training; no sources: nothing."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    rows: int = 64
    """Rows of each source: the first ones of its order."""
    every_steps: int = 500
    """Steps between two measurements; the last step is measured too."""

    def problems(self) -> list[str]:
        """What is wrong with the values, one sentence each."""
        return [
            f"{name} {getattr(self, name)}: at least 1"
            for name in ("rows", "every_steps")
            if getattr(self, name) < 1
        ]


class HeldOut:
    """Held-out rows in memory, and the measure of a model on them."""

    def __init__(
        self, config: HeldOutConfig, sequencer: Sequencer, encode: Encode, loader: LoaderConfig
    ) -> None:
        """Read the rows; errors are the Loader's. Nothing is dropped or varied by chance."""
        rule = loader.pictures
        plain = replace(rule, random_crop=False, flip=0.0) if rule is not None else None
        settings = replace(loader, batch_rows=1, caption_dropout=0.0, pictures=plain, stages=())
        self.first_code = sequencer.vocabulary.first_code
        self.batches: dict[str, list[Batch]] = {}
        for name, source in config.sources.items():
            rows = iter(Loader({name: source}, sequencer, encode, settings))
            self.batches[name] = [batch for batch, _ in islice(rows, config.rows)]

    @torch.no_grad()
    def __call__(self, measure: Callable[[Batch], dict[str, float]]) -> dict[str, float]:
        """held_out.NAME.text and .image: mean losses in nats; with _unigram behind: entropies.

        `measure` gives the reports of a batch (see `reported`).
        """
        found: dict[str, float] = {}
        for name, batches in self.batches.items():
            losses = [measure(batch) for batch in batches]
            for modality in MODALITIES:
                weight = sum(one[f"weight_{modality}"] for one in losses)
                if not weight:
                    continue
                total = sum(
                    one[f"loss_{modality}"] * one[f"weight_{modality}"]
                    for one in losses
                    if one[f"weight_{modality}"]
                )
                found[f"held_out.{name}.{modality}"] = total / weight
                found[f"held_out.{name}.{modality}_unigram"] = self._unigram(batches, modality)
        return found

    def _unigram(self, batches: list[Batch], modality: str) -> float:
        """Entropy in nats of the targets of a modality, weighted as in the loss."""
        labels, weights = map(torch.cat, zip(*self._targets(batches, modality), strict=True))
        share_V = torch.bincount(labels, weights.double())
        share_V = share_V[share_V > 0] / share_V.sum()
        return float(-(share_V * share_V.log()).sum())

    def _targets(
        self, batches: list[Batch], modality: str
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in batches:
            chosen = modalities(batch.labels, self.first_code)[modality]
            yield batch.labels[chosen], batch.weights[chosen]
