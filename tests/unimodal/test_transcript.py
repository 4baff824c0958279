"""Drawings and conversations as files: nothing is written over, and a full disk is said."""

import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image as PILImage
from terminal_cases import feed, files, sample_image
from terminal_cases import session as session

from unimodal.chat import Chat
from unimodal.document import Document
from unimodal.session import Session
from unimodal.transcript import Gallery, save_conversation, save_image


def test_equal_images_of_one_reply_are_two_files(tmp_path):
    for _ in range(2):
        gallery = Gallery(tmp_path, "twice!", "ab12")
        paths = [gallery.add(sample_image((4, 4)), seed=5) for _ in range(2)]
        assert [path.name for path in paths] == ["twice-seed-5.png", "twice-seed-5-2.png"]
        assert len(files(tmp_path)) == 2
    assert PILImage.open(paths[0]).info == {
        "Software": "unimodal",
        "unimodal:model": "ab12",
        "unimodal:prompt-sha256": hashlib.sha256(b"twice!").hexdigest(),
        "unimodal:seed": "5",
    }


def test_space_is_asked_for_only_where_it_lacks(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a.png: [^;]*; choose another place"):
        save_image(sample_image(), tmp_path / "file" / "a.png")
    with pytest.raises(ValueError, match="chat: [^;]*; choose another place"):
        save_conversation(Document(()), "0", tmp_path / "file" / "chat")


def test_drawings_are_saved_without_writing_over_others(session, capsys):
    feed(session, "draw", "/new", "/seed 0", "draw")
    assert list(files(session.output)) == ["draw-seed-0.png"]
    (session.output / "draw-seed-0.png").write_bytes(b"mine")
    feed(session, "/new", "/seed 0", "draw")
    assert files(session.output)["draw-seed-0.png"] == b"mine"
    assert set(files(session.output)) == {"draw-seed-0.png", "draw-seed-0-2.png"}
    assert "draw-seed-0-2.png" in capsys.readouterr().out


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


def saved(text: str, box: str = "") -> str:
    part = f'{{"text": {text}{box}}}'
    return (
        f'{{"model": "another", "turns": [{{"role": "user", "parts": [{part}]}},'
        ' {"role": "assistant", "parts": [{"text": "yes"}]}]}'
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[" * 200_000, "nested too deeply"),
        ("{", "no JSON: Expecting property name"),
        ("[]", "indices must be integers"),
        (saved(r'"red \ud800"'), "half of a character .* at 4"),
        (saved('["red"]'), "a text is wanted"),
        (saved("1" * 5001), "a number has thousands of digits"),
        (saved('"red"', f', "box": [0, 0, 1, {"1" * 400}]'), "too large"),
    ],
)
def test_a_damaged_conversation_is_refused_and_the_session_goes_on(
    session, tmp_path, capsys, content, reason
):
    (tmp_path / "conversation.json").write_text(content)
    feed(session, f"/load {tmp_path}")
    refused = capsys.readouterr().err.replace("\n", " ")
    assert re.search(f"is no saved conversation, or damaged .*{reason}", refused), refused
    feed(session, "draw")
    assert capsys.readouterr().out.startswith("ok\n")


def test_a_conversation_of_another_model_is_loaded(session, tmp_path, capsys):
    (tmp_path / "conversation.json").write_text(saved('"red"'))
    feed(session, f"/load {tmp_path}", "draw")
    assert capsys.readouterr().out.startswith("ok\n")
