"""The terminal: one-shot answers, the interactive session in a real pseudo-terminal, files."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from pseudo_terminal import Terminal
from pseudo_terminal import started as started
from rich.console import Console

from unimodal import terminal
from unimodal.bundle import save_bundle
from unimodal.chat import Chat
from unimodal.chat_events import Drawn
from unimodal.document import Document
from unimodal.events import ImageProgress
from unimodal.screen import HalfBlocks, Screen
from unimodal.session import Session
from unimodal.terminal import answer, run
from unimodal.tokenizer.grid import Grid
from unimodal.transcript import Gallery, save_conversation, save_image

ROOT = Path(__file__).parents[2]


def sample_image(size=(16, 24), seed=0) -> PILImage.Image:
    rng = np.random.default_rng(seed)
    return PILImage.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def drawing_bundle(drawing_model, tmp_path_factory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("bundles") / "drawing", drawing_model)


@pytest.fixture(scope="module")
def slow_bundle(drawing_model, tmp_path_factory) -> Path:
    """Draws 1,600 codes, which leaves time to press Ctrl-C."""
    slow = dataclasses.replace(drawing_model, grid=Grid(40, 40), context=8192)
    return save_bundle(tmp_path_factory.mktemp("bundles") / "slow", slow)


@pytest.fixture
def session(drawing_model, tmp_path) -> Session:
    return Session(Chat(drawing_model), tmp_path / "out")


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


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


def test_equal_images_of_one_reply_are_two_files(tmp_path):
    for _ in range(2):
        gallery = Gallery(tmp_path, "twice!")
        paths = [gallery.add(sample_image((4, 4)), seed=5) for _ in range(2)]
        assert [path.name for path in paths] == ["twice-seed-5.png", "twice-seed-5-2.png"]
        assert len(files(tmp_path)) == 2


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


def test_a_ctrl_c_that_python_drops_still_stops_the_reply():
    def events():
        yield ImageProgress(0, 1, 4)
        with suppress(KeyboardInterrupt):  # as a destructor does
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)
        yield ImageProgress(0, 2, 4)
        pytest.fail("the reply went on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Screen(Console(file=io.StringIO())).play(events(), lambda image, seed: None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


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


def test_space_is_asked_for_only_where_it_lacks(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a.png: [^;]*; choose another place"):
        save_image(sample_image(), tmp_path / "file" / "a.png")
    with pytest.raises(ValueError, match="chat: [^;]*; choose another place"):
        save_conversation(Document(()), "0", tmp_path / "file" / "chat")


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


# --- images in characters ---------------------------------------------------------------------


def shown(image: PILImage.Image, width: int) -> np.ndarray:
    """The pixels that a true-colour terminal of `width` columns shows, (H, W, 3)."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="truecolor", width=width)
    console.print(HalfBlocks(image))
    rows = []
    for line in stream.getvalue().splitlines():
        cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+)(?:;48;2;(\d+);(\d+);(\d+))?m▀", line)
        values = np.array([[int(v) if v else -1 for v in cell] for cell in cells])
        rows += [values[:, :3], values[:, 3:]]
    return np.array(rows)


def test_half_blocks_show_every_pixel():
    image = sample_image((20, 10))
    np.testing.assert_array_equal(shown(image, 80), np.asarray(image))
    odd = sample_image((20, 9))
    np.testing.assert_array_equal(shown(odd, 80)[:9], np.asarray(odd))
    assert (shown(odd, 80)[9] == -1).all()


def test_half_blocks_shrink_to_the_terminal():
    assert shown(sample_image((64, 64)), 40).shape == (40, 40, 3)
    assert shown(sample_image((512, 256)), 500).shape == (48, 96, 3)


def test_without_colours_only_paths_are_shown(monkeypatch):
    stream = io.StringIO()
    Screen(Console(file=stream)).show(sample_image())
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(Console(file=stream, force_terminal=True)).show(sample_image())
    assert stream.getvalue() == ""


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "screen", "dumb"])
def test_images_are_in_true_colour_wherever_there_are_colours(monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    for name in ("COLORTERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = io.StringIO()
    Screen(Console(file=stream, force_terminal=True, width=80)).show(sample_image((4, 4)))
    r, g, b = sample_image((4, 4)).getpixel((0, 0))
    assert stream.getvalue().startswith("" if term == "dumb" else f"\x1b[38;2;{r};{g};{b};48;2;")
    assert bool(stream.getvalue()) == (term != "dumb")


def test_text_cannot_steer_the_terminal():
    stream = io.StringIO()
    Screen(Console(file=stream)).say("a\x1b[2Jb\x07\x9bc\nd")
    assert stream.getvalue() == "a\ufffd[2Jb\ufffd\ufffdc\nd\n"


# --- the session --------------------------------------------------------------------------------


def feed(session: Session, *lines: str) -> None:
    for line in lines:
        session._step(line)


def test_drawings_are_saved_without_writing_over_others(session, capsys):
    feed(session, "draw", "/new", "/seed 0", "draw")
    assert list(files(session.output)) == ["draw-seed-0.png"]
    (session.output / "draw-seed-0.png").write_bytes(b"mine")
    feed(session, "/new", "/seed 0", "draw")
    assert files(session.output)["draw-seed-0.png"] == b"mine"
    assert set(files(session.output)) == {"draw-seed-0.png", "draw-seed-0-2.png"}
    assert "draw-seed-0-2.png" in capsys.readouterr().out


def test_seed_and_guidance(session, capsys):
    feed(session, "/seed 12", "/guidance 2.5", "/seed", "/guidance")
    assert session.chat.sampling.seed == 12
    assert session.chat.sampling.guidance == 2.5
    assert capsys.readouterr().err == "seed 12\nguidance 2.5\n" * 2
    feed(session, "/seed twelve", "/guidance x", "/seed -1", "/guidance nan")
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 4
    assert "'twelve' is no number here: write for example /seed 7" in errors
    assert session.chat.sampling.seed == 12


def test_words_to_lead_away_from_and_steps(session, capsys):
    feed(session, "/negative blue stars", "/guidance 2", "/negative blue stars", "/guidance 1")
    assert session.chat.sampling.negative == "blue stars", "the second time: there is guidance"
    errors = capsys.readouterr().err
    assert errors.count("error: sampling: negative 'blue stars'") == 2
    assert "negative: blue stars\n" in errors
    feed(session, "/negative", "/guidance 1", "/steps", "/steps 4", "/steps x")
    assert session.chat.sampling.negative is None and session.chat.sampling.image_steps is None
    errors = capsys.readouterr().err
    assert "negative: nothing\n" in errors and "steps of the model\n" in errors
    assert "next_code has no image_steps 4" in errors and "'x' is no number here" in errors


def test_a_given_image_goes_with_the_next_message(session, tmp_path, capsys):
    path = tmp_path / "my image.png"
    sample_image().convert("L").save(path)
    quoted = str(path).replace(" ", "\\ ")
    feed(session, f"/image {path}", f"/image '{path}'", f"/image {quoted}")
    assert len(session.given) == 3
    assert capsys.readouterr().err.count("grey converted to RGB") == 3
    feed(session, "what is this?")
    assert session.given == []
    roles = [(part.role, type(part).__name__) for part in session.chat.document.parts[:4]]
    assert roles == [("user", "Image")] * 3 + [("user", "Text")]


def test_mistakes_are_answered_with_the_way_out(session, tmp_path, capsys):
    path = tmp_path / "a.png"
    sample_image().save(path)
    cases = {
        "/imgae x.png": "there is no command /imgae: did you mean /image?",
        "/zzzz": "there is no command /zzzz: /help lists the commands",
        str(path): f"to show an image, write /image {path}",
        "/image": "name a path, such as /image photo.png",
        "/image none.png": "there is no file none.png",
        "/save": "there is nothing to save yet",
    }
    for line, words in cases.items():
        feed(session, line)
        assert words in capsys.readouterr().err
    feed(session, "   ")
    assert session.chat.document.parts == ()


def test_new_forgets_the_conversation_and_waiting_images(session, tmp_path):
    sample_image().save(tmp_path / "a.png")
    feed(session, "draw", f"/image {tmp_path / 'a.png'}", "/new")
    assert session.chat.document.parts == ()
    assert session.given == []


def test_a_saved_conversation_has_everything(session, tmp_path, capsys):
    sample_image().save(tmp_path / "a.png")
    folder = tmp_path / "my chat"
    feed(session, f"/image {tmp_path / 'a.png'}", "what <b>is</b> this?", f"/save {folder}")
    conversation = json.loads((folder / "conversation.json").read_text())
    assert conversation == {
        "model": session.chat.model.hash,
        "turns": [
            {
                "role": "user",
                "parts": [{"image": "image-1.png"}, {"text": "what <b>is</b> this?"}],
            },
            {"role": "assistant", "parts": [{"text": "ok"}, {"image": "image-2.png"}]},
        ],
    }
    np.testing.assert_array_equal(np.asarray(PILImage.open(folder / "image-1.png")), sample_image())
    page = (folder / "index.html").read_text()
    assert "what &lt;b&gt;is&lt;/b&gt; this?" in page
    assert page.count("<img") == 2
    before = files(folder)
    feed(session, f"/save {folder}")
    assert "exists already" in capsys.readouterr().err
    assert files(folder) == before


def test_image_without_a_path_forgets_the_images(session, tmp_path, capsys):
    sample_image((100, 50)).save(tmp_path / "a.png")
    feed(session, f"/image {tmp_path / 'a.png'}", "/image", "/image")
    assert session.given == []
    errors = capsys.readouterr().err
    assert "no image will go with your next message" in errors and "name a path" in errors


def test_paths_that_are_none_lose_nothing(session, tmp_path, capsys):
    (session.output / "draw-seed-0.png").mkdir(parents=True)
    feed(session, "draw", "/save ~nosuchuser/x", '/image "abc', "/guidance 1e38", "/guidance 0")
    errors = capsys.readouterr().err
    assert errors.count("is no path") == 2 and "guidance 1e+38" in errors
    assert "guidance 0" in errors
    assert len(session.chat.document.turns()) == 2


def test_a_script_on_standard_input_is_a_conversation(
    drawing_bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "stdin", io.StringIO("draw\n/quit\nnever read\n"))
    run(drawing_bundle, output=tmp_path)
    assert capsys.readouterr().out == f"ok\nsaved {tmp_path / 'draw-seed-0.png'}\n"


# --- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def full_disk(small_disk):
    """A file system with no room left."""
    (small_disk / "filler").write_bytes(b"x" * 64 * 1024)
    return small_disk


def test_a_full_disk_is_said_and_nothing_half_written_stays(drawing_model, full_disk):
    before = files(full_disk)
    with pytest.raises(ValueError, match="cannot save the image .*No space left.*another place"):
        save_image(sample_image((300, 300)), full_disk / "a.png")
    chat = Chat(drawing_model)
    chat("draw")
    with pytest.raises(ValueError, match="cannot save the conversation .*No space left"):
        save_conversation(chat.document, drawing_model.hash, full_disk / "chat")
    assert files(full_disk) == before


def test_on_a_full_disk_the_conversation_goes_on(drawing_model, full_disk, capsys):
    session = Session(Chat(drawing_model), full_disk)
    feed(session, "draw", "make it blue")
    captured = capsys.readouterr()
    assert captured.out == "ok\nok\n"
    assert captured.err.count("No space left") == 2
    assert len(session.chat.document.turns()) == 4


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
