"""The loss on data that is never learned from, beside what any model without context reaches.

In: held-out sources, read as training reads its own. Out, for each source and modality: the mean
loss in nats and the unigram entropy of the same targets: the loss of the best model that always
predicts the same distribution, even one that knew these very targets. Below it, something of the
context was learned.

A source without images is plain text, and gets its bits per byte too: the nats of the learned
text ids (of special tokens none) by ln 2 and by the bytes of UTF-8 that these ids decode to. Models
with other text tokenizers compare by it, and a model with itself: what is measured before the first
step is kept in before.json, so that a run tells what it did to the text ability it began with.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path

import torch

from unimodal import noted
from unimodal.codec import ImageCodec
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.sources import SourceConfig
from unimodal.data.streams import Found
from unimodal.sequence import IGNORE, MODALITIES, PADDING, Batch
from unimodal.sequencer import Sequencer

BITS = "bits_per_byte"
BEFORE = "before.json"


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
        self, config: HeldOutConfig, sequencer: Sequencer, codec: ImageCodec, loader: LoaderConfig,
        shards: Found | None = None,
    ) -> None:  # fmt: skip
        """Read the rows; errors are the Loader's. `shards`: those of all sources, None: they are
        found now.
        """
        settings = loader.plain
        self.batches: dict[str, list[Batch]] = {}
        self.plain: dict[str, Plain] = {}
        for name, source in config.sources.items():
            rows = iter(Loader({name: source}, sequencer, codec, settings, found=shards))
            self.batches[name] = [batch for batch, _ in islice(rows, config.rows)]
            if not any((batch.weights > 0).any() for batch in self.batches[name]):
                raise ValueError(
                    f"held_out.sources.{name}: its first {config.rows} rows have no target, so "
                    "there is nothing to measure; name another source, or more held_out.rows"
                )
            only = Plain.of(self.batches[name], sequencer)
            if only is not None:
                self.plain[name] = only

    @torch.no_grad()
    def __call__(self, measure: Callable[[Batch], dict[str, float]]) -> dict[str, float]:
        """held_out.NAME.text and .image: mean losses in nats, of latents of the velocity; with
        _unigram behind: entropies of ids; .bits_per_byte of plain text.

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
                entropy = self._unigram(batches, modality)
                if entropy is not None:
                    found[f"held_out.{name}.{modality}_unigram"] = entropy
            if name in self.plain:
                found[f"held_out.{name}.{BITS}"] = self.plain[name].bits_per_byte(measure)
        return found

    def _unigram(self, batches: list[Batch], modality: str) -> float | None:
        """Entropy in nats of the targets of a modality, weighted as in the loss; None: they are
        latents, which have no ids.
        """
        labels, weights = map(torch.cat, zip(*self._targets(batches, modality), strict=True))
        if (labels == IGNORE).any():
            return None
        share_V = torch.bincount(labels, weights.double())
        share_V = share_V[share_V > 0] / share_V.sum()
        return float(-(share_V * share_V.log()).sum())

    def _targets(
        self, batches: list[Batch], modality: str
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in batches:
            chosen = batch.modality == 1 + MODALITIES.index(modality)
            yield batch.labels[chosen], batch.weights[chosen]


@dataclass(frozen=True, eq=False)
class Plain:
    """Rows of which only text is a target, each id with the weight 1, and the text's bytes."""

    batches: list[Batch]
    num_bytes: int

    @classmethod
    def of(cls, batches: list[Batch], sequencer: Sequencer) -> "Plain | None":
        """The same rows without the targets that are special tokens; None where they have a
        image, or nothing is learned.
        """
        if any(any(batch.spans) for batch in batches):
            return None
        only, num_bytes = [], 0
        for batch in batches:
            is_text = torch.from_numpy(sequencer.vocabulary.is_text(batch.labels.numpy()))
            labels = batch.labels.where(is_text, IGNORE)
            modality = batch.modality * is_text
            only.append(replace(batch, labels=labels, weights=is_text.float(), modality=modality))
            for labels_T, doc_T in zip(labels, batch.doc, strict=True):
                texts = _texts(labels_T.tolist(), doc_T.tolist())
                num_bytes += sum(
                    len(sequencer.text_tokenizer.decode(ids).encode()) for ids in texts
                )
        return cls(only, num_bytes) if num_bytes else None

    def bits_per_byte(self, measure: Callable[[Batch], dict[str, float]]) -> float:
        """The information of a byte of these texts to the model that is measured."""
        reports = [measure(batch) for batch in self.batches]
        nats = sum(one["loss_text"] * one["weight_text"] for one in reports if one["weight_text"])
        return nats / math.log(2) / self.num_bytes


def _texts(labels: list[int], docs: list[int]) -> Iterator[list[int]]:
    """The ids of neighbouring targets of one document, text by text."""
    for (doc, is_target), places in groupby(
        range(len(labels)), lambda at: (docs[at], labels[at] != IGNORE)
    ):
        if is_target and doc != PADDING:
            yield [labels[at] for at in places]


def note(output: Path, found: Mapping[str, float]) -> None:
    """Keep what was measured before the first step of the run in `output`."""
    (output / BEFORE).write_text(json.dumps(found, indent=1) + "\n")


def before_run(output: Path) -> dict[str, float]:
    """Return what was measured before the first step of the run in `output`, if that is there."""
    path = output / BEFORE
    if not path.exists():
        return {}
    return noted.parsed(path, path.read_bytes(), "remove it, and nothing is compared with it")


def compared(before: Mapping[str, float], last: Mapping[str, float]) -> list[str]:
    """Lines "NAME before -> after" of what was noted and what the last step's log has."""
    return [
        f"{name} {value:.4f} -> {last[name]:.4f}"
        for name, value in before.items()
        if name in last and not name.endswith("_unigram")
    ]
