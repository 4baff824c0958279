"""Boxes: how people write them, how they become tokens, and who refuses them."""

import hashlib
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from other_architectures import with_boxes
from PIL import Image as PILImage

from unimodal.boxes import MAX_BOXES, boxed, spelled
from unimodal.bundle import load, save_bundle
from unimodal.chat import Chat
from unimodal.command import main
from unimodal.document import Box, Document, Image, Text
from unimodal.model import Model
from unimodal.session import FAILED, Session
from unimodal.transcript import read_conversation, save_conversation

RED = "a red circle, 4, 6, 12, 24"  # of a drawing of 16 x 24 pixels


@pytest.fixture(scope="module")
def model(tiny_model: Model) -> Model:
    found = with_boxes(tiny_model)
    assert found.canvas == (16, 24)
    return found


def test_a_box_is_four_tokens_and_its_text(model: Model) -> None:
    """Columns and rows of 64 from 1: 4 of 16 pixels are columns 17 to 20."""
    words, (box,) = Text("draw this", "user"), boxed(model, [RED])
    sequence = model.sequencer.prompt(Document((words, box)))
    special, encode = model.vocabulary.special, model.text_tokenizer.encode
    sides = [special(f"size_{number}") for number in (17, 17, 48, 64)]
    assert sequence.ids.tolist() == [
        special("begin"), special("user"), *encode("draw this"), *sides, *encode("a red circle"),
        special("turn_end"), special("assistant"),
    ]  # fmt: skip
    document = Document((words, box, Text("fine", "assistant")))
    lengths = model.sequencer.measure(document)
    for drop, length in lengths.items():
        assert len(model.sequencer.sequence(document, drop)) == length
    assert lengths["text"] < lengths[None], "guidance drops boxes with the words"


def test_boxes_of_whole_columns_have_tokens_of_their_own(model: Model) -> None:
    layout = model.sequencer.layout
    first = model.vocabulary.special("size_1")
    for left in range(64):
        for right in range(left + 1, 65):
            ids = layout.box(Box(left / 64, 1 - right / 64, right / 64, 1 - left / 64))
            assert [one - first for one in ids] == [left, 64 - right, right - 1, 63 - left]


@pytest.mark.parametrize("name", ["<size_3>", "size_3", "<image>", "[turn_end]", "\x00", "a, b"])
def test_a_text_in_a_box_is_no_special_token(model: Model, name: str) -> None:
    (box,) = boxed(model, [f"{name}, 0, 0, 16, 24"])
    assert box.text == name
    ids = model.sequencer.prompt(Document((box,))).ids
    special = sorted(ids[~model.vocabulary.is_text(ids)].tolist())
    names = ("begin", "user", "size_1", "size_1", "size_64", "size_64", "turn_end", "assistant")
    assert special == sorted(model.vocabulary.special(one) for one in names)


def test_what_is_written_is_what_is_read(model: Model) -> None:
    for said in (RED, "two stars, beside each other, 0.5, 0, 16, 24"):
        (box,) = boxed(model, [said])
        assert spelled(box, model.canvas) == said


@pytest.mark.parametrize(
    "said",
    ["", "a star", "a star, 1, 2, 3", "1, 2, 3, 4", ", 1, 2, 3, 4", "a star, 1, 2, x, 4",
     "a star, 4, 0, 4, 9", "a star, 5, 0, 4, 9", "a star, 0, 0, 17, 9", "a star, -1, 0, 4, 9",
     "a star, nan, 0, 4, 9", "a star, 0, 0, inf, 9", "a star, 1_0, 0, 12, 9",
     "a star, \u0661, 0, 4, 9"],
)  # fmt: skip
def test_what_is_no_box_is_refused(model: Model, said: str) -> None:
    with pytest.raises(ValueError, match="write a thing, then left, top, right and bottom"):
        boxed(model, [said])


def test_who_does_not_take_boxes_refuses_them(tiny_model: Model, model: Model) -> None:
    assert not tiny_model.takes_boxes and model.takes_boxes
    with pytest.raises(ValueError, match="was not trained on boxes"):
        Chat(tiny_model)("draw this", boxes=[RED])
    (box,) = boxed(model, [RED])
    for act in (tiny_model.sequencer.prompt, tiny_model.sequencer.measure):
        with pytest.raises(ValueError, match="'a red circle' has a box, and this model was not"):
            act(Document((box,)))
    with pytest.raises(ValueError, match=f"{MAX_BOXES} are the most"):
        boxed(model, [RED] * (MAX_BOXES + 1))
    with pytest.raises(ValueError, match="give a list"):
        boxed(model, RED)
    assert boxed(tiny_model, []) == ()


def test_a_bundle_says_whether_boxes_are_taken(model: Model, tiny_model: Model, tmp_path) -> None:
    save_bundle(tmp_path / "with", model)
    save_bundle(tmp_path / "without", tiny_model)
    told = [json.loads((tmp_path / name / "config.json").read_text())["image"]
            for name in ("with", "without")]  # fmt: skip
    assert told[0]["boxes"] is True and "boxes" not in told[1], "older bundles stay as they are"
    assert load(tmp_path / "with").takes_boxes and not load(tmp_path / "without").takes_boxes


def test_a_conversation_keeps_its_boxes(model: Model, tmp_path) -> None:
    chat = Chat(model, seed=3, guidance=40.0)
    reply = chat("draw this", modality="image", boxes=[RED])
    other = Chat(model, seed=3, guidance=40.0)("draw this", modality="image")
    assert not np.array_equal(reply.images[0], other.images[0]), "the model reads the box"
    assert chat.asked == "draw this, a red circle"
    alone = Chat(model, seed=3)("", modality="image", boxes=[RED])
    assert len(alone.images) == 1, "boxes say enough"
    save_conversation(chat.document, model.hash, tmp_path / "kept")
    document, _ = read_conversation(tmp_path / "kept", model)
    assert [part for part in document.parts if isinstance(part, Text)] == [
        part for part in chat.document.parts if isinstance(part, Text)
    ]
    shown = (tmp_path / "kept" / "index.html").read_text()
    assert "draw this\na red circle (25%, 25%, 75%, 100%)" in shown
    again = list(chat.again())[-1]
    fresh = Chat(model, seed=4, guidance=40.0)("draw this", modality="image", boxes=[RED])
    assert np.array_equal(again.images[0], fresh.images[0])


def test_a_box_is_within_its_image() -> None:
    for sides in ((0, 0, 0, 1), (0, 0, 1, 1.01), (0.5, 0, 0.4, 1), (float("nan"), 0, 1, 1)):
        with pytest.raises(ValueError, match="within the image"):
            Box(*sides)
    assert replace(Text("a star"), box=Box(0, 0, 1, 1)) != Text("a star")
    assert not any(isinstance(part, Image) for part in (Text("a star", box=Box(0, 0, 1, 1)),))


def test_terminal_and_command_have_the_pixels_of_a_chat(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Chat(model, seed=3)("draw this", (), "image", [RED]).images[0]
    lines = f"/seed 3\n/box {RED}\n/box a star, 1, 2\n/draw draw this\n/seed 3\n/draw draw this\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    session = Session(Chat(model), tmp_path / "session")
    assert session.run() == FAILED, "a pipe is told of the box that is none"
    with_box, without = (part for part in session.chat.document.parts if isinstance(part, Image))
    assert np.array_equal(with_box.pixels, expected)
    texts = [part for part in session.chat.document.parts if isinstance(part, Text)]
    assert [one.box is not None for one in texts] == [False, True, False], "for one message"
    session.chat.undo()
    monkeypatch.setattr(sys, "stdin", io.StringIO("/seed 3\n/retry\n"))
    session.run()
    saved = (tmp_path / "session").glob("draw-this-a-red*.png")
    notes = {PILImage.open(path).info["unimodal:prompt-sha256"] for path in saved}
    assert notes == {hashlib.sha256(f"draw this {RED}".encode()).hexdigest()}, "as the server's"
    bundle = save_bundle(tmp_path / "bundle", model)
    words = ["chat", str(bundle), "--prompt", "draw this", "--draw", "--seed", "3", "--box", RED]
    done = CliRunner().invoke(main, [*words, "--output", str(tmp_path / "one.png")])
    assert done.exit_code == 0, done.output
    drawn = load(bundle)
    reply = Chat(drawn, seed=3)("draw this", (), "image", [RED])
    assert np.array_equal(np.asarray(PILImage.open(tmp_path / "one.png")), reply.images[0])
    other = str(save_bundle(tmp_path / "other", with_boxes(model, False)))
    refused = CliRunner().invoke(main, ["chat", other, "--prompt", "draw this", "--box", RED])
    assert refused.exit_code != 0 and "was not trained on boxes" in refused.output
