"""What an engine trains: a model and its objective as one module, whose forward gives the loss.

One module, because a sharded engine gathers weights where modules are called: whatever the loss
touches is touched inside `forward`, in the same order on every rank, whatever is in its batch.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from unimodal.hub.grow import TABLES
from unimodal.kernels import Kernel
from unimodal.sequence import PADDING, Batch, Span
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from unimodal.tokenizer.quantizers import ranks
from unimodal.unified import UnifiedModel

from .flops import document_counts
from .objectives import LossConfig, language, target_weights
from .sequence_parallel import SequenceGroup

T = TypeVar("T")
TOTAL = "total"  # of what a forward gives: the scalar to minimise; the others are to report


class Learner(nn.Module, Generic[T]):
    """A `model`, and how a batch of T becomes a loss."""

    model: Any
    outside: list[nn.Parameter]
    """Parameters that `forward` uses outside of the modules that they belong to."""
    no_decay: frozenset[str] = frozenset()
    """Names of the model's parameters that weight decay leaves alone."""

    def norms(self, batch: T) -> dict[str, float]:
        """What the batch adds to the sums that losses are divided by, known before any forward."""
        raise NotImplementedError

    def forward(self, micro_batch: T, norms: Mapping[str, float]) -> dict[str, Tensor]:
        """TOTAL, and scalars that add up over the micro-batches of a global batch with these
        norms.
        """
        raise NotImplementedError

    def micro_batches(self, batch: T, rows: int) -> list[T]:
        """The batch in micro-batches of so many rows."""
        raise NotImplementedError

    def digests(self, batch: T) -> list[str]:
        """What tells each row from every other: the first 16 hex digits of a SHA-256."""
        raise NotImplementedError


class LanguageLearner(Learner[Batch]):
    """A model that reads and draws, and the loss of packed rows."""

    def __init__(
        self,
        model: UnifiedModel,
        config: LossConfig,
        sources: Sequence[str],
        device: str = "cpu",
        autocast: bool = False,
        attention: Kernel = "auto",
        frozen_rows: int = 0,
        group: SequenceGroup | None = None,
    ) -> None:
        """`autocast`: matrix products in bfloat16 while weights are float32. `attention`: which
        kernels compute it. `frozen_rows`: so many rows of the embedding and of the head, the first
        ones, stay what they are. `group`: the ranks that share rows with this one.
        """
        super().__init__()
        self.group = group
        self.model = model
        self.config, self.sources = config, sources
        self.device, self.autocast, self.attention = device, autocast, attention
        table: Any = model.model.embed_tokens if model.config.tied_head else model.lm_head
        self.outside = [table.weight]
        if frozen_rows:
            self._freeze(frozen_rows)

    def _freeze(self, rows: int) -> None:
        """A row without gradient and decay is the same bits after a step of AdamW: its moments are
        zero. The hook sees the whole gradient, before a sharded engine cuts it.
        """
        named = dict(self.model.named_parameters())
        self.no_decay = frozenset(name for name in TABLES if name in named)
        for name in self.no_decay:
            named[name].register_hook(partial(_without_rows, rows))

    def norms(self, batch: Batch) -> dict[str, float]:
        """The sum of the targets' weights for each modality; and, to log, the counts of
        `document_counts` and of the embedder's products. Of a group the first rank counts.
        """
        products = float(self.model.embedder.products(batch))
        found = target_weights(batch) | document_counts(batch) | {"embedder": products}
        return found if self._counts else dict.fromkeys(found, 0.0)

    @property
    def _counts(self) -> bool:
        return self.group is None or self.group.place == 0

    def forward(
        self, micro_batch: Batch, norms: Mapping[str, float] | None = None
    ) -> dict[str, Tensor]:
        """See `language`; norms None: the micro-batch is all of its batch."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            moved = micro_batch.to(self.device)
            losses = language(
                self.model, moved, self.config, norms, self.sources, self.attention, self.group
            )
        sums = losses.sums
        if norms is None and self.group is not None:
            sums = self.group.summed(sums)
        return {TOTAL: losses.total, **sums}

    def micro_batches(self, batch: Batch, rows: int) -> list[Batch]:
        """Neighbours stay together: the rows of a group cost the same."""
        return batch.split(rows)

    def digests(self, batch: Batch) -> list[str]:
        """Of each row's ids, labels, weights, and what its images hold: latents, codes, pixels; of
        rows that fill up a batch, which are of no document, none. Of a group the first rank says.
        """
        if not self._counts:
            return []
        rows = zip(batch.doc, batch.ids, batch.labels, batch.weights, batch.spans, strict=True)
        return [
            _digest([*row, *_contents(spans)])
            for doc, *row, spans in rows
            if (doc != PADDING).any()
        ]


class TokenizerLearner(Learner[Tensor]):
    """An image tokenizer, and the loss of its reconstructions."""

    step = 0
    """The number of the step in hand, from 0."""

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        config: TokenizerLossConfig,
        device: str = "cpu",
        autocast: bool = False,
        seed: int = 0,
        freeze_codes: bool = False,
    ) -> None:
        """`autocast`: convolutions and matrix products in bfloat16; never the quantizer's.
        `freeze_codes`: encoder and quantizer stay as they are, so that codes do.
        """
        super().__init__()
        self.model, self.device, self.outside = tokenizer, device, []
        self.autocast, self.freeze_codes = autocast, freeze_codes
        if freeze_codes:
            tokenizer.encoder.requires_grad_(False)
            tokenizer.quantizer.requires_grad_(False)
        self.loss = TokenizerLoss(config, tokenizer.quantizer.width, seed).to(device)

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield all parameters that learn: the tokenizer's by their names, and those beside it."""
        named = self.model.named_parameters()
        yield from ((name, one) for name, one in named if one.requires_grad)
        for name, network in self.loss.trained():
            yield from network.named_parameters(name)

    def first_step(self, name: str) -> int:
        """Return the step from which on a parameter learns."""
        adversarial = self.loss.config.adversarial
        late = adversarial is not None and name.startswith("discriminator.")
        return adversarial.start_step if adversarial is not None and late else 0

    def norms(self, batch: Tensor) -> dict[str, float]:
        """The number of images, for a loss is a mean over those of all processes."""
        return {"images": len(batch)}

    def forward(self, micro_batch: Tensor, norms: Mapping[str, float]) -> dict[str, Tensor]:
        """See TokenizerLoss; micro_batch: (B, 3, H, W) in [-1, 1]."""
        has_none = not len(micro_batch)  # all its images are bad: it takes part, and adds 0
        share = len(micro_batch) / norms["images"]
        if has_none:
            micro_batch = micro_batch.new_zeros(1, *micro_batch.shape[1:])
        moved = micro_batch.to(self.device, memory_format=torch.channels_last)
        if self.freeze_codes:  # codebooks that follow the latents do so in training alone
            self.model.quantizer.eval()
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.autocast)
        with autocast, ranks.left_out(has_none):
            made = self.model(moved, self.step)
            total, reports = self.loss(made, moved, self.model.last_weight, self.step, share)
        return {TOTAL: total, **reports}

    def micro_batches(self, batch: Tensor, rows: int) -> list[Tensor]:
        """The batch as it is."""
        return [batch]

    def digests(self, batch: Tensor) -> list[str]:
        """Of each image."""
        return [_digest([image]) for image in batch]


def _without_rows(rows: int, gradient_VD: Tensor) -> Tensor:
    left_VD = gradient_VD.clone()  # a hook may not change what it is given
    left_VD[:rows] = 0
    return left_VD


def _contents(spans: Sequence[Span]) -> Iterator[Tensor]:
    contents = (content for one in spans for content in (one.latents, one.codes, one.pixels))
    return (torch.from_numpy(content) for content in contents if content is not None)


def _digest(tensors: Sequence[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.cpu().numpy().tobytes())
    return found.hexdigest()[:16]
