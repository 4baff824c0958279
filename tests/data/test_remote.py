"""Shards that lie elsewhere come here once and whole; what cannot come stops with the reason."""

import http.server
import threading
from pathlib import Path

import pytest

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
        with pytest.raises(ShardError, match="cannot be copied"):
            local_shards(f"http://127.0.0.1:{server.server_port}/missing.tar")
    finally:
        server.shutdown()
