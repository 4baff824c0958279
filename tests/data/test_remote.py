"""Shards that lie elsewhere come here once and whole; what cannot come stops with the reason."""

import bz2
import gzip
import http.server
import lzma
import subprocess
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from fsspec import AbstractFileSystem, register_implementation

from unimodal.data import remote
from unimodal.data.remote import local_shards
from unimodal.data.shards import Shard, ShardWriter, find_shards
from unimodal.data.tar import ShardError
from unimodal.document import Document, Text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS_S", (0.01, 0.01))
    with ShardWriter(tmp_path / "in", max_samples=2) as writer:
        for index in range(6):
            writer.write(str(index), Document((Text(f"text {index}"),)))
    return tmp_path / "in"


def keys(paths: list[Path]) -> list[str]:
    return [shard.key(index) for shard in map(Shard, paths) for index in range(len(shard))]


def test_local_places(folder: Path) -> None:
    assert local_shards(str(folder)) == find_shards(folder)
    assert local_shards(str(folder / "shard-000001.tar")) == [folder / "shard-000001.tar"]
    assert keys(local_shards(f"{folder}/shard-{{000002..000000}}.tar")) == list("452301")
    with pytest.raises(ShardError, match="holds no .tar shard"):
        local_shards(str(folder / "missing"))
    with pytest.raises(ShardError, match="there is no shard .*missing.tar: check the path"):
        local_shards(str(folder / "missing.tar"))


def test_urls_are_copied_once(folder: Path) -> None:
    url = f"file://{folder}/shard-{{000000..000002}}.tar"
    paths = local_shards(url)
    assert keys(paths) == list("012345") and all("cache" in str(path) for path in paths)
    for path in folder.glob("*.tar"):
        path.unlink()
    assert local_shards(url) == paths


def test_a_command_of_the_user(folder: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    command = f"pipe:echo run >> {count}; cat {folder}/shard-000000.tar"
    assert keys(local_shards(command)) == keys(local_shards(command)) == ["0", "1"]
    assert count.read_text() == "run\n"


def test_a_copy_that_breaks_is_tried_again(folder: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    command = f"pipe:test -e {flag} || {{ touch {flag}; echo half; exit 3; }}; cat {folder}/*0.tar"
    assert keys(local_shards(command)) == ["0", "1"]


def test_what_cannot_be_copied_stops_with_the_reason(folder: Path) -> None:
    with pytest.raises(ShardError, match="the command ended with 7: no such bucket"):
        local_shards("pipe:echo no such bucket >&2; exit 7")
    with pytest.raises(ShardError, match="command ended with 1: cat"):
        local_shards("pipe:cat /nowhere/a.tar | cat")
    with pytest.raises(ShardError, match="0 bytes came, which are no tar"):
        local_shards("pipe:true {a,b}")
    with pytest.raises(ShardError, match=r"file:///nowhere/a.tar cannot be copied: .*nowhere"):
        local_shards("file:///nowhere/a.tar")
    with pytest.raises(ShardError, match="nonsense://a.tar: Protocol not known: nonsense"):
        local_shards("nonsense://a.tar")
    left = [path for path in remote.cache().rglob("*") if path.is_file()]
    assert left == [], "nothing half copied is kept"


def test_http(folder: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec opens http:// with aiohttp")
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) == 1:
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/shard-{{000000..000001}}.tar"
        assert keys(local_shards(url)) == list("0123")
        assert len(asked) >= 3
    finally:
        server.shutdown()


def test_http_errors_name_their_status_and_only_passing_ones_are_tried_again(folder: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec opens http:// with aiohttp")
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(int(self.path.removeprefix("/").removesuffix(".tar")))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    final = {404: "HTTP 404 Not Found; check the URL", 410: "HTTP 410 Gone; check the URL",
             403: "HTTP 403 Forbidden; get the right to read it"}  # fmt: skip
    passing = {429: "HTTP 429 Too Many Requests", 503: "HTTP 503 Service Unavailable"}
    try:
        for status, words in (final | passing).items():
            asked.clear()
            with pytest.raises(ShardError, match=f"/{status}.tar cannot be copied: {words}$"):
                local_shards(f"http://127.0.0.1:{server.server_port}/{status}.tar")
            assert len(asked) == (1 if status in final else 3)
    finally:
        server.shutdown()


class Answered(Exception):
    """What an HTTP library raises, with the status of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Failing(AbstractFileSystem):
    """A remote place whose failures have the shapes that fsspec gives them."""

    protocol = "failing"
    asked: ClassVar[list[str]] = []

    def _open(self, path: str, *_: object, **__: object) -> object:
        self.asked.append(path)
        name = path.removesuffix(".tar")
        if name == "missing":
            raise FileNotFoundError(f"no object {path}")
        if name == "refused":
            raise FileNotFoundError(path) from ConnectionRefusedError(111, "refused")
        raise FileNotFoundError(path) from Answered(int(name))


@pytest.mark.parametrize(
    ("name", "words", "tries"),
    [
        ("404", "HTTP 404 Not Found; check the URL", 1),
        ("401", "HTTP 401 Unauthorized; get the right to read it", 1),
        ("500", "HTTP 500 Internal Server Error", 3),
        ("599", "HTTP 599", 3),
        ("missing", "no object missing.tar; check the path", 1),
        ("refused", "ConnectionRefusedError: .*refused", 3),
    ],
)
def test_the_first_cause_of_a_failure_decides(
    folder: Path, name: str, words: str, tries: int
) -> None:
    register_implementation("failing", Failing, clobber=True)
    Failing.asked.clear()
    with pytest.raises(ShardError, match=f"failing://{name}.tar cannot be copied: {words}$"):
        local_shards(f"failing://{name}.tar")
    assert len(Failing.asked) == tries


# --- compressed shards --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_shards_are_unpacked_once(folder: Path, tmp_path: Path, kind: str) -> None:
    packers = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    names = {"gz": ("0.tar.gz", "1.tgz", "2.TAR.GZ"), "bz2": ("0.tar.bz2", "1.tbz2", "2.tar.bz2")}
    names["xz"] = ("0.tar.xz", "1.txz", "2.tar")
    packed = tmp_path / "packed"
    packed.mkdir()
    for path, name in zip(find_shards(folder), names[kind], strict=True):
        (packed / name).write_bytes(packers[kind](path.read_bytes()))
    paths = local_shards(str(packed))
    assert keys(paths) == list("012345")
    assert [path.name for path in paths] == ["0.tar", "1.tar", "2.tar"], "as messages name them"
    before = [path.stat().st_mtime_ns for path in paths]
    assert local_shards(str(packed)) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert keys(local_shards(f"file://{packed}/{names[kind][0]}")) == ["0", "1"]
    assert keys(local_shards(f"pipe:cat {packed}/0.*")) == ["0", "1"]


def test_a_changed_compressed_shard_is_unpacked_again(folder: Path) -> None:
    first, second, _ = find_shards(folder)
    packed = folder / "x.tgz"
    packed.write_bytes(gzip.compress(first.read_bytes()))
    assert keys(local_shards(str(packed))) == ["0", "1"]
    packed.write_bytes(gzip.compress(second.read_bytes()))
    assert keys(local_shards(str(packed))) == ["2", "3"]


def test_what_cannot_be_unpacked_stops_with_the_reason(folder: Path) -> None:
    whole = gzip.compress(find_shards(folder)[0].read_bytes())
    for content in (whole[:-20], whole[:60] + bytes(20) + whole[80:]):
        (folder / "x.tar.gz").write_bytes(content)
        with pytest.raises(ShardError, match=r"x.tar.gz cannot be unpacked \(.*\): copy or write"):
            local_shards(str(folder / "x.tar.gz"))
    (folder / "x.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(50))
    with pytest.raises(ShardError, match="compressed by zstd, which is not read: zstd -d it first"):
        local_shards(str(folder / "x.tar.zst"))
    assert not list((remote.cache() / "unpacked").rglob("*.tar"))


def test_a_shard_is_not_read_twice_because_it_was_packed(folder: Path) -> None:
    path = find_shards(folder)[1]
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    message = "shard-000001.tar and shard-000001.tar.gz: one shard twice"
    with pytest.raises(ShardError, match=message):
        local_shards(str(folder))


def test_a_folder_without_shards_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet", "c.zip", "._d.tar"):
        (tmp_path / name).touch()
    with pytest.raises(ShardError, match="holds no .tar shard but 2 .parquet, 1 .zip: write some"):
        find_shards(tmp_path)


def test_a_url_of_an_old_tar_is_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    command = ["tar", "--format=v7", "-cf", str(tmp_path / "old.tar"), "-C", str(tmp_path), "a.txt"]
    subprocess.run(command, check=True)
    assert keys(local_shards(f"file://{tmp_path}/old.tar")) == ["a"]
