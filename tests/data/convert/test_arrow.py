"""Parquet files and datasets of Hugging Face: read as they are, and trusted no more than others."""

import io
import sys

import numpy as np
import pytest
from convert_cases import encoded, outcomes, put, reasons, run, written
from PIL import Image


def test_without_the_library_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    put(tmp_path, t__parquet="PAR1", saved___dataset_info__json="{}")
    for source in ("hf:name", tmp_path / "t.parquet", tmp_path / "saved"):
        result = run(source, tmp_path / "out")
        assert result.exit_code == 2 and "pip install 'unimodal[hf]'" in result.output


@pytest.fixture
def dataset():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "title": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    photos = [
        {"bytes": encoded(10, "JPEG"), "path": None},
        Image.open(io.BytesIO(encoded(20))),
        np.full((16, 24, 3), 30, dtype=np.uint8),
    ]
    table = {"photo": photos, "title": ["one", "two", "three"], "label": [0, 1, 1]}
    return datasets.Dataset.from_dict(table, features)


@pytest.mark.parametrize("kind", ["parquet", "parquets", "saved"])
def test_datasets_of_hugging_face(tmp_path, dataset, kind):
    source = tmp_path / "in" / "t.parquet"
    source.parent.mkdir()
    if kind == "saved":
        dataset.save_to_disk(tmp_path / "in")
    else:
        dataset.to_parquet(source)
    source = source if kind == "parquet" else source.parent
    titles = written(source, tmp_path / "out", "--caption", "title")
    assert titles == [[(None, w), (None, n)] for w, n in (("one", 10), ("two", 20), ("three", 30))]
    labels = written(source, tmp_path / "labels", "--caption", "label")
    assert [document[0][1] for document in labels] == ["cat", "dog", "dog"]
    first, second, _ = outcomes(source, caption=("title",))
    assert first.files["jpg"] == encoded(10, "JPEG") and list(second.files) == ["json", "png"]


def test_a_dataset_by_its_name(tmp_path, dataset, monkeypatch):
    import datasets

    def load_dataset(name, **settings):
        assert (name, settings) == ("someone/something", {"split": "test"})
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    documents = written("hf:someone/something:test", tmp_path / "out", "--caption", "title")
    assert [document[0][1] for document in documents] == ["one", "two", "three"]


def test_images_of_the_hub_lie_in_its_cache_or_nowhere(tmp_path, dataset, monkeypatch):
    import datasets

    put(tmp_path, secret__png=encoded(30), cache___a__png=encoded(10))
    paths = [str(tmp_path / "secret.png"), str(tmp_path / "cache/a.png"), "/etc/passwd"]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    hub = datasets.Dataset.from_dict({"image": paths, "text": ["x"] * 3}, features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: hub)
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "cache"))
    assert reasons("hf:someone/something") == ["outside", "", "outside"]


def test_splits_and_damage_are_named(tmp_path, dataset):
    import datasets

    datasets.DatasetDict({"test": dataset, "train": dataset}).save_to_disk(tmp_path / "all")
    result = run(tmp_path / "all", tmp_path / "out")
    assert "holds the splits test, train: give one" in result.output
    assert len(written(tmp_path / "all/test", tmp_path / "out", "--caption", "title")) == 3
    put(tmp_path, t__parquet="no parquet")
    assert "t.parquet: no parquet" in run(tmp_path / "t.parquet", tmp_path / "more").output


def test_paths_in_a_dataset_lead_nowhere(tmp_path, dataset):
    import datasets

    put(tmp_path, secret__png=encoded(30))
    rows = {"image": [{"bytes": None, "path": str(tmp_path / "secret.png")}], "text": ["x"]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    (tmp_path / "in").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "in/plain.parquet")
    found = reasons(tmp_path / "in/plain.parquet")
    assert found in (["outside"], [""])  # some versions put the image's bytes into the file
