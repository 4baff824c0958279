"""`unimodal eval arena`: what it draws, serves and scores, and what it refuses."""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

from click.testing import CliRunner
from PIL import Image
from test_arena import PROMPTS, Address, Browser, served
from test_arena import folders as folders

from unimodal.bundle import save_bundle
from unimodal.command import main
from unimodal.eval.geneval.folder import sample_file, write_prompt
from unimodal.eval.predictions import read_predictions
from unimodal.tokenizer.grid import Grid


def write_prompts(path: Path) -> Path:
    path.write_text("".join(json.dumps(prompt.json()) + "\n" for prompt in PROMPTS))
    return path


def refused(*words: str | Path, told: str) -> None:
    done = CliRunner().invoke(main, ["eval", "arena", *map(str, words)])
    assert done.exit_code == 2 and told in done.output.replace("\n", " "), done.output


def test_what_cannot_be_served_is_refused(folders, tmp_path):
    prompts = write_prompts(tmp_path / "p.jsonl")
    a, b = folders
    (tmp_path / "empty").mkdir()
    refused(a, "--prompts", prompts, told="give A, B and --prompts")
    refused(a, b, told="give A, B and --prompts")
    refused(a, a, "--prompts", prompts, told="given twice")
    refused(a, tmp_path / "no", "--prompts", prompts, told="neither a folder")
    refused(a, tmp_path / "empty", "--prompts", prompts, told="lacks 6 of 6 prompts")
    refused(a, b, "--prompts", prompts, "--guidance", "2", told="leave --guidance out")
    refused(a, "default", "--prompts", prompts, told="say by --drawn FOLDER")
    to_draw = ("--prompts", prompts, "--drawn", tmp_path / "drawn")
    refused(
        a, "default", *to_draw, told="secretalpha has 2 images of each prompt: give --samples 2"
    )
    refused("default", "default", *to_draw, told="default is given twice")
    assert not (tmp_path / "drawn").exists()
    sample_file(b, 3, 1).unlink()
    refused(a, b, "--prompts", prompts, told="00003 has 1 of 2 images")
    sample_file(b, 3, 1).write_bytes(b"\x89PNG\r\n\x1a\n cut")
    refused(a, b, "--prompts", prompts, told="00003/samples/0001.png")
    others = tmp_path / "others.jsonl"
    others.write_text("".join(json.dumps(prompt.json()) + "\n" for prompt in PROMPTS[::-1]))
    refused(a, b, "--prompts", others, told="is not of the prompt")


def test_votes_that_are_none_are_refused(folders, tmp_path):
    votes = tmp_path / "votes.jsonl"
    with served(folders, votes) as server:
        refused("--score", votes, told="has no votes yet")
        Browser(server).vote("left")
    whole = votes.read_text()
    refused("--score", votes, "--port", "1", told="--score serves nothing: leave --port out")
    refused(folders[0], "--score", votes, told="leave A and B out")
    for old, new in (
        ('"choice": "left"', '"choice": "up"'),
        ('"winner": ', '"winner": "c", "x": '),
        ('"kind": ', '"kind": 7, "x": '),
        ('"kind": ', '"x": '),
    ):
        votes.write_text(whole.replace(old, new))
        refused("--score", votes, told="is no vote")
    votes.write_text(whole.replace('"a": ', '"x": '))
    refused("--score", votes, told="its recipe does not name a and b")
    votes.write_text('{"recipe": {"evaluation": "scenes"}}\n')
    refused("--score", votes, told="holds no votes")


def test_bundles_draw_first_and_ctrl_c_prints_the_rates(drawing_model, tmp_path, monkeypatch):
    """One side is a bundle: the command draws, serves, is voted in, ends and scores."""
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "bundle", replace(drawing_model, grid=Grid(8, 8)))
    Path("one.jsonl").write_text(json.dumps(PROMPTS[0].json()) + "\n")
    write_prompt(Path("shown"), 0, PROMPTS[0])
    Image.new("RGB", (64, 64)).save(sample_file(Path("shown"), 0, 0))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address(free.getsockname()[1])
    statuses: list[int] = []

    def vote_and_end() -> None:
        while not statuses:
            with suppress(ConnectionRefusedError):
                statuses.append(Browser(address).vote("left"))
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    words = [
        "bundle",
        "shown",
        "--prompts",
        "one.jsonl",
        "--drawn",
        "drawn",
        "--json",
        "arena.json",
    ]
    thread = Thread(target=vote_and_end, daemon=True)
    thread.start()
    done = CliRunner().invoke(main, ["eval", "arena", *words, "--port", str(address.server_port)])
    thread.join()
    assert statuses == [303] and done.exit_code == 0, done.output
    assert f"http://127.0.0.1:{address.server_port}/ shows 1 pairs; 0 votes" in done.output
    assert "win rate / bundle" in done.output and "b model unknown" in done.output
    stored = json.loads(Path("arena.json").read_text())
    told = read_predictions(Path("drawn/a/drawn.jsonl"))[0]
    assert stored["recipe"]["a_model"] == told["model"] and len(stored["predictions"]) == 1


def test_a_port_that_is_taken_is_refused(folders, tmp_path):
    prompts = write_prompts(tmp_path / "p.jsonl")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ("--prompts", prompts, "--votes", tmp_path / "v.jsonl", "--port", port)
        refused(*folders, *words, told=f"port {port}: Address already in use")
