"""The conversation in the terminal: its commands and its end, from a person and from a pipe."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from pseudo_terminal import Terminal
from pseudo_terminal import started as started
from rich.console import Console
from terminal_cases import feed
from terminal_cases import session as session

from unimodal.bundle import save_bundle
from unimodal.document import Image, Text
from unimodal.model import Model
from unimodal.screen import Screen
from unimodal.session import Session
from unimodal.terminal import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(drawing_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("bundles") / "drawing", drawing_model)


def said(session: Session) -> list[str]:
    """Return what the user has said."""
    parts = session.chat.document.parts
    return [part.text for part in parts if isinstance(part, Text) and part.role == "user"]


def images(session: Session) -> list[np.ndarray]:
    parts = session.chat.document.parts
    return [part.codes for part in parts if isinstance(part, Image) and part.codes is not None]


# --- commands -----------------------------------------------------------------------------------


def test_words_and_draw(session: Session) -> None:
    feed(session, "/words what do you see?")
    assert images(session) == [] and said(session) == ["what do you see?"]
    feed(session, "/draw a red circle")
    *_, shown, drawn = session.chat.document.parts
    assert isinstance(shown, Text) and shown.role == "user" and isinstance(drawn, Image)


def test_words_and_draw_ask_for_a_message(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(session, "/words", "/draw")
    errors = capsys.readouterr().err
    assert "write the message behind it, such as /words what do you see?" in errors
    assert "such as /draw a red circle" in errors
    assert session.chat.document.parts == ()


def test_retry_and_undo(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    feed(session, "/retry", "/undo")
    assert capsys.readouterr().err.count("nothing has been said yet") == 2
    feed(session, "draw", "/retry")
    first = images(session)
    assert len(first) == 1 and said(session) == ["draw"]
    assert {path.name for path in session.output.iterdir()} == {
        "draw-seed-0.png", "draw-seed-1.png",
    }  # fmt: skip
    feed(session, "and another", "/undo")
    assert said(session) == ["draw"]
    assert all(np.array_equal(*pair) for pair in zip(images(session), first, strict=True))
    feed(session, "/undo", "/undo")
    assert session.chat.document.parts == ()
    assert capsys.readouterr().err.count("nothing has been said yet") == 1


def test_forget_says_how_many_there_are(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(session, "one", "two", "three", "/forget 2")
    assert said(session) == ["three"]
    feed(session, "/forget 2", "/forget x", "/forget")
    errors = capsys.readouterr().err
    assert "2 of 1 turns cannot be forgotten" in errors
    assert errors.count("write for example /forget 2") == 2


def test_a_conversation_is_loaded_as_it_was_saved(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(session, "draw", "and more", f"/save {tmp_path / 'kept'}")
    before = session.chat.document
    feed(session, "/new", f"/load {tmp_path / 'kept'}")
    after = session.chat.document
    assert [type(one) for one in after.parts] == [type(one) for one in before.parts]
    for one, other in zip(before.parts, after.parts, strict=True):
        assert one.role == other.role
        if isinstance(one, Image) and isinstance(other, Image):
            np.testing.assert_array_equal(one.codes, other.codes)
    assert "a conversation of 2 message(s) and 2 image(s)" in capsys.readouterr().err
    feed(session, "make it blue")
    assert said(session) == ["draw", "and more", "make it blue"]


def test_what_is_no_conversation_is_not_loaded(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(session, "draw", f"/save {tmp_path / 'kept'}")
    before = session.chat.document
    (tmp_path / "odd").mkdir()
    for content in (b"{", b"[]", b"\xff", b'{"model": 1, "turns": [{"role": "x", "parts": []}]}'):
        (tmp_path / "odd" / "conversation.json").write_bytes(content)
        feed(session, f"/load {tmp_path / 'odd'}")
        assert "error: " in capsys.readouterr().err
    (tmp_path / "kept" / "image-1.png").write_bytes(b"no image")
    feed(session, f"/load {tmp_path / 'kept'}", f"/load {tmp_path}", "/load")
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 3 and "holds no saved conversation" in errors
    assert session.chat.document is not None and session.chat.document.parts == before.parts


def test_candidates_and_redo(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    feed(session, "/candidates", "/candidates 3", "/candidates 9", "/candidates x")
    said_of = capsys.readouterr().err
    assert "candidates 1\n" in said_of and "candidates 3\n" in said_of
    assert "candidates 9: a whole number from 1 to 8 is wanted" in said_of
    assert "write for example /candidates 4" in said_of
    feed(session, "draw a star", "/redo", "/undo", "/redo", "/candidates 1", "and a ring")
    told = capsys.readouterr().err
    assert "seed 0 is kept, of 0 to 2: not satisfied, by the model's own answers: a star" in told
    assert "nothing was undone" in told and "back again: draw a star" in told
    assert said(session) == ["draw a star", "and a ring"] and len(images(session)) == 2
    assert {path.name for path in session.output.iterdir()} == {
        "draw-a-star-seed-0.png", "and-a-ring-seed-3.png",
    }  # fmt: skip


def test_several_images_go_with_one_message(session: Session, tmp_path: Path) -> None:
    for number in range(3):
        PILImage.new("RGB", (16, 24), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    feed(session, *(f"/image {tmp_path / f'{n}.png'}" for n in range(3)), "/words compare them")
    *shown, text, _ = session.chat.document.parts
    assert [part.pixels[0, 0, 0] for part in shown] == [0, 80, 160]  # type: ignore[union-attr]
    assert isinstance(text, Text) and {part.role for part in (*shown, text)} == {"user"}
    feed(session, "and now?")
    assert session.given == []


# --- from a pipe --------------------------------------------------------------------------------


def test_a_pipe_with_an_error_ends_with_2_and_is_read_to_its_end(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(text: bytes) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), "utf-8"))
        try:
            run(bundle, output=tmp_path / "out")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    for mistake in (b"/nosuch", b"/image no.png", b"/seed x", b"/forget 9"):
        assert status(mistake + b"\ndraw\n") == 2
        assert (tmp_path / "out" / "draw-seed-0.png").is_file(), "what follows is answered"
        (tmp_path / "out" / "draw-seed-0.png").unlink()
        assert status(b"draw\n" + mistake + b"\n/quit\n") == 2
    for fine in (b"", b"draw\n", b"draw\n/quit\n/nosuch\n", b"\n\n/help\n"):
        assert status(fine) == 0


def test_a_long_conversation_goes_on_with_a_notice(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("draw a star\n" * 40))
    run(bundle, output=tmp_path / "out")
    told = capsys.readouterr()
    assert told.out.count("saved ") == 40 and "error" not in told.err
    assert "the model's context is full: it is not told your" in told.err


def test_bytes_that_are_no_text_are_an_error_of_a_pipe(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unimodal", "chat", "--model", bundle, "--output", tmp_path]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    given = b"caf\xe9\ndraw\n"
    done = subprocess.run(command, input=given, env=env, capture_output=True)
    assert done.returncode == 2 and b"not UTF-8 text" in done.stderr
    assert (tmp_path / "draw-seed-0.png").is_file()


def test_a_prompt_comes_from_standard_input(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("draw\ntwo lines\n"))
    run(bundle, "-", output=tmp_path / "x.png", as_json=True)
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["images"] == [str(tmp_path / "x.png")]
    with PILImage.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"
    for text in ("", "\n", "  \n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(ValueError, match="the prompt is empty"):
            run(bundle, "-", output=tmp_path / "y.png")


def test_an_output_of_another_format_is_refused(bundle: Path, tmp_path: Path) -> None:
    for name in ("x.jpg", "x.JPEG", "x.webp", "x.gif"):
        with pytest.raises(ValueError, match="images are saved as PNG; name a .png file"):
            run(bundle, "draw", output=tmp_path / name)
    with pytest.raises(ValueError, match="x.png is one image: give it with --prompt"):
        run(bundle, output=tmp_path / "x.png")
    run(bundle, "draw", output=tmp_path / "deep" / "X.PNG")
    assert (tmp_path / "deep" / "X.PNG").is_file()
    assert [*tmp_path.iterdir()] == [tmp_path / "deep"]


# --- in a real terminal -------------------------------------------------------------------------


def test_a_second_ctrl_c_ends_it(bundle: Path, tmp_path: Path, started: list[Terminal]) -> None:
    chat = Terminal(bundle, tmp_path / "out")
    started.append(chat)

    def interrupt() -> None:
        time.sleep(0.5)  # Python's input() overlooks a signal between its prompt and its waiting
        chat.type("\x03")

    chat.expect("> ")
    chat.type("half a line")
    chat.expect("half a line")
    for said in ("", "/seed 7\n"):  # gives up the line; is taken back by what is said after it
        interrupt()
        chat.expect("a second Ctrl-C")
        chat.expect("> ")
        chat.type(said)
        if said:
            chat.expect("seed 7")
            chat.expect("> ")
    interrupt()
    chat.expect("a second Ctrl-C")
    chat.expect("> ")
    interrupt()
    assert chat.ended() == 130


def test_pasted_lines_are_one_message(
    bundle: Path, tmp_path: Path, started: list[Terminal]
) -> None:
    chat = Terminal(bundle, tmp_path / "out")
    started.append(chat)
    chat.expect("> ")
    time.sleep(0.5)
    chat.type("\x1b[200~# a list\n\n- a red circle\n- /quit\n- a star\x1b[201~\n")
    chat.expect("saved ")
    chat.expect("> ")
    chat.type("\x1b[200~/image a.png\nwhat is it?\x1b[201~\n")
    chat.expect("/image is a line of its own, and 1 more came with it")
    chat.type(f"/save {tmp_path / 'kept'}\n")
    chat.expect("saved ")
    chat.type("/quit\n")
    assert chat.ended() == 0
    turns = json.loads((tmp_path / "kept" / "conversation.json").read_text())["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    (part,) = turns[0]["parts"]
    assert part["text"] == "# a list\n\n- a red circle\n- /quit\n- a star"


def test_a_conversation_with_images_candidates_and_second_thoughts(
    bundle: Path, tmp_path: Path, started: list[Terminal]
) -> None:
    for name in ("one", "two"):
        PILImage.new("RGB", (16, 24), (len(name), 0, 0)).save(tmp_path / f"{name}.png")
    chat = Terminal(bundle, tmp_path / "out")
    started.append(chat)
    kept = tmp_path / "kept"
    for typed, shown in (
        (f"/image {tmp_path / 'one.png'}", "1 image(s) will go"),
        (f"/image {tmp_path / 'two.png'}", "2 image(s) will go"),
        ("/candidates 2", "candidates 2"),
        ("draw a star like these", "seed 0 is kept, of 0 to 1"),
        ("/retry", "draw-a-star-like-these-seed-2.png"),
        ("/candidates 1", "candidates 1"),
        ("make it blue", "make-it-blue-seed-4.png"),
        ("/undo", "are forgotten"),
        ("/redo", "back again: make it blue"),
        (f"/save {kept}", "saved "),
        ("/new", "a new conversation"),
        (f"/load {kept}", "a conversation of 2 message(s) and 4 image(s)"),
    ):
        chat.expect("> ")
        chat.type(f"{typed}\n")
        chat.expect(shown)
    chat.expect("> ")
    chat.type("/quit\n")
    assert chat.ended() == 0
    turns = json.loads((kept / "conversation.json").read_text())["turns"]
    assert [[*part][0] for part in turns[0]["parts"]] == ["image", "image", "text"]
    assert {path.suffix for path in kept.iterdir()} >= {".json", ".png"}


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437"])
def test_what_an_encoding_lacks_is_spelled_and_nothing_is_lost(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    screen = Screen(Console(file=stream, force_terminal=True, width=80))
    screen.show(PILImage.new("RGB", (4, 4)))
    screen.say("☃")
    stream.flush()
    shown = stream.buffer.getvalue()  # type: ignore[attr-defined]
    assert shown.endswith(b"\\u2603\n")
    assert (b";48;2;" in shown) == (encoding == "cp437"), "which has half blocks"


def test_a_terminal_without_half_blocks_shows_paths(
    bundle: Path, tmp_path: Path, started: list[Terminal]
) -> None:
    chat = Terminal(bundle, tmp_path / "☃", "latin-1")
    started.append(chat)
    chat.expect("> ")
    chat.type("draw\n")
    seen = chat.expect("draw-seed-0.png")
    assert "Traceback" not in seen and "\\u2603" in seen and ";48;2;" not in seen
    chat.expect("> ")
    chat.type("/quit\n")
    assert chat.ended() == 0
    assert (tmp_path / "☃" / "draw-seed-0.png").is_file()
