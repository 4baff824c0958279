"""Fields of many names, and what other data sets store: read as it is meant, or named."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.faults import HASH, write_tar
from PIL import Image as PILImage

from unimodal import config
from unimodal.data import encode
from unimodal.data.estimator import LengthEstimator
from unimodal.data.fields import NAMES, OF_IMAGES, plain
from unimodal.data.formats import (
    ROLES,
    Sample,
    SampleError,
    as_it_is,
    detect_format,
    document,
    opened,
    pair,
    variants,
)
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.measured import measure_shard
from unimodal.data.rows import read
from unimodal.data.shards import Shard
from unimodal.data.sources import SourceConfig
from unimodal.data.streams import texts
from unimodal.document import Text
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.vocabulary import Vocabulary

TEXT = TextTokenizer.train(["draw which colour is it"], 280)
SEQUENCER = Sequencer(Vocabulary.new(TEXT.num_ids, 256), TEXT, HASH, NextCodeInputs())


def png(shade: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (16, 16), (shade, 0, 0)).save(stream, kind)
    return stream.getvalue()


def inside(shade: int) -> str:
    """An image as base64."""
    return base64.b64encode(png(shade)).decode()


def sample(fields: dict, names: dict | None = None, **files: bytes) -> Sample:
    named = {name.replace("_", "."): content for name, content in files.items()}
    return Sample("key", {**named, "json": json.dumps(fields).encode()}, names or {})


def made(found: Sample, variant: int = 0) -> list[tuple]:
    """(role, text or level) of each part."""
    parts = opened(document(found, detect_format(found), variant), as_it_is).parts
    return [(p.role, p.text if isinstance(p, Text) else int(p.pixels[0, 0, 0])) for p in parts]


def bad(found: Sample) -> tuple[str, str]:
    with pytest.raises(SampleError) as error:
        made(found)
    return error.value.reason, str(error.value)


# --- captions under other names -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["TEXT", "re_caption", "recaption", "Long_Caption", "sharegpt4v", "caption_llava", "prompt",
     "llava_caption", "cogvlm_caption", "alt_text", "vlm_caption", "description", "title"],
)  # fmt: skip
def test_captions_of_known_names(name: str) -> None:
    found = sample({"url": "http://a/b.jpg", "key": "3", "status": "ok", name: "a cat"}, png=png(7))
    assert detect_format(found) == "caption"
    assert made(found) == [(None, "a cat"), (None, 7)]


def test_the_likeliest_of_several_names_is_taken() -> None:
    found = sample({"org_caption": "cat.jpg", "re_caption": "a cat", "caption": None}, png=png(7))
    assert made(found) == [(None, "a cat"), (None, 7)]


def test_a_named_field_comes_before_txt_and_every_other(tmp_path: Path) -> None:
    fields = {"caption": "alt", "my_words": ["one", "two"], "question": "why?", "answer": "so"}
    found = sample(fields, {"caption": "my_words"}, png=png(7), txt=b"IMG_1.jpg")
    assert detect_format(found) == "caption" and variants(found, "caption") == 4
    assert made(found) == [(None, "one"), (None, 7)]
    lacking = sample({"caption": "alt"}, {"caption": "my_words"}, png=png(7), txt=b"IMG_1.jpg")
    assert bad(lacking) == ("missing field", ".json has no 'my_words', the caption of `fields`")
    asked = sample({"q": "why?", "a": "so"}, {"question": "q", "answer": "a"}, png=png(7))
    assert made(asked) == [("user", 7), ("user", "why?"), ("assistant", "so")]
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]
    told = sample({"chat": talk}, {"conversations": "chat"})
    assert made(told) == [("user", "hi"), ("assistant", "yo")]


def test_fields_of_a_source_name_them_all_the_way(tmp_path: Path) -> None:
    samples = {
        f"k{n}": {"png": png(n), "txt": b"IMG", "json": json.dumps({"my": "x" * n}).encode()}
        for n in range(1, 4)
    }
    path = write_tar(tmp_path / "a.tar", {**samples, "none": {"png": png(9), "txt": b"IMG"}})
    geometry = TokenizerConfig()
    estimator = LengthEstimator(SEQUENCER, 100, geometry, fields={"caption": "my"})
    assert estimator.key != LengthEstimator(SEQUENCER, 100, geometry).key
    found = measure_shard(path, estimator)
    assert [(bad["key"], bad["reason"]) for bad in found.bad] == [("none", "missing field")]
    lengths = found.records["lengths"][:, 0].tolist()
    plain_lengths = [length - lengths[0] for length in lengths]
    assert plain_lengths == [0, 0, 1, 1, 2, 2], "the field's letters are measured"
    start, stop = Shard(path).ranges_n2[1].tolist()
    there = read(bytes(path), start, stop, {"caption": "my"})
    assert made(there) == [(None, "xx"), (None, 2)]
    source = SourceConfig(str(path), fields={"caption": "my"})
    assert list(texts({"a": source}, 10)) == ["x", "xx", "xxx"]


def test_a_run_reads_named_captions(tmp_path: Path, tiny_model, monkeypatch) -> None:
    monkeypatch.setenv("UNIMODAL_CACHE", str(tmp_path / "cache"))
    fields = {"my": "a red circle", "caption": "IMG_1.jpg"}
    files = {"png": png(7), "json": json.dumps(fields).encode()}
    path = write_tar(tmp_path / "a.tar", {f"k{n}": files for n in range(4)})
    source = config.load(SourceConfig, overrides=[f"shards={path}", "fields.caption=my"])
    settings = LoaderConfig(sequence_length=64, batch_rows=1, window_rows=8)
    loader = Loader({"a": source}, tiny_model.sequencer, tiny_model.codec, settings)
    batch, _ = next(iter(loader))
    text = tiny_model.text_tokenizer
    said = text.decode([token for token in batch.ids[0].tolist() if token < text.num_ids])
    assert "a red circle" in said and "IMG" not in said


def test_pairs_read_named_captions() -> None:
    first = sample({"caption": "a", "my": "one"}, {"caption": "my"}, png=png(1))
    second = sample({"caption": "b", "my": "two"}, {"caption": "my"}, png=png(2))
    assert made(pair(first, second))[1] == ("user", "make it: two")


@pytest.mark.parametrize(
    ("fields", "format", "problem"),
    [
        ("{captoin: a}", None, "fields.captoin: the roles are answer, caption, conversations"),
        ("{caption: a, answer: b}", None, "fields caption, answer: no format reads all of them"),
        ("{caption: a}", "llava", "fields.caption: the format llava reads conversations"),
        ("{caption: a}", "caption", None),
        ("{question: a, answer: b}", None, None),
    ],
)
def test_fields_are_checked_before_anything_is_read(fields, format, problem) -> None:
    values = ["shards=x", f"fields={fields}", *([f"format={format}"] if format else [])]
    if problem is None:
        assert config.load(SourceConfig, overrides=values).fields
        return
    with pytest.raises(config.ConfigError, match=problem):
        config.load(SourceConfig, overrides=values)
    assert set(NAMES) >= {role for roles in ROLES.values() for role in roles}


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_caption_without_its_image_is_no_plain_text(name: str) -> None:
    """As when the image of a downloaded sample is missing."""
    assert bad(sample({name: "a cat", "url": "http://a/b.jpg"}))[0] == "no image"
    assert bad(sample({name: "a cat", "key": "0001"}, txt=b"a cat"))[0] == "no image"
    assert made(sample({"text": "a page", "title": "cats"})) == [(None, "a page")]


# --- other data sets ----------------------------------------------------------------------------

MMC4 = {
    "url": "http://a/b",
    "text_list": ["one", "two", "three"],
    "image_info": [
        {"image_name": "b.png", "raw_url": "http://a/b.png", "matched_text_index": 2},
        {"image_name": "a.png", "raw_url": "http://a/a.png", "matched_text_index": 0},
        {"image_base64": inside(3), "image_name": "c.png", "matched_text_index": 2},
    ],
    "similarity_matrix": [[0.1, 0.2, 0.3]] * 3,
}


def test_mmc4_has_its_images_before_their_sentences() -> None:
    found = sample(MMC4, a_png=png(1), b_png=png(2))
    assert detect_format(found) == "interleaved"
    assert [what for _, what in made(found)] == [1, "one\n", "two\n", 2, 3, "three\n"]
    assert bad(sample(MMC4, a_png=png(1)))[0] == "missing member"
    wrong = {**MMC4, "image_info": [{"image_name": "a.png", "matched_text_index": 3}]}
    assert bad(sample(wrong, a_png=png(1)))[0] == "wrong fields"


def test_pages_of_urls_say_the_way_out() -> None:
    for page in (
        {"texts": ["one", None], "images": [None, "https://a/b.jpg"]},
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "http://a/b.jpg"}]}]},
    ):
        reason, words = bad(sample(page))
        assert reason == "a URL" and "nothing is fetched" in words and "docs/formats.md" in words


def test_pages_of_urls_whose_images_were_fetched_are_read() -> None:
    urls = [None, "https://a/b.jpg", None, "https://a/c.png?d=e"]
    page = {"texts": ["one", None, "two", None], "images": urls}
    found = made(sample(page, **{"0_png": png(1), "1_jpg": png(2)}))
    assert [what for _, what in found] == ["one\n", 1, "two\n", 2]
    single = {"texts": ["one", None], "images": urls[:2]}
    assert made(sample(single, png=png(1)))[1] == (None, 1)
    for files in ({"0_png": png(1)}, {"x_png": png(1), "y_png": png(2)}):
        with pytest.raises(SampleError, match="https://a/b.jpg"):
            made(sample(page, **files))
    assert bad(sample({"texts": ["one", None], "images": [None, "a.png"]}, b_png=png(1)))
    numbered = {**MMC4, "image_info": MMC4["image_info"][:2]}  # which of them is 0?
    assert bad(sample(numbered, **{"0_png": png(1), "1_png": png(2)}))[0] == "missing member"


def test_the_cauldron_is_pairs_about_images() -> None:
    texts = [
        {"user": "which?", "assistant": "this", "source": "vqav2"},
        {"user": "sure?", "assistant": "yes", "source": "vqav2"},
    ]
    found = sample({"texts": texts}, **{"0_png": png(1), "1_png": png(2)})
    assert detect_format(found) == "llava"
    assert made(found) == [
        ("user", 1), ("user", 2), ("user", "which?"), ("assistant", "this"),
        ("user", "sure?"), ("assistant", "yes"),
    ]  # fmt: skip
    assert bad(sample({"texts": [{"user": "which?"}]}))[0] == "wrong fields"


@pytest.mark.parametrize(
    "answers",
    [
        [{"answer": said, "answer_confidence": "yes", "answer_id": 1} for said in "nnnyyyyyyy"],
        [{"answer": "n", "count": 3}, {"answer": "y", "count": 7}],
        {"n": 3, "y": 7},
    ],
)  # fmt: skip
def test_ten_answers_of_vqav2_count_as_often_as_they_were_given(answers) -> None:
    fields = {"question": "is it?", "answers": answers, "multiple_choice_answer": "y"}
    found = sample(fields, png=png(7))
    assert variants(found, "question") == 10
    said = [made(found, number)[-1] for number in range(10)]
    assert said.count(("assistant", "n")) == 3 and said.count(("assistant", "y")) == 7


def test_a_question_about_an_image_that_is_elsewhere_is_bad() -> None:
    fields = {"question": "is it?", "image_id": 458752, "answers": [{"answer": "y"}]}
    assert made(sample(fields, png=png(7)))[0] == ("user", 7)
    assert bad(sample(fields)) == (
        "no image", "words about the image image_id 458752, which is not there",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["imageId", "img_id", "Image_ID", "coco_id"])
def test_words_about_an_image_of_another_file_are_bad(name: str) -> None:
    turns = [{"from": "human", "value": "which?"}, {"from": "gpt", "value": "red"}]
    for fields in ({"question": "q", "answer": "a"}, {"conversations": turns}, {"text": "a cat"}):
        reason, words = bad(sample({**fields, name: 7}))
        assert reason == "no image" and f"the image {name} 7" in words
        assert made(sample({**fields, name: None})) and made(sample({**fields, "id": 7}))


def test_answers_that_are_none_are_bad() -> None:
    ask = {"question": "is it?"}
    assert made(sample({**ask, "multiple_choice_answer": "y"}))[-1] == ("assistant", "y")
    assert bad(sample({**ask, "answers": [{"answer_id": 1}]}))[0] == "wrong fields"
    assert bad(sample({**ask, "answers": [{"answer": "y", "count": -1}]}))[0] == "wrong fields"
    assert bad(sample({**ask, "answers": {"y": 10**9}}))[0] == "wrong fields"


def test_a_choice_is_said_in_words() -> None:
    ask = {"question": "which?", "choices": ["red", "blue"]}
    shown = ("user", "which?\nA. red\nB. blue")
    assert made(sample({**ask, "answer": 1})) == [shown, ("assistant", "B. blue")]
    assert made(sample({**ask, "answer": "A"})) == [shown, ("assistant", "A. red")]
    assert made(sample({**ask, "answer": "red"})) == [("user", "which?"), ("assistant", "red")]
    assert bad(sample({**ask, "answer": 2}))[0] == "wrong fields"


def test_alpaca_and_swift_have_instructions_histories_and_systems() -> None:
    fields = {"instruction": "add", "input": "1 and 2", "output": "3"}
    assert made(sample(fields)) == [("user", "add\n1 and 2"), ("assistant", "3")]
    assert made(sample(fields, png=png(7)))[:2] == [("user", 7), ("user", "add\n1 and 2")]
    fields = {
        "system": "be brief", "query": "and now?", "response": "4",
        "history": [["add <image>", "3"]],
    }  # fmt: skip
    assert made(sample(fields, png=png(7))) == [
        ("system", "be brief"), ("user", "add "), ("user", 7), ("assistant", "3"),
        ("user", "and now?"), ("assistant", "4"),
    ]  # fmt: skip
    assert made(sample({"query": "<image>which?", "response": "red"}, png=png(7))) == [
        ("user", 7), ("user", "which?"), ("assistant", "red"),
    ]  # fmt: skip
    fields = {"prompt": "<image>which?", "completion": "red"}
    assert made(sample(fields, png=png(7))) == [
        ("user", 7), ("user", "which?"), ("assistant", "red"),
    ]  # fmt: skip
    edit = {"instruction": "redder", "input": "a.png", "output": "b.png"}
    assert bad(sample(edit))[0] == "unknown format", "no path becomes an answer"


def test_a_system_beside_the_turns_is_the_first_of_them() -> None:
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]
    assert made(sample({"system": "be brief", "conversations": talk}))[0] == ("system", "be brief")
    own = [{"from": "system", "value": "own"}, *talk]
    assert made(sample({"system": "be brief", "conversations": own}))[0] == ("system", "own")


def test_lists_that_a_table_stores_as_json() -> None:
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    assert made(sample({"messages": json.dumps(talk)})) == [("user", "hi"), ("assistant", "yo")]
    several = sample({"caption": "['a cat', \"it's a cat\"]"}, png=png(7))
    assert [made(several, number)[0][1] for number in (0, 1)] == ["a cat", "it's a cat"]
    for words in ("[no list", "[sic] a cat", "[1, 2]", "[]x"):
        assert plain({"images": words, "caption": words})["caption"] == words
    assert plain({"images": "[no list"}) == {"images": "[no list"}


def test_a_preference_is_no_caption() -> None:
    fields = {"prompt": "which?", "chosen": "red", "rejected": "blue"}
    reason, words = bad(sample(fields, png=png(7)))
    assert reason == "unread modality" and "rejected: 'blue'" in words


@pytest.mark.parametrize("name", ["video", "videos", "audio", "audios", "rejected"])
def test_what_is_not_read_is_named(name: str) -> None:
    talk = {"messages": [{"role": "user", "content": "what is heard?"}]}
    assert made(sample({**talk, name: []})) and made(sample({**talk, name: None}))
    reason, words = bad(sample({**talk, name: ["a.mp4"]}))
    assert reason == "unread modality" and f"{name}: ['a.mp4']" in words


# --- turns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "piece",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{inside(7)}"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{inside(7)}"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{inside(7)}"},
        {"type": "image", "image": f"data:image;base64,{inside(7)}"},
        {"type": "image", "url": f"data:image/jpeg;base64,{inside(7)}"},
        {"type": "image", "base64": inside(7)},
        {"type": "image", "source": {"type": "base64", "media_type": "x", "data": inside(7)}},
    ],
)  # fmt: skip
def test_images_inside_a_chat_are_read(piece: dict) -> None:
    content = [piece, {"type": "input_text", "text": "what is it?"}]
    found = sample({"messages": [{"role": "user", "content": content}]})
    assert made(found) == [("user", 7), ("user", "what is it?")]


@pytest.mark.parametrize(
    ("piece", "reason", "words"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a/b.png"}}, "a URL", "nothing is"),
        ({"type": "image", "source": {"type": "url", "url": "http://a/b"}}, "a URL", "nothing is"),
        ({"type": "image", "image": "data:image/png;base64,%%%"}, "bad image", "no base64"),
        ({"type": "image", "image": "data:image/png,abc"}, "bad image", "ends its head with"),
        ({"type": "image", "image": "gone.png"}, "missing member", "no file .gone.png"),
        ({"type": "image", "image": 3}, "wrong fields", "range"),
        ({"type": "video_url", "video_url": {}}, "unknown piece", "type 'video_url'"),
        ({"type": "input_audio", "input_audio": {}}, "unknown piece", "type 'input_audio'"),
        ({"type": "tool_result", "content": ""}, "unknown piece", "type 'tool_result'"),
        ({"kind": "text"}, "unknown piece", "type None"),
    ],
)
def test_pieces_that_are_not_read_are_named(piece: dict, reason: str, words: str) -> None:
    found = sample({"messages": [{"role": "user", "content": [piece]}]})
    assert bad(found)[0] == reason and words in bad(found)[1]


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        ({"role": "tool", "content": "4"}, "unknown role", "the role 'tool' is not known"),
        ({"role": "function", "content": "4"}, "unknown role", "only human, user, gpt"),
        ({"from": "observation", "value": "4"}, "unknown role", "the role 'observation'"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}, "tool call", "a tool"),
        ({"role": "assistant", "content": "x", "function_call": {"a": 1}}, "tool call", "a tool"),
        ({"role": "user", "content": None}, "wrong fields", "not None"),
    ],
)
def test_roles_and_calls_that_are_not_read_are_named(message, reason, words) -> None:
    found = sample({"messages": [{"role": "user", "content": "2 + 2?"}, message]})
    assert bad(found)[0] == reason and words in bad(found)[1]


def test_roles_by_their_other_names() -> None:
    roles = ["developer", "Human", "bot", "USER", "model"]
    talk = [{"role": role, "content": str(n)} for n, role in enumerate(roles)]
    assert made(sample({"conversation": talk})) == [
        ("system", "0"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"),
    ]  # fmt: skip


def test_images_inside_json_are_never_left_in_code_shards(tmp_path: Path, codec) -> None:
    piece = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{inside(7)}"}}
    found = sample({"messages": [{"role": "user", "content": [piece]}]})
    with pytest.raises(SampleError, match=r"is a data: URL inside \.json, which codes cannot"):
        encode.opened(found, None, codec)
    words = {"role": "user", "content": "data:image/png;base64,AAAA is what?"}
    assert encode.opened(sample({"messages": [words]}), None, codec) == {}


@pytest.fixture
def codec(tiny_model):
    return tiny_model.codec


def test_base64_in_a_table_is_an_image(tmp_path: Path) -> None:
    from unimodal.data.convert.sandbox import Sandbox

    box = Sandbox(tmp_path)
    for text in (inside(7), f" data:image/png;base64,{inside(7)}", f"data:;base64,{inside(7)}\n"):
        assert box.image(text) == ("png", png(7))
    jpeg = base64.b64encode(png(7, "JPEG")).decode()
    assert jpeg.startswith("/9j/") and box.image(jpeg) == ("jpg", png(7, "JPEG"))
    with pytest.raises(SampleError, match="leads out of the folder"):
        box.image("/9j/a.png")
    assert np.asarray(PILImage.open(io.BytesIO(box.image(inside(7))[1])))[0, 0, 0] == 7
