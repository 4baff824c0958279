"""Published models of the hub: refused before their download, or those of their directory."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from published_families import change

import unimodal
from unimodal.bundle import BundleError
from unimodal.model import Model


@pytest.fixture
def hub(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that has one model, in `copied`; it yields the files that are asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def files(self) -> list[dict[str, object]]:
            return [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                for path in copied.iterdir()
            ]

        def do_POST(self) -> None:  # sizes of files that are named
            named = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.reply(json.dumps([one for one in self.files() if one["path"] in named]).encode())

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            if "/tree/" in self.path:
                self.reply(json.dumps(self.files()).encode())
            elif self.path.startswith("/api/models/some/janus"):
                self.reply(json.dumps({"id": "some/janus", "sha": "1" * 40}).encode())
            elif (copied / name).is_file():
                asked.append(name)
                self.reply((copied / name).read_bytes())
            else:
                self.send_error(404)

        def reply(self, content: bytes) -> None:
            self.send_response(200)
            for key, value in (
                ("Content-Length", len(content)), ("ETag", f'"{len(content)}"'),
                ("X-Repo-Commit", "1" * 40),
            ):  # fmt: skip
                self.send_header(key, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    import huggingface_hub
    from huggingface_hub import constants

    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert huggingface_hub.HfApi().endpoint == endpoint
    yield asked
    server.shutdown()
    server.server_close()


def test_a_model_of_the_hub_is_refused_before_its_download(hub: list[str], copied: Path):
    raw = json.loads((copied / "config.json").read_text())
    change(copied / "config.json", vision_config=raw["vision_config"] | {"use_qk_norm": True})
    with pytest.raises(BundleError, match=r"use_qk_norm.*some/janus: 0\.0 GB of.*licence: mit"):
        unimodal.load("some/janus")
    assert "config.json" in hub and "model.safetensors" not in hub


def test_a_model_of_the_hub_is_that_of_its_directory(hub: list[str], models: dict[str, Model]):
    model = unimodal.load("some/janus")
    assert "model.safetensors" in hub and model.hash == models["janus"].hash
    assert model.card["source"] == "some/janus"
