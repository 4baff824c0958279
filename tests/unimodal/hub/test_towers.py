"""Vision towers of Hugging Face: equal to their own classes, cut, resized, and refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import WORDS
from torch import Tensor
from towers import (
    CROPPED,
    MEAN,
    SIDE,
    SQUARE,
    STD,
    images,
    vision_model,
    vision_part,
    write_preprocessing,
    write_tower,
)

from unimodal.hub.towers import FoundTower, read_tower
from unimodal.tokenizer import backbone
from unimodal.tower import EFFICIENTNET, NETWORK
from unimodal.tower_embedder import network_of

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ["siglip", "siglip with text", "clip", "clip with text", "dinov2", "dinov2 gated"]


def loaded(found: FoundTower) -> torch.nn.Module:
    """Return a tower's network with its weights."""
    network = network_of(found.tower.network)
    state = {}
    for one in found.weights:
        data = bytearray(b"".join(map(bytes, one.chunks())))
        values = torch.frombuffer(data, dtype=torch.float32).view(one.shape)
        state[one.name.removeprefix(NETWORK)] = values
    network.load_state_dict(state)
    return network.eval()


def pixels(side: int = SIDE) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [None, -1, -2, -4])
def test_features_are_the_hidden_states_of_their_own_class(tmp_path, kind, layer):
    model = vision_model(kind)
    folder = write_tower(tmp_path / "tower", kind)
    found = read_tower(str(folder), layer)
    with torch.no_grad():
        theirs = vision_part(model)(pixels(), output_hidden_states=True)
        ours = loaded(found)(pixels())
    state = theirs.last_hidden_state if layer is None else theirs.hidden_states[layer]
    expected = state[:, -found.tower.grid.size :]
    assert ours.shape == expected.shape == (3, 16, 24)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
