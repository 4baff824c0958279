"""Folders at URLs are whole or not there, and hold no secrets."""

from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
import torch

from unimodal import load, remote, save_bundle
from unimodal.bundle import directory_of
from unimodal.manifest import MANIFEST, BundleError
from unimodal.model import Model
from unimodal.remote import Remote, problem, url_of


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}/runs/mine/bundle"


def flip(url: str) -> None:
    """Flip a bit of a file at a URL."""
    files, path = fsspec.core.url_to_fs(url)
    content = bytearray(files.cat_file(path))
    content[-1] ^= 1
    files.pipe_file(path, bytes(content))


def test_a_bundle_goes_to_a_url_and_back(url: str, tiny_model: Model):
    save_bundle(url, tiny_model)
    names = [
        path.rpartition("/")[2] for path in fsspec.core.url_to_fs(url)[0].ls(url, detail=False)
    ]
    assert MANIFEST in names and "model.safetensors" in names
    loaded = load(url)
    for (name, one), other in zip(
        loaded.transformer.named_parameters(), tiny_model.transformer.parameters(), strict=True
    ):
        assert torch.equal(one, other.bfloat16().float()), name
    assert load(Path(url)).hash == loaded.hash  # a command's argument is a Path
    assert directory_of(url).parts[-2:] == ("mine", "bundle")
    save_bundle(url, tiny_model)  # an older one is replaced
    assert load(url).hash == loaded.hash


def test_what_is_not_whole_is_no_bundle(url: str, tiny_model: Model):
    with pytest.raises(BundleError, match="no bundle: it has no manifest.json, or not yet"):
        load(url)
    save_bundle(url, tiny_model)
    flip(f"{url}/model.safetensors")
    with pytest.raises(BundleError, match="model.safetensors is not the file saved here"):
        load(url)
    with pytest.raises(BundleError, match="is not the file saved here"):  # nothing was kept of it
        load(url)
    flip(f"{url}/model.safetensors")
    assert load(url).hash
    Remote(url).remove("text.json")
    flip(f"{url}/{MANIFEST}")
    with pytest.raises(BundleError):
        load(url)


def test_a_failure_that_passes_is_tried_again(url: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(remote, "WAITS_S", (0.0, 0.0))
    (tmp_path / "file").write_text("content")
    there, left = Remote(url), [TimeoutError("slow"), ConnectionError("away")]
    put_file = there._files.put_file

    def sometimes(*words):
        if left:
            raise left.pop()
        return put_file(*words)

    monkeypatch.setattr(there._files, "put_file", sometimes)
    there.send(tmp_path / "file", "file")
    assert there.read("file") == b"content"
    left += [TimeoutError("to https://me:pass/word@host/?token=abc")] * 3
    with pytest.raises(OSError, match=r"bundle/file cannot be written: TimeoutError") as error:
        there.send(tmp_path / "file", "file")
    assert "word" not in str(error.value) and "abc" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/a",
        "s3://key:sec/ret+secret@bucket/a",
        "https://host/a?signature=secret",
        "memory://a:secret@b/c",
    ],
)
def test_a_url_with_secrets_is_refused_without_them(url: str):
    said = problem(url)
    assert problem("sftp://me@host:22/a") is None
    assert said is not None and "leave credentials to the environment" in said
    assert "secret" not in said
    with pytest.raises(ValueError, match="password or a query"):
        Remote(url)


def test_names_that_are_urls(tmp_path: Path, monkeypatch):
    assert url_of("memory://a/b") == url_of(Path("memory://a/b")) == "memory://a/b"
    for name in (
        None,
        "default",
        "runs/a",
        "/a/b",
        "Qwen/Qwen3-0.6B",
        "file:///a",
        "xyz://a",
        "C:/a",
    ):
        assert url_of(name) is None, name
    monkeypatch.chdir(tmp_path)
    Path("memory:/a").mkdir(parents=True)
    assert url_of(Path("memory:/a")) is None  # a folder that is there


def test_what_opens_no_url_is_named():
    with pytest.raises(ValueError, match="pip install gcsfs"):
        Remote("gs://bucket/a")
    with pytest.raises(ValueError, match="'runs/a': a URL, such as s3"):
        Remote("runs/a")
