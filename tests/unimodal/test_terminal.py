"""The terminal: one-shot answers, a script on standard input, and a real pseudo-terminal."""

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image as PILImage
from pseudo_terminal import Terminal
from pseudo_terminal import started as started
from terminal_cases import files, sample_image

from unimodal import terminal
from unimodal.bundle import save_bundle
from unimodal.chat import Chat
from unimodal.chat_events import Drawn
from unimodal.terminal import answer, run
from unimodal.tokenizer.grid import Grid

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def drawing_bundle(drawing_model, tmp_path_factory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("bundles") / "drawing", drawing_model)


@pytest.fixture(scope="module")
def slow_bundle(drawing_model, tmp_path_factory) -> Path:
    """Draws 1,600 codes, which leaves time to press Ctrl-C."""
    slow = dataclasses.replace(drawing_model, grid=Grid(40, 40), context=8192)
    return save_bundle(tmp_path_factory.mktemp("bundles") / "slow", slow)


# --- one request --------------------------------------------------------------------------------


def test_one_request_prints_its_text_and_its_path(drawing_bundle, tmp_path, capsys):
    run(drawing_bundle, "Draw a red circle!", output=tmp_path / "out", seed=7)
    path = tmp_path / "out" / "draw-a-red-circle-seed-7.png"
    assert capsys.readouterr().out == f"ok\nsaved {path}\n"
    with PILImage.open(path) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (16, 24))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(drawing_bundle, tmp_path):
    made = []
    for number, seed in enumerate((1, 1, 2)):
        run(drawing_bundle, "draw", output=tmp_path / str(number), seed=seed)
        made += files(tmp_path / str(number)).values()
    assert made[0] == made[1] != made[2]


def test_no_other_image_is_written_over(drawing_bundle, tmp_path, capsys):
    for temperature in (1, 0, 1):
        run(drawing_bundle, "draw", output=tmp_path, temperature=temperature)
    first, second, third = re.findall(r"saved (.*)", capsys.readouterr().out)
    assert first == third == str(tmp_path / "draw-seed-0.png")
    assert second == str(tmp_path / "draw-seed-0-2.png")
    assert len(set(files(tmp_path).values())) == 2


def test_ctrl_c_keeps_the_images_that_are_finished(drawing_model, tmp_path, monkeypatch):
    chat = Chat(drawing_model)
    stream = chat.stream

    def interrupted(*request):
        for event in stream(*request):
            yield event
            if isinstance(event, Drawn):
                raise KeyboardInterrupt

    monkeypatch.setattr(chat, "stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer(chat, "a story", [], tmp_path)
    with PILImage.open(tmp_path / "a-story-seed-0.png") as image:
        assert image.size == (16, 24)
    assert not chat.document.parts


def test_json_is_the_last_line_and_everything_else_goes_to_stderr(drawing_bundle, tmp_path, capsys):
    sample_image((100, 50)).save(tmp_path / "given.png")
    given = [tmp_path / "given.png"]
    run(drawing_bundle, "draw", given, output=tmp_path / "out", as_json=True)
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    result = json.loads(line)
    assert set(result) == {"text", "images", "end", "seed", "notes"}
    assert result["text"] == "ok"
    assert [Path(path).is_absolute() and Path(path).is_file() for path in result["images"]] == [
        True
    ]
    assert "given.png: resized and cropped from 100 x 50" in captured.err


def test_options_reach_the_sampling(drawing_bundle, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(terminal, "answer", lambda chat, *_: seen.append(chat.sampling))
    run(drawing_bundle, "draw", seed=3, guidance=2.5, temperature=0.5)
    (sampling,) = seen
    assert (sampling.seed, sampling.guidance) == (3, 2.5)
    assert (sampling.text_temperature, sampling.image_temperature) == (0.5, 0.5)
    run(drawing_bundle, "draw", guidance=2.5, negative="a blue star")
    assert seen[1].negative == "a blue star"


@pytest.mark.parametrize(
    "options",
    [
        {"image_steps": 4},
        {"image_steps": 0},
        {"image_solver": "heun"},
        {"guidance_interval": (0.8, 0.2)},
        {"negative": "red", "guidance": 1.0},
        {"negative": " ", "guidance": 2.0},
        {"guidance": -1.0},
    ],
)
def test_what_a_drawing_does_not_follow_is_refused_before_it(drawing_bundle, tmp_path, options):
    """`next_code` has no steps; words to lead away from need guidance that leads."""
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"sampling: .*{name}"):
        run(drawing_bundle, "draw", output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_bad_requests_are_value_errors(drawing_bundle, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "text.png").write_text("not an image")
    cases = [
        ({"prompt": " "}, "the prompt is empty"),
        ({"as_json": True}, "give it with --prompt"),
        ({"prompt": "draw", "output": tmp_path / "file"}, "is a file"),
        ({"prompt": "what?", "images": [tmp_path / "text.png"]}, "text.png is not an image"),
        ({"prompt": "draw", "seed": -1}, "seed .*-1"),
        ({"prompt": "word " * 2000}, "shorten the prompt"),
        ({"prompt": "draw", "model": tmp_path / "nowhere"}, "nowhere is no model"),
    ]
    for options, words in cases:
        with pytest.raises(ValueError, match=words):
            run(**{"model": drawing_bundle, "output": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_said_before_the_model_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(terminal, "load", lambda path: pytest.fail("loaded the model"))
    cases = [
        (tmp_path / "file" / "x" / "y", "file is a file"),
        (Path("/proc/x/y"), "write to /proc"),
    ]
    for output, words in cases:
        with pytest.raises(ValueError, match=words) as caught:
            run(prompt="draw", output=output)
        assert "--output" in str(caught.value) and "space" not in str(caught.value)


def test_the_command_answers_in_json(drawing_bundle, tmp_path):
    command = [sys.executable, "-m", "unimodal", "chat", "--model", str(drawing_bundle)]
    command += ["--prompt", "draw", "--output", "out", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    drawn = str(tmp_path / "out" / "draw-seed-0.png")
    assert result == {"text": "ok", "images": [drawn], "end": "stop", "seed": 0, "notes": []}
    assert (tmp_path / "out" / "draw-seed-0.png").is_file()


# --- a script -----------------------------------------------------------------------------------


def test_a_script_on_standard_input_is_a_conversation(
    drawing_bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("draw\n/quit\nnever read\n"))
    run(drawing_bundle, output=tmp_path)
    assert capsys.readouterr().out == f"ok\nsaved {tmp_path / 'draw-seed-0.png'}\n"


# --- a real terminal ----------------------------------------------------------------------------


def test_help_a_drawing_in_colour_and_quit(drawing_bundle, tmp_path, started):
    chat = Terminal(drawing_bundle, tmp_path / "out")
    started.append(chat)
    chat.expect("> ")
    chat.type("/help\n")
    listed = chat.expect("/quit")
    for name in ("image", "seed", "guidance", "save", "new", "help"):
        assert f"/{name}" in listed
    chat.type("draw\n")
    seen = chat.expect("saved ")
    assert re.search(r"\x1b\[38;2;\d+;\d+;\d+;48;2;\d+;\d+;\d+m▀", seen)
    chat.expect("> ")
    chat.type("\x04")
    assert chat.ended() == 0
    assert list(files(tmp_path / "out")) == ["draw-seed-0.png"]


def test_ctrl_c_while_drawing_stops_the_reply_only(slow_bundle, tmp_path, started):
    chat = Terminal(slow_bundle, tmp_path / "out")
    started.append(chat)
    chat.expect("> ")
    chat.type("draw\n")
    chat.expect("drawing")
    chat.type("\x03")
    chat.expect("stopped: the unfinished reply is forgotten")
    assert not (tmp_path / "out").exists()
    chat.expect("> ")
    time.sleep(1)  # Python's input() overlooks a signal between its prompt and its waiting
    chat.type("\x03")
    chat.expect("/quit or Ctrl-D leaves")
    chat.type("/save x\n")
    chat.expect("nothing to save yet")
    chat.type("/quit\n")
    assert chat.ended() == 0
