"""Stored formats: what each becomes, what is detect_format, and what is wrong said in a word."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from unimodal.data import codes_member as codes
from unimodal.data.formats import (
    FORMATS,
    Sample,
    SampleError,
    as_it_is,
    detect_format,
    document,
    opened,
    pair,
    variants,
)
from unimodal.data.shards import Shard
from unimodal.document import Document, Image, StoredFile, Text, encoded
from unimodal.model import Model
from unimodal.sequence import IGNORE
from unimodal.tokenizer.grid import Grid

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (16, 8), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def sample(fields: object = None, **files: bytes) -> Sample:
    named = {name.replace("_", "."): content for name, content in files.items()}
    if fields is not None:
        named["json"] = json.dumps(fields).encode()
    return Sample("folder/key", named)


def made(found: Sample, variant: int = 0) -> list[tuple]:
    """(text or shade, role, weight) of each part."""
    parts = opened(document(found, detect_format(found), variant), as_it_is).parts
    return [
        (p.text if isinstance(p, Text) else int(p.pixels[0, 0, 0]), p.role, p.weight) for p in parts
    ]


def test_nothing_is_opened_before_it_is_asked_for() -> None:
    found = sample({"caption": "a cat"}, png=b"no image at all")
    image, text = document(found, "caption", 1).parts
    assert image.stored == StoredFile(b"no image at all", "png")
    assert image.pixels is image.codes is image.grid is None
    with pytest.raises(SampleError, match=r"\.png: .* not an image of a known format"):
        made(found)


def test_interleaved() -> None:
    fields = {"texts": ["one", None, " ", "two "], "images": [None, "key.001.png", None, None]}
    found = sample(fields, **{"001_png": png(7)})
    assert detect_format(found) == "interleaved"
    assert made(found) == [("one\n", None, 1.0), (7, None, 1.0), ("two\n", None, 1.0)]


def test_llava() -> None:
    talk = [
        {"from": "human", "value": "<image>\nWhat is this?"},
        {"from": "gpt", "value": "A <b>."},
        {"from": "human", "value": "And <image>?"},
        {"from": "gpt", "value": "Red."},
    ]
    found = sample({"conversations": talk}, **{"0_png": png(1), "1_png": png(2)})
    assert detect_format(found) == "llava"
    assert made(found) == [
        (1, "user", 0.0),
        ("What is this?", "user", 0.0),
        ("A <b>.", "assistant", 1.0),
        ("And ", "user", 0.0),
        (2, "user", 0.0),
        ("?", "user", 0.0),
        ("Red.", "assistant", 1.0),
    ]


def test_chat() -> None:
    shown = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "redder"}]
    drawn = [{"type": "image", "image": "1.png"}]
    messages = [
        {"role": "system", "content": "draw"},
        {"role": "user", "content": shown},
        {"role": "assistant", "content": drawn},
    ]
    found = sample({"messages": messages}, **{"0_png": png(1), "1_png": png(200)})
    assert detect_format(found) == "chat"
    expected = [("draw", "system", 0.0), (1, "user", 0.0), ("redder", "user", 0.0)]
    assert made(found) == [*expected, (200, "assistant", 1.0)]


def test_of_a_chat_answers_and_drawn_images_alone_are_learned(tiny_model: Model) -> None:
    shown = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "redder"}]
    drawn = [{"type": "text", "text": "here"}, {"type": "image", "image": "1.png"}]
    messages = [
        {"role": "system", "content": "draw"},
        {"role": "user", "content": shown},
        {"role": "assistant", "content": drawn},
        {"role": "user", "content": "thanks"},
    ]
    found = sample({"messages": messages}, **{"0_png": png(1), "1_png": png(200)})
    hash, names = tiny_model.image_tokenizer.hash, tiny_model.vocabulary.special
    images = [
        Image(codes=np.array(codes)[:, None], grid=Grid(1, 2), codec_hash=hash)
        for codes in ([1, 2], [3, 4])
    ]
    whole = tiny_model.sequencer.sequence(encoded(document(found, "chat"), iter(images)))
    learned = whole.labels[whole.labels != IGNORE].tolist()
    size = [names("size_1"), names("size_2")]
    codes = tiny_model.vocabulary.code_to_id(np.array([3, 4])).tolist()
    words = tiny_model.text_tokenizer.encode("here")
    assert learned == [*words, names("image"), *size, *codes, names("turn_end")]


@pytest.mark.parametrize("name", ["instruction", "edit", "prompt", "txt"])
def test_edit(name: str) -> None:
    images = {"after_png": png(9), "before_png": png(1)}
    words = {"txt": b"brighter\n"} if name == "txt" else {}
    found = sample(None if words else {name: "brighter"}, **images, **words)
    assert detect_format(found) == "edit"
    assert made(found) == [(1, "user", 0.0), ("brighter", "user", 0.0), (9, "assistant", 1.0)]


@pytest.mark.parametrize(
    ("fields", "question", "answer"),
    [
        ({"question": "how many?", "answer": 3}, "how many?", "3"),
        ({"question": "which?", "answers": ["red"]}, "which?", "red"),
        (
            {"sentence": "It is red.", "label": False},
            "It is red. Is this true or false?",
            "false",
        ),
    ],
)
def test_question(fields: dict, question: str, answer: str) -> None:
    found = sample(fields, png=png(5))
    assert detect_format(found) == "question"
    expected = [(5, "user", 0.0), (question, "user", 0.0), (answer, "assistant", 1.0)]
    assert made(found) == expected


@pytest.mark.parametrize(
    "found",
    [
        sample(None, png=png(5), txt=b"a cat\n"),
        sample({"name": "a cat", "url": "x"}, jpg=png(5)),
        sample({"captions": ["a cat", "a cat"]}, png=png(5)),
    ],
)
def test_caption_goes_both_ways(found: Sample) -> None:
    assert detect_format(found) == "caption"
    parts = [(5, None, 1.0), ("a cat", None, 1.0)]
    count = variants(found, "caption")
    ways = [made(found, variant) for variant in range(count)]
    assert count == 2 * len(found.fields.get("captions", [0]))
    assert all(way in (parts, parts[::-1]) for way in ways)
    assert 2 * sum(way == parts for way in ways) == count


def test_each_of_several_captions() -> None:
    found = sample({"captions": ["one", "two", "three"]}, png=png(5))
    assert variants(found, "caption") == 6
    said = [text for variant in range(6) for text, *_ in made(found, variant)]
    assert {text: said.count(text) for text in said} == {5: 6, "one": 2, "two": 2, "three": 2}


def test_each_answer_to_each_question() -> None:
    found = sample({"question": ["a?", "b?"], "answers": ["1", "2", "3"]}, png=png(5))
    assert variants(found, "question") == 6
    pairs = {tuple(part[0] for part in made(found, variant)) for variant in range(6)}
    assert pairs == {(5, q, a) for q in ("a?", "b?") for a in "123"}


def test_two_samples_make_an_edit() -> None:
    first = sample({"name": "thumbs up", "base": "1f44d"}, png=png(1))
    second = sample({"name": "thumbs up: dark"}, png=png(9))
    assert made(pair(first, second)) == [
        (1, "user", 0.0),
        ("make it: thumbs up: dark", "user", 0.0),
        (9, "assistant", 1.0),
    ]
    with pytest.raises(SampleError, match="an edit of "):
        pair(first, sample({"name": "none"}))


def test_documents_written_before_are_read_as_todays() -> None:
    parts = [
        {"picture": 0, "role": "user", "weight": 0.0},
        {"text": "redder", "role": "user", "weight": 0.0},
        {"picture": 1, "role": "assistant", "weight": 0.25},
    ]
    files = {"0_png": png(1), "1_png": png(200)}
    renamed = [
        {"image" if name == "picture" else name: value for name, value in part.items()}
        for part in parts
    ]
    before, today = sample({"parts": parts}, **files), sample({"parts": renamed}, **files)
    assert detect_format(before) == "document" and variants(before, "document") == 1
    expected = [(1, "user", 0.0), ("redder", "user", 0.0), (200, "assistant", 0.25)]
    assert made(before) == made(today) == expected
    both = sample({"parts": [{"picture": 0, "text": "red"}]}, **files)
    with pytest.raises(SampleError, match="either text or image"):
        made(both)


def test_text() -> None:
    assert made(sample(txt="  é <image>\n".encode())) == [("é <image>", None, 1.0)]
    assert made(sample({"text": "plain"})) == [("plain", None, 1.0)]


def test_codes_stand_where_an_image_stood() -> None:
    encoded = Image(codes=np.arange(6)[:, None], grid=Grid(2, 3), codec_hash="ab" * 32)
    content = codes.to_bytes(encoded, 100)
    fields = {"texts": [None, "a"], "images": ["key.000.jpg", None]}
    stored = document(sample(fields, **{"000_codes": content}), "interleaved")
    image, _ = opened(stored, as_it_is).parts
    assert image.grid == Grid(2, 3) and np.array_equal(image.codes, np.arange(6)[:, None])
    captioned = sample(None, codes=content, txt=b"a cat")
    assert detect_format(captioned) == "caption"
    assert {type(part) for part in made_of(captioned)} == {Text, Image}


SCALED = Grid(2, 2, ((1, 2), (2, 2)))


@pytest.mark.parametrize(
    ("codes_nG", "grid"),
    [(np.arange(12).reshape(6, 2), Grid(2, 3)), (np.arange(2)[:, None], SCALED)],
)
def test_a_codes_file_refuses_what_it_cannot_hold(codes_nG: np.ndarray, grid: Grid) -> None:
    """Two groups of uint16 are as long as one of uint32: they would be read as other codes. And
    scales alone are no whole image.
    """
    encoded = Image(codes=codes_nG, grid=grid, codec_hash="ab" * 32)
    with pytest.raises(ValueError, match="one code for each place$"):
        codes.to_bytes(encoded, 100)
    with pytest.raises(ValueError, match="must be encoded"):
        codes.to_bytes(Image(np.zeros((8, 8, 3), np.uint8)), 100)


@pytest.mark.parametrize(("num_codes", "width"), [(64, 2), (2**16, 2), (2**16 + 1, 4)])
def test_a_codes_file_gives_the_codes_back(num_codes: int, width: int) -> None:
    codes_n1 = np.array([0, num_codes - 1, 5, 7, 9, 11])[:, None]
    for grid in (Grid(2, 3), Grid(1, 6), SCALED):
        encoded = Image(codes=codes_n1, grid=grid, codec_hash="ab" * 32)
        content = codes.to_bytes(encoded, num_codes)
        head = codes.HEAD.size + (4 * (1 + 2 * 2) if grid.scales else 0)
        assert len(content) == head + width * 6
        back = codes.from_bytes(content, "user", 0.5)
        assert np.array_equal(back.codes, codes_n1) and back.codes.dtype == np.int64
        assert (back.grid, back.codec_hash, back.role, back.weight) == (
            grid,
            "ab" * 32,
            "user",
            0.5,
        )


def test_damaged_scales_of_a_codes_file_are_refused() -> None:
    codes_n1 = np.arange(6)[:, None]
    content = codes.to_bytes(Image(codes=codes_n1, grid=SCALED, codec_hash="ab" * 32), 64)
    at = codes.HEAD.size

    def changed(number: int, value: int) -> bytes:
        place = at + 4 * number
        return content[:place] + value.to_bytes(4, "little") + content[place + 4 :]

    for damaged, why in (
        (content[: at + 2], "0 scales in 2 bytes"),
        (content[: at + 12], "2 scales in 12 bytes"),
        (changed(0, 2**31), "2147483648 scales"),
        (changed(0, 0), "0 scales"),
        (changed(3, 1), "the last one is 2 x 2"),
        (changed(1, 2), "12 bytes of codes"),
        (content[:-1], "11 bytes of codes"),
    ):
        with pytest.raises(ValueError, match=why):
            codes.from_bytes(damaged)


def made_of(found: Sample) -> tuple:
    return opened(document(found, detect_format(found)), as_it_is).parts


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (sample(json=b"{"), "wrong JSON"),
        (sample(json=b"[" * 100_000), "wrong JSON"),
        (sample(json=b"\xff"), "wrong JSON"),
        (sample([1]), "wrong JSON"),
        (sample({}), "unknown format"),
        (sample(png=png(1)), "unknown format"),
        (sample(txt=b"\xff\xfe"), "no UTF-8"),
        (sample(txt=b" \n"), "no text"),
        (sample({"parts": []}), "empty"),
        (sample({"parts": [{"image": 0}]}), "missing member"),
        (sample({"parts": 3}), "wrong fields"),
        (sample({"parts": [3]}), "wrong fields"),
        (sample({"parts": [{"text": "a", "weight": "b"}]}), "wrong fields"),
        (sample({"texts": ["a"], "images": []}), "wrong fields"),
        (sample({"texts": ["a"]}), "wrong fields"),
        (sample({"texts": [None], "images": [None]}), "wrong fields"),
        (sample({"texts": [None], "images": ["../../etc/passwd"]}), "missing member"),
        (sample({"conversations": [{"from": "human", "value": "<image>"}]}), "missing member"),
        (sample({"conversations": [{"from": "dog", "value": "woof"}]}), "unknown role"),
        (sample({"messages": [{"role": "user", "content": [{"type": "x"}]}]}), "unknown piece"),
        (sample({"question": "why?"}), "wrong fields"),
        (sample({"question": "why?", "answers": []}), "no text"),
        (sample({"edit": "red"}, before_png=png(1)), "missing member"),
        (sample({"caption": "a"}, **{"0_png": png(1), "1_png": png(1)}), "wrong fields"),
        (sample({"caption": "a"}, png=b""), "bad image"),
        (sample({"caption": "a"}, png=png(1)[:45]), "bad image"),
        (sample({"caption": "a"}, codes=b"unimodal codes 2"), "bad image"),
        (sample({"caption": {"a": 1}}, png=png(1)), "wrong fields"),
    ],
)
def test_what_is_wrong_is_said_in_a_word(found: Sample, reason: str) -> None:
    with pytest.raises(SampleError) as error:
        made_of(found)
    assert error.value.reason == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "parts texts images conversations messages question answer label caption text role "
                "weight image from value content type image prompt".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
NAMES = st.sampled_from("png 0.png before.png after.png txt jpg 1.png".split())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(JSON, st.dictionaries(NAMES, st.binary(max_size=8) | st.just(png(4)), max_size=3))
def test_anything_is_a_document_or_a_sample_error(fields: object, files: dict) -> None:
    found = Sample("k", {**files, "json": json.dumps(fields).encode()})
    for format in (None, *FORMATS):
        try:
            name = format or detect_format(found)
            count = variants(found, name)
            made = opened(document(found, name, count - 1), as_it_is)
        except SampleError:
            continue
        assert isinstance(made, Document) and made.parts


@pytest.mark.parametrize(
    ("name", "format", "sizes"),
    [
        ("nlvr/nlvr-dev.tar", "question", {(100, 400)}),
        ("noto_emoji/noto-emoji-128.tar", "caption", {(128, 128)}),
        ("openstax/openstax-psychology-2e.tar", "interleaved", None),
    ],
)
def test_real_sets_are_recognised_as_they_are(name: str, format: str, sizes: set | None) -> None:
    if not (REAL / name).exists():
        pytest.skip(f"{name} is not on this machine")
    shard = Shard(REAL / name)
    images = 0
    for index in range(0, len(shard), max(1, len(shard) // 40)):
        assert detect_format(shard.sample(index)) == format
        for part in shard.document(index).parts:
            if isinstance(part, Image):
                images += 1
                assert sizes is None or part.pixels.shape[:2] in sizes
    assert images > 0
