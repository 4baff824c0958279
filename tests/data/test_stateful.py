"""The loader as a dataset with a state: it goes on from its own, and from no other."""

import json

import pytest
import torch
from loader_cases import CONFIG, batches, equal, made
from loader_cases import sequencer as sequencer
from loader_cases import sources as sources

from unimodal.data.stateful import StatefulBatches
from unimodal.data.windows import LoaderState


def test_a_state_of_another_version_or_of_other_windows_is_an_error(sources, sequencer):
    loader = made(sources, sequencer)
    dataset, whole = StatefulBatches(loader), vars(LoaderState(3, taken=((0, 5),), owed=(0.0,)))
    older = {"seed": 3, "window": 1, "row": 0, "units": [5]}
    for wrong, words in (
        (older, "another version of the loader"),
        (whole | {"row": CONFIG.window_rows}, "windows have 8 rows"),
        (whole | {"row": -1}, "windows have 8 rows"),
        (whole | {"owed": []}, "streams"),
        (whole | {"group_rows": 8}, "of groups of 8 rows, the settings of 1: group_rows decides"),
    ):
        with pytest.raises(ValueError, match=words):
            dataset.load_state_dict(wrong)


def test_a_stateful_dataset_goes_on_from_its_state(sources, sequencer):
    whole = [batch for batch, _ in batches(made(sources, sequencer), 9)]
    first = StatefulBatches(made(sources, sequencer))
    for batch, other in zip(batches(first, 4), whole, strict=False):
        assert equal(batch, other)
    state = json.loads(json.dumps(first.state_dict()))
    again = StatefulBatches(made(sources, sequencer))
    again.load_state_dict(state)
    for batch, other in zip(batches(again, 5), whole[4:], strict=True):
        assert equal(batch, other)
    with pytest.raises(ValueError, match="state is of seed 9"):
        again.load_state_dict({**state, "seed": 9})
    workers = torch.utils.data.DataLoader(again, batch_size=None, num_workers=1)
    with pytest.raises(ValueError, match="num_workers must be 0"):
        next(iter(workers))


def test_torchdata_takes_it(sources, sequencer):
    stateful_dataloader = pytest.importorskip("torchdata.stateful_dataloader")

    def loaded():
        dataset = StatefulBatches(made(sources, sequencer))
        return stateful_dataloader.StatefulDataLoader(dataset, batch_size=None, num_workers=0)

    whole = batches(loaded(), 8)
    first = loaded()
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    again = loaded()
    again.load_state_dict(first.state_dict())
    for batch, other in zip(batches(again, 5), whole[3:], strict=True):
        assert equal(batch, other)
