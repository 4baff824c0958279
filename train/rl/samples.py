"""Samples are replies that were judged; packed, they are what a policy learns from.

Letters: n choices of a reply, M choices of all, N tokens of all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from unimodal.sequence import Batch, Row
from unimodal.sequence import Sequence as TokenSequence

from .replay import Trajectory


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of the n choices of a reply by some weights: log-probabilities and entropies, float32
    (n,) both.
    """

    log_p_n: np.ndarray
    entropy_n: np.ndarray


@dataclass(frozen=True, eq=False)
class Sample:
    """A Sample is a reply with its reward, and what is known of it."""

    kind: str
    trajectory: Trajectory
    reward: float
    advantage: float
    """Against its group; in pairs 1 where the two rewards differ, else 0."""
    facts: dict[str, float] = field(default_factory=dict)
    """What else was found, to report, such as `right`."""
    old: Scores | None = None
    """By the weights that it was sampled from; None: by those of now, for they are the same."""
    start_n: np.ndarray | None = None
    """Log-probabilities by the starting model, float32 (n,)."""

    def __len__(self) -> int:
        return len(self.trajectory)


@dataclass(frozen=True, eq=False)
class Packed:
    """Packed samples: their tokens in one row, and their M choices in order.

    at_M: indices of the tokens, ids_M and mask_M: see Trajectory. sample_M: the sample of each
    choice.
    """

    batch: Batch
    at_M: Tensor
    ids_M: Tensor
    mask_M: Tensor
    sample_M: Tensor
    lengths: list[int]
    """How many choices each sample has."""


def pack(
    samples: Sequence[Sample], pad: int, device: torch.device | str, shared: bool = True
) -> Packed:
    """Return the samples side by side in one row, which so has no padding, on a device.

    shared: replies to one prompt that follow one another are one document, which has the prompt
    once, and behind it the replies, each private: it sees the prompt and itself. So all are what
    they would be alone, and the prompt is read once.
    """
    made = [sample.trajectory for sample in samples]
    groups = [list(group) for _, group in groupby(made, lambda one: id(one.prompt))]
    if not shared:
        groups = [[one] for one in made]
    documents = [_document(group) for group in groups]
    starts = np.cumsum([0, *map(len, documents)]).tolist()
    row = Row.pack(documents, starts[-1], pad)
    at = [
        start + at_n
        for start, group in zip(starts, groups, strict=False)
        for at_n in _places(group)
    ]  # fmt: skip
    lengths = [len(one) for one in made]

    def joined(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(device)

    return Packed(
        batch=Batch.stack([row]).to(device),
        at_M=joined(at),
        ids_M=joined([one.ids_n for one in made]),
        mask_M=joined([one.mask_n for one in made]),
        sample_M=joined([np.repeat(np.arange(len(made)), lengths)]),
        lengths=lengths,
    )


def _document(group: Sequence[Trajectory]) -> TokenSequence:
    """Return a prompt with replies to it, which are private where they are several."""
    pieces = [group[0].prompt]
    for number, one in enumerate(group, start=1):
        private = np.full(len(one.reply), number if len(group) > 1 else 0, np.int32)
        pieces.append(replace(one.reply, private=private))
    return TokenSequence.joined(pieces)


def _places(group: Sequence[Trajectory]) -> Iterator[np.ndarray]:
    """Yield the tokens of `_document` that the choices of each reply were sampled from."""
    last = len(group[0].prompt) - 1
    start = last + 1
    for one in group:
        yield np.where(one.at_n < 0, last, start + one.at_n)
        start += len(one.reply)
