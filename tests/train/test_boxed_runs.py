"""Runs that learn boxes: the bundle says so, and another model gains them by a run."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from tiny_runs import SHAPE, recipe

import unimodal
from unimodal.data.command import SceneShards
from unimodal.data.scenes.conversations import Mix
from unimodal.data.shards import ShardWriter
from unimodal.train import lm

KINDS = ("draw", "ask", "describe", "edit", "story", "greet")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Requests with boxes."""
    folder = tmp_path_factory.mktemp("layouts")
    mix = Mix(**dict.fromkeys(KINDS, 0.0), layout=1.0)
    scenes = SceneShards("conversations", 30, 7, 64, 30, asdict(mix))
    with ShardWriter(folder) as writer:
        for index in range(30):
            writer.write(f"{index:06d}", scenes.document(index))
    return folder


def test_a_model_gains_boxes_by_a_run(
    tmp_path: Path, shards: Path, tokenizer: Path, layouts: Path, capsys
) -> None:
    plain = recipe(tmp_path / "plain", shards, tokenizer, 1)
    before = lm.train(plain)
    assert not unimodal.load(before).takes_boxes
    gains = replace(
        recipe(tmp_path / "boxes", layouts, tokenizer, 2),
        weights=before, model=replace(SHAPE, boxes=True),
    )  # fmt: skip
    after = unimodal.load(lm.train(gains))
    assert after.takes_boxes
    reply = unimodal.Chat(after, seed=1)("draw this", (), "image", ["a star, 4, 4, 20, 20"])
    assert reply.images[0].size == (64, 64)
    loses = replace(gains, output=tmp_path / "lost", weights=gains.output / "bundle", model=SHAPE)
    with pytest.raises(ValueError, match="model.boxes false is true there"):
        lm.train(loses)
    goes_on = replace(loses, model=None, text_ids=None)
    assert unimodal.load(lm.train(goes_on)).takes_boxes


def test_boxes_are_not_learned_unless_asked_for(
    tmp_path: Path, tokenizer: Path, layouts: Path
) -> None:
    with pytest.raises(ValueError, match="was not trained on boxes"):
        lm.train(recipe(tmp_path / "run", layouts, tokenizer, 1))
