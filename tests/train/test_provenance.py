"""Where a trained model comes from: its card, the data and the commits that made it."""

import json
from pathlib import Path

import pytest
from tiny_runs import recipe

import unimodal
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.train import lm, provenance

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_bundle_of_a_run_loads_and_names_its_provenance(
    tmp_path: Path, shards: Path, tokenizer: Path
) -> None:
    model = unimodal.load(lm.train(recipe(tmp_path / "run", shards, tokenizer, 2)))
    assert model.image_tokenizer.hash == ImageTokenizer.load(tokenizer).hash
    assert model.card["hardware"] in ("cpu", "gpu") and model.card["documents"] == 60


def test_a_card_counts_in_the_data_of_all_before(tmp_path: Path) -> None:
    (tmp_path / "scenes.json").write_text('{"seed": 3}')
    config = recipe(tmp_path, tmp_path, tmp_path, 1)
    before = {"data_seeds": [1, 5], "hours": 2.0, "scores": {}}
    (tmp_path / "card.json").write_text(json.dumps(before))
    found = provenance.card(config, "cpu", [tmp_path], provenance.read(tmp_path))
    assert found["data_seeds"] == [1, 3, 5] and found["hours"] == 2.0
    assert found["began_from"] == {"data_seeds": [1, 5], "hours": 2.0}
    assert not {"output", "tokenizer", "weights"} & set(found["config"])
    assert "shards" not in found["config"]["sources"]["scenes"]


def test_a_run_names_every_commit_that_made_it(tmp_path: Path, monkeypatch) -> None:
    for name in ("a", "b+", "b+", None, "c"):
        monkeypatch.setattr(provenance, "commit", lambda name=name: name)
        provenance.begin(tmp_path)
    assert provenance.commits(tmp_path) == ["a", "b+", "c"]
