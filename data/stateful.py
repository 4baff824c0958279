"""Wrap the Loader as a dataset of `torchdata.stateful_dataloader`, for loops that expect that.

In: a Loader. Out: its batches, with `state_dict` and `load_state_dict`: the LoaderState as plain
numbers, which any number of ranks and workers goes on from.

    dataset = StatefulBatches(Loader(sources, sequencer, encode, config, rank=rank, ...))
    batches = StatefulDataLoader(dataset, batch_size=None, num_workers=0)

`num_workers` stays 0: StatefulDataLoader keeps a state for each of its workers and refuses another
number of them, while the Loader's own (`Loader(workers=N)`) change nothing.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from unimodal.sequence import Batch

from .loader import Loader
from .windows import LoaderState


class StatefulBatches(IterableDataset):
    """Yields batches without end; every iteration goes on where the last one stopped."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise ValueError(
                "num_workers must be 0 here: give the Loader its own with Loader(workers=N)"
            )
        for batch, state in self.loader:
            self.loader.go_to(state)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch begins."""
        return asdict(self.loader.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; ValueError for a state of other settings."""
        self.loader.go_to(LoaderState.of(state))
