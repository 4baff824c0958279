"""<image> among words: an image where the images say so, words in an answer, never a guess."""

import io
import json

import pytest
from PIL import Image as PILImage

from unimodal.data.formats import Sample, SampleError, as_it_is, detect_format, document, opened
from unimodal.document import Text


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (16, 8), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def chat(*said: str) -> dict:
    """Messages of the user and the assistant in turn, as ms-swift and LLaMA-Factory have them."""
    roles = ("user", "assistant") * len(said)
    return {"messages": [{"role": r, "content": s} for r, s in zip(roles, said, strict=False)]}


def llava(*said: str) -> dict:
    speakers = ("human", "gpt") * len(said)
    turns = [{"from": who, "value": words} for who, words in zip(speakers, said, strict=False)]
    return {"conversations": turns}


def sample(fields: dict, images: int) -> Sample:
    """A sample whose images have the levels 1, 2, ..."""
    files = {f"{n}.png": png(n + 1) for n in range(images)}
    return Sample("key", {**files, "json": json.dumps(fields).encode()})


def made(fields: dict, images: int) -> list[tuple]:
    """(role, text or level) of each part; what is learned is what the assistant says and draws."""
    found = sample(fields, images)
    parts = opened(document(found, detect_format(found)), as_it_is).parts
    assert all(part.weight == (part.role in (None, "assistant")) for part in parts)
    return [(p.role, p.text if isinstance(p, Text) else int(p.pixels[0, 0, 0])) for p in parts]


def bad(fields: dict, images: int) -> tuple[str, str]:
    with pytest.raises(SampleError) as error:
        made(fields, images)
    return error.value.reason, str(error.value)


@pytest.mark.parametrize("form", [chat, llava])
def test_a_placeholder_of_the_users_is_an_image(form) -> None:
    assert made(form("<image>what colour is it?", "red"), 1) == [
        ("user", 1), ("user", "what colour is it?"), ("assistant", "red"),
    ]  # fmt: skip
    assert made(form("what is <image> to", "one", "and <image>?", "two"), 2) == [
        ("user", "what is "), ("user", 1), ("user", " to"), ("assistant", "one"),
        ("user", "and "), ("user", 2), ("user", "?"), ("assistant", "two"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", [chat, llava])
def test_placeholders_and_images_must_be_as_many(form) -> None:
    assert bad(form("<image><image>which?", "one"), 1)[0] == "missing member"
    assert bad(form("<image>which?", "one"), 2)[0] == "unplaced image"
    assert bad(form("<image>which?", "one"), 0)[0] == "missing member"
    reason, words = bad(form("<image>\nHow do I convert this to an <image> tag?", "so"), 1)
    assert reason == "missing member"
    assert "2 <image> among the words, and 1 images that nothing else places" in words


def test_without_placeholders_llava_shows_its_images_first_and_a_chat_is_bad() -> None:
    assert made(llava("which?", "one"), 2)[:3] == [("user", 1), ("user", 2), ("user", "which?")]
    system = {"from": "system", "value": "be brief"}
    turns = {"conversations": [system, *llava("which?", "one")["conversations"]]}
    assert made(turns, 1)[:2] == [("system", "be brief"), ("user", 1)]
    assert made({"conversations": [{"from": "gpt", "value": "hi"}]}, 1) == [
        ("user", 1), ("assistant", "hi"),
    ]  # fmt: skip
    assert bad(chat("which?", "one"), 1)[0] == "unplaced image"


@pytest.mark.parametrize("form", [chat, llava])
def test_an_image_never_moves_into_an_answer(form) -> None:
    about = "it shows what <image> stands for"
    assert made(form("<image>\nwhat does this show?", about), 1) == [
        ("user", 1), ("user", "what does this show?"), ("assistant", about),
    ]  # fmt: skip
    assert made(form("what is a tag?", about), 0) == [
        ("user", "what is a tag?"), ("assistant", about),
    ]  # fmt: skip
    reason, words = bad(form("what does this show?", about), 1)
    assert reason == "unplaced image" and "1 among the words of answers" in words
    assert bad(form("<image>which?", "<image>"), 1)[0] == "missing member"
    assert bad(form("<image>which?", f"{about}."), 2)[0] == "unplaced image"


@pytest.mark.parametrize("form", [chat, llava])
def test_an_answer_that_is_an_image_alone_is_drawn(form) -> None:
    assert made(form("draw a cat", "<image>", "<image>\nredder", " <image>\n"), 3) == [
        ("user", "draw a cat"), ("assistant", 1), ("user", 2), ("user", "redder"),
        ("assistant", " "), ("assistant", 3), ("assistant", "\n"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", [chat, llava])
def test_line_ends_are_kept_as_they_are_written(form) -> None:
    words = "Image 1: <image>\nImage 2: <image>\n\nTask: compare\n<image>\n"
    assert [what for _, what in made(form(words, "so"), 3)] == [
        "Image 1: ", 1, "\nImage 2: ", 2, "\n\nTask: compare\n", 3, "\n", "so",
    ]  # fmt: skip
    own = made(form("<image>\n<image>\n\nwhich?\n", "so"), 2)
    assert [what for _, what in own] == [1, 2, "\nwhich?\n", "so"], "LLaVA's own go"


FOREIGN = (
    "<video>", "<audio>", "<speech>", "<video_1>", "<image 1>", "<image_1>", "<Image>", "<IMAGE>",
    "<|image_1|>", "<|image|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>",
    "<|audio_bos|>", "<image_placeholder>", "<ImageHere>", "<IMG_CONTEXT>", "<start_of_image>",
    "<image_soft_token>", "<img>a.png</img>", "[IMG]", "</image>", "<bbox>", "<ref-object>",
    "< image >", "<image/>", "<image />", "<video/>", "</video>",
)  # fmt: skip


@pytest.mark.parametrize("placeholder", FOREIGN)
@pytest.mark.parametrize("at", ["start", "answer", "question", "caption", "edit"])
def test_what_stands_for_something_that_is_not_read_makes_the_sample_bad(placeholder, at) -> None:
    words = f"{placeholder} what?"
    fields = {
        "start": chat(words, "so"),
        "answer": llava("why?", words),
        "question": {"question": words, "answer": "so"},
        "caption": {"caption": words},
        "edit": {"instruction": words},
    }[at]
    found = sample(fields, 1 if at in ("question", "caption") else 0)
    if at == "edit":
        found.files.update({"before.png": png(1), "after.png": png(2)})
    with pytest.raises(SampleError) as error:
        document(found, detect_format(found))
    assert error.value.reason == "placeholder" and placeholder in str(error.value)


@pytest.mark.parametrize(
    "words",
    ["a < b > c", "<b>bold</b>", "<video src=a>", "<imagery>", "<|user|>", "[image]", "<img src>"],
)  # fmt: skip
def test_other_words_are_words(words: str) -> None:
    assert made(chat(words, words), 0) == [("user", words), ("assistant", words)]


def test_placeholders_of_questions_and_edits() -> None:
    asked = {"question": "<image>\nwhich colour?", "answer": "red"}
    assert made(asked, 1) == [("user", 1), ("user", "which colour?"), ("assistant", "red")]
    asked["question"] = "is <image> like <image>?"
    assert [what for _, what in made(asked, 2)] == ["is ", 1, " like ", 2, "?", "red"]
    assert bad(asked, 1)[0] == "missing member" and bad(asked, 3)[0] == "unplaced image"
    found = sample({"instruction": "<image>\nredder"}, 0)
    found.files.update({"before.png": png(1), "after.png": png(2)})
    parts = opened(document(found, "edit"), as_it_is).parts
    assert [p.text if isinstance(p, Text) else int(p.pixels[0, 0, 0]) for p in parts] == [
        1, "redder", 2,
    ]  # fmt: skip
    assert bad({"caption": "<image> a cat"}, 1)[0] == "placeholder"


def test_pieces_and_placeholders_share_the_images_in_their_order() -> None:
    pieces = [{"type": "image"}, {"type": "text", "text": "like <image>?"}]
    talk = {"messages": [{"role": "user", "content": pieces}, *chat("", "no")["messages"][1:]]}
    assert [what for _, what in made(talk, 2)] == [1, "like ", 2, "?", "no"]
    talk["messages"][0]["content"] = [{"type": "image", "image": "1.png"}, "like <image>?"]
    assert [what for _, what in made(talk, 2)] == [2, "like ", 1, "?", "no"]
    talk["messages"][0]["content"] = [{"type": "image", "index": 1}, {"type": "image", "index": 0}]
    assert [what for _, what in made(talk, 2)] == [2, 1, "no"]
    talk["messages"][0]["content"] = [{"type": "image"}] * 3
    assert bad(talk, 2) == ("missing member", "3 images are shown, 2 are there")


@pytest.mark.parametrize(
    "fields",
    [
        {"parts": [{"image": 0}, {"text": "one"}]},
        {"texts": [None, "one"], "images": ["0.png", None]},
        {"messages": [{"role": "user", "content": [{"type": "image", "image": "0.png"}]}]},
    ],
)
def test_no_image_is_left_without_a_place(fields: dict) -> None:
    assert made(fields, 1)
    reason, words = bad(fields, 2)
    assert reason == "unplaced image"


def test_no_other_image_of_an_edit_is_passed_over() -> None:
    found = sample({"instruction": "redder"}, 0)
    found.files.update({"before.png": png(1), "after.png": png(2), "mask.png": png(3)})
    with pytest.raises(SampleError, match=r"\.mask\.png has no place"):
        document(found, "edit")
