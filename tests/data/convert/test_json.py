"""JSON: every form of a row comes out as the Document that it says, or is bad with its reason."""

import base64
import json

import pytest
from convert_cases import ROWS, TALK, encoded, outcomes, put, put_lines, written
from convert_cases import two as two
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data import formats as formats
from unimodal.data.convert.columns import NAMES
from unimodal.data.lengths import Bad


@pytest.mark.parametrize("as_list", [False, True])
def test_every_form_of_json(two, as_list):
    rows = [row for row, _ in ROWS]
    source = two / "t.json"
    source.write_text(json.dumps(rows, indent=1)) if as_list else put_lines(source, rows)
    assert written(source, two / "out") == [expected for _, expected in ROWS]


@pytest.mark.parametrize(
    "row, reason, message",
    [
        ("{", "wrong JSON", "no JSON"),
        ('{"text": "\\ud800"}', "wrong fields", "surrogates"),
        ('["text"]', "wrong JSON", "an object, not str"),
        ({}, "unknown format", "there is no column"),
        ({"text": ""}, "empty field", "text .text. is empty"),
        ({"text": " "}, "no text", "without words"),
        ({"text": {"a": 1}}, "no text", "holds {'a': 1}"),
        ({"text": float("nan")}, "wrong fields", "JSON compliant"),
        ({"caption": "x", "image": None}, "wrong fields", "a caption of 0 images"),
        ({"caption": "x", "image": 3}, "bad image", "not 3"),
        ({"caption": "x", "image": "gone.png"}, "missing file", "gone.png: there is no such file"),
        ({"caption": "x", "image": "."}, "missing file", "no such file"),
        ({"caption": "x", "image": "t.jsonl"}, "bad image", "t.jsonl: .*not an image"),
        ({"caption": ["x", ""], "image": "a.png"}, "no text", "without words"),
        ({"conversations": TALK}, "missing member", "1 <image> among the words, and 0 images"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "unknown role", "robot"),
        ({"conversations": "x"}, "wrong fields", "no llava: AttributeError"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "missing file", "more"),
        ({"image": "a.png", "messages": [{"role": "user", "content": "x"}]}, "unplaced image",
         "0 <image> among the words, and 1 images"),
        ({"image": "a.png", "parts": [{"text": "x"}]}, "unplaced image", "no place"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "unknown piece",
         "a piece of type 'video': text and image are read"),
        ({"parts": [{"image": 4}]}, "wrong fields", "IndexError"),
        ({"texts": ["a"], "images": []}, "wrong fields", "not aligned"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named(two, row, reason, message):
    (two / "t.jsonl").write_text(row if isinstance(row, str) else json.dumps(row))
    (bad,) = outcomes(two / "t.jsonl")
    assert (bad.shard, bad.key, bad.reason) == (str(two / "t.jsonl"), "000000000", reason)
    with pytest.raises(ValueError, match=message):
        raise ValueError(bad.message)


PIECES = [{"type": "image", "image": "b.jpg"}, {"type": "text", "text": "like <image>?"}]


@pytest.mark.parametrize(
    "images, content, expected",
    [
        (["a.png", "b.jpg"], PIECES, [20, "like ", 10, "?"]),
        (["x/../a.png", "./b.jpg"], PIECES, [20, "like ", 10, "?"]),
        (["a.png", "b.jpg"], [{"type": "image", "index": 1}, {"type": "image"}], [20, 10]),
        (["a.png"], PIECES, [20, "like ", 10, "?"]),
        (["a.png", "b.jpg"], "<image> or <image>", [10, " or ", 20]),
        (["a.png"], [{"type": "image_url", "image_url": {"url": "DATA"}}, "<image>"], [30, 10]),
    ],
)
def test_a_chat_takes_the_images_of_its_row_once(two, images, content, expected):
    url = "data:image/png;base64," + base64.b64encode(encoded(30)).decode()
    row = {"images": images, "messages": [{"role": "user", "content": content}]}
    source = two / "t.jsonl"
    source.write_text(json.dumps(row).replace("DATA", url))
    (found,) = written(source, two / "out")
    assert [what for _, what in found] == expected


def test_a_list_that_is_none_stops(tmp_path):
    (tmp_path / "t.json").write_text('[{"text": "a"}')
    with pytest.raises(ValueError, match="t.json begins as a JSON list and is none"):
        outcomes(tmp_path / "t.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["a.png", "<image>", "user", "image", "text", "\ud800", "../a.png"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["from", "value", "role", "content", "type", "text", "image", "image",
                         "bytes", "path", "weight"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
FIELDS = sorted({names[0] for names in NAMES.values()})


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_row_is_a_sample_or_bad(tmp_path_factory, row):
    folder = put(tmp_path_factory.mktemp("any"), a__png=encoded(10))
    (found,) = outcomes(put_lines(folder / "t.jsonl", [row]))
    if isinstance(found, Bad):
        found.message.encode()
        assert found.reason
    else:
        assert formats.document(found, formats.detect_format(found)).parts
