"""`unimodal data convert`: every kind of source comes out as the Documents that it says, plain
webdataset reads the shards, and nothing in the data is trusted.
"""

import base64
import csv
import io
import json
import os
import re
import sys

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unimodal.command import main
from unimodal.data import formats as formats
from unimodal.data.convert import columns
from unimodal.data.convert.columns import ASKED, NAMES, NEEDED, detect_columns
from unimodal.data.convert.convert import MAKERS, converted, open_table
from unimodal.data.lengths import Bad
from unimodal.data.shards import Shard, ShardError, ShardWriter, find_shards
from unimodal.document import Document, Text

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)


def run(*arguments):
    return CliRunner().invoke(main, ["data", "convert", *map(str, arguments)])


PAIRS = ("--captions", "pairs")


def encoded(number, kind="PNG"):
    """An image file; each number another colour."""
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 24, 3), number, dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def put(folder, **files):
    """Write files by name; __ stands for a dot and ___ for a slash. Returns the folder."""
    for name, content in files.items():
        path = folder / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def put_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def put_csv(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def written(source, output, *options):
    """Convert without an error; the documents, with images as (role, grey of the first pixel)."""
    result = run(source, output, *PAIRS, *options)
    assert result.exit_code == 0, result.output
    return [
        said(shard.document(k))
        for shard in map(Shard, find_shards(output))
        for k in range(len(shard))
    ]


def said(document: Document):
    return [
        (part.role, part.text if isinstance(part, Text) else int(part.pixels[0, 0, 0]))
        for part in document.parts
    ]


def outcomes(source, images=None, format=None, **asked):
    table = open_table(str(source), images)
    return [outcome.sample for outcome in converted(table, asked, format, "pairs")]


def reasons(source, images=None, **asked):
    return [one.reason if isinstance(one, Bad) else "" for one in outcomes(source, images, **asked)]


# --- folders ------------------------------------------------------------------------------------


def test_a_folder_of_pairs_at_any_depth(tmp_path):
    source = put(
        tmp_path / "in",
        b__png=encoded(20),
        b__txt="the second\n",
        a___x__y__jpg=encoded(10, "JPEG"),
        a___x__y__json='{"captions": ["one", "two"]}',
        c__png=encoded(30),
        c__json='{"question": "how grey?", "answer": 30}',
        d__before__png=encoded(40),
        d__after__png=encoded(50),
        d__txt="lighter",
        e__0__png=encoded(60),
        e__1__png=encoded(70),
        e__json='{"conversations": [{"from": "human", "value": "<image>to<image>?"}, '
        '{"from": "gpt", "value": "ten"}]}',
        LICENSE__txt="of no image",
    )
    put(source, **{"__hidden__png": b"nothing"})
    result = run(source, tmp_path / "out", *PAIRS)
    assert result.exit_code == 0, result.output
    assert "1 files of text without an image are left out" in result.output
    assert "5 samples in 1 shards (2 caption, 1 edit, 1 llava, 1 question), 0 bad" in result.output
    (path,) = find_shards(tmp_path / "out")
    assert [said(Shard(path).document(k)) for k in range(5)] == [
        [(None, "one"), (None, 10)],
        [(None, "the second"), (None, 20)],
        [("user", 30), ("user", "how grey?"), ("assistant", "30")],
        [("user", 40), ("user", "lighter"), ("assistant", 50)],
        [("user", 60), ("user", "to"), ("user", 70), ("user", "?"), ("assistant", "ten")],
    ]


def test_images_are_stored_byte_for_byte_under_what_they_are(tmp_path):
    jpeg = encoded(10, "JPEG")
    source = put(tmp_path / "in", a__PNG=jpeg, a__txt="called a PNG")
    (sample,) = outcomes(source)
    assert sample.files == {"jpg": jpeg, "json": b'{"caption": "called a PNG"}'}


def test_more_than_ten_images_keep_their_order(tmp_path):
    files = {f"a__{n}__png": encoded(10 + n) for n in range(12)}
    talk = [{"from": "human", "value": "<image>" * 12}, {"from": "gpt", "value": "many"}]
    source = put(tmp_path / "in", a__json=json.dumps({"conversations": talk}), **files)
    (document,) = written(source, tmp_path / "out")
    assert [what for _, what in document] == [*range(10, 22), "many"]


def test_a_folder_of_texts(tmp_path):
    source = put(tmp_path / "in", b__md="# Two", a___a__txt="one\r\n <image>", c__rst="left out")
    assert written(source, tmp_path / "out") == [[(None, "one\r\n <image>")], [(None, "# Two")]]


def test_an_image_without_words_and_words_that_are_none_are_bad(tmp_path):
    source = put(
        tmp_path / "in",
        a__png=encoded(1),
        b__png=encoded(2),
        b__txt="  \n",
        c__png=encoded(3),
        c__txt=b"\xff\xfe",
        d__png=b"\x89PNG damaged",
        d__txt="fine",
        e__png=encoded(4),
        e__json="{",
    )
    assert reasons(source) == ["no words", "empty field", "no UTF-8", "bad image", "wrong JSON"]


# --- CSV ----------------------------------------------------------------------------------------


def test_a_table_with_usual_names(tmp_path):
    put(tmp_path, a__png=encoded(10), b___c__png=encoded(20))
    rows = [["id", "Image_Path", "caption"], [7, "a.png", 'a "b",\nc'], [8, "b/c.png", "d"]]
    source = put_csv(tmp_path / "t.csv", rows)
    result = run(source, tmp_path / "out")
    assert "reading caption: image = Image_Path, caption = caption" in result.output
    assert written(source, tmp_path / "again") == [
        [(None, 'a "b",\nc'), (None, 10)],
        [(None, "d"), (None, 20)],
    ]


@pytest.mark.parametrize(
    "names, options, expected",
    [
        ("file,said", ["--caption", "said"], [(None, "x"), (None, 10)]),
        ("p,text", ["--image", "p"], [(None, "x"), (None, 10)]),
        ("image,text", ["--text", "text"], [(None, "x")]),
        ("image,text,question,answer", [], [("user", 10), ("user", "q"), ("assistant", "5")]),
        ("image,text,question,answer", ["--format", "caption"], [(None, "x"), (None, 10)]),
        ("image,text,question,answer", ["--caption", "answer"], [(None, "5"), (None, 10)]),
        ("image,sentence,label", [],
         [("user", 10), ("user", "x. Is this true or false?"), ("assistant", "q")]),
        ("before,words,x,after", ["--instruction", "words"],
         [("user", 10), ("user", "x"), ("assistant", 20)]),
        ("a,question,answer,b", ["--image", "a", "--image", "b"],
         [("user", 10), ("user", 20), ("user", "x"), ("assistant", "q")]),
    ],
)  # fmt: skip
def test_columns_named_and_recognised(tmp_path, names, options, expected):
    put(tmp_path, a__png=encoded(10), b__png=encoded(20))
    four = "a.png,x,q,b.png" if names.count(",") == 3 and "b" in names else "a.png,x,q,5"
    row = ",".join(four.split(",")[: names.count(",") + 1])
    (tmp_path / "t.csv").write_text(f"{names}\n{row}\n")
    assert written(tmp_path / "t.csv", tmp_path / "out", *options) == [expected]


def test_tsv_and_images_elsewhere(tmp_path):
    put(tmp_path / "far", a__png=encoded(10))
    source = put_csv(tmp_path / "t.tsv", [["image", "text"], ["a.png", "a, b"]], "\t")
    documents = written(source, tmp_path / "out", "--images", tmp_path / "far")
    assert documents == [[(None, "a, b"), (None, 10)]]


def test_an_empty_image_is_none(tmp_path):
    rows = [["image", "question", "answer"], ["", "why?", "so"]]
    assert written(put_csv(tmp_path / "t.csv", rows), tmp_path / "out") == [
        [("user", "why?"), ("assistant", "so")]
    ]
    assert reasons(put_csv(tmp_path / "c.csv", [["image", "text"], ["", "x"]])) == ["wrong fields"]


def test_bad_cells_cost_their_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbftext\nfine\n\xff\xfe\na,b\n\n   \nlast\n")
    assert reasons(path) == ["", "no UTF-8", "wrong cells", "no text", ""]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "t.csv: its first line names the columns"),
        ("text,text\na,b\n", "names the columns, each differently: .'text', 'text'"),
        ("text\n", "t.csv holds no rows"),
        ('text\nfine\n"open\nend\n', "t.csv, line 4: unexpected end of data; fix the quotes"),
        ("a,b\n1,2\n", "no columns of one of document, .*: the columns are 'a', 'b'; name them by"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    result = run(tmp_path / "t.csv", tmp_path / "out")
    assert result.exit_code == 2
    with pytest.raises(ValueError, match=message):
        raise ValueError(result.output)
    assert not list((tmp_path / "out").glob("*.tar*"))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_any_texts_round_trip(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    put_csv(folder / "t.csv", [["text"], *([text] for text in texts)])
    put_lines(folder / "t.jsonl", [{"text": text} for text in texts])
    (folder / "t.json").write_text(json.dumps([{"text": text} for text in texts]))
    for name in ("t.csv", "t.jsonl", "t.json"):
        with ShardWriter(folder / name[2:]) as writer:
            for sample in outcomes(folder / name):
                writer.write_files(sample.key, sample.files)
        (path,) = find_shards(folder / name[2:])
        assert [said(Shard(path).document(k)) for k in range(len(texts))] == [
            [(None, text)] for text in texts
        ]


# --- JSON ---------------------------------------------------------------------------------------

TALK = [{"from": "human", "value": "what is it?\n<image>"}, {"from": "gpt", "value": "grey"}]
UNPLACED = [{"from": "human", "value": "lighter?"}, {"from": "gpt", "value": "yes"}]
ROWS = [
    ({"id": 1, "image": "a.png", "conversations": TALK},
     [("user", "what is it?\n"), ("user", 10), ("assistant", "grey")]),
    ({"image": ["a.png", "b.jpg"], "conversations": UNPLACED},
     [("user", 10), ("user", 20), ("user", "lighter?"), ("assistant", "yes")]),
    ({"conversations": [{"from": "gpt", "value": "hello"}]}, [("assistant", "hello")]),
    ({"messages": [{"role": "user", "content": [{"type": "image", "image": "b.jpg"},
                                                {"type": "text", "text": "and?"}]},
                   {"role": "assistant", "content": "yes"}]},
     [("user", 20), ("user", "and?"), ("assistant", "yes")]),
    ({"images": ["b.jpg", "a.png"],
      "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]},
     [("user", 20), ("user", 10)]),
    ({"texts": ["one", None, None, "two"], "images": [None, "b.jpg", "a.png", None]},
     [(None, "one\n"), (None, 20), (None, 10), (None, "two\n")]),
    ({"parts": [{"text": "draw", "role": "user", "weight": 0},
                {"image": "b.jpg", "role": "assistant"}]},
     [("user", "draw"), ("assistant", 20)]),
    ({"images": ["b.jpg", "a.png"], "parts": [{"image": 1}, {"image": 0}, {"text": "x"}]},
     [(None, 10), (None, 20), (None, "x")]),
    ({"image": "a.png", "captions": ["first", "second"]}, [(None, "first"), (None, 10)]),
    ({"before": "a.png", "after": "b.jpg", "edit": "lighter"},
     [("user", 10), ("user", "lighter"), ("assistant", 20)]),
    ({"question": "2 + 2?", "answers": [4, 5]}, [("user", "2 + 2?"), ("assistant", "4")]),
    ({"text": " kept as it is \n"}, [(None, " kept as it is \n")]),
]  # fmt: skip


@pytest.fixture
def two(tmp_path):
    """A folder of two images, of levels 10 and 20."""
    return put(tmp_path, a__png=encoded(10), b__jpg=encoded(20, "JPEG"))


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


@pytest.mark.parametrize(
    "names, image",
    [
        (["URL", "TEXT", "WIDTH", "HEIGHT", "similarity"], "URL"),
        (["url", "caption"], "url"),
        (["uid", "url", "text", "original_width", "original_height"], "url"),
        (["image_url", "text"], "image_url"),
        (["url", "re_caption", "org_caption"], "url"),
    ],
)
def test_captions_of_urls_are_no_plain_text(tmp_path, names, image):
    found = detect_columns(names, {})
    assert found.format == "caption" and found["image"] == (image,)
    row = {name: "http://a/b.jpg" if name == image else "a cat" for name in names}
    (bad,) = outcomes(put_lines(tmp_path / "t.jsonl", [row]))
    assert bad.reason == "a URL" and "docs/formats.md" in bad.message


def test_pages_of_text_may_have_a_url():
    assert detect_columns(["text", "url", "timestamp"], {}).format == "text"


def test_a_question_about_an_image_that_no_column_has_is_bad(two):
    talk = [{"role": "user", "content": "which?"}, {"role": "assistant", "content": "red"}]
    rows = [
        {"image_id": 3, "question": "?", "answer": "a"},
        {"imageId": "n7", "question": "?", "answer": "a"},
        {"img_id": 3, "messages": talk},
        {"Image_ID": 3, "text": "a cat on a mat"},
    ]
    assert reasons(put_lines(two / "n.jsonl", rows)) == ["no image"] * 4


def test_columns_of_other_data_sets_are_not_refused_by_their_names(two):
    rows = [["instruction", "input", "output"], ["add", "1 and 2", "3"]]
    said = run(put_csv(two / "t.csv", rows), two / "out").output
    assert "read 1 rows as llava" in said and "1 samples in 1 shards (1 llava), 0 bad" in said
    rows = [["instruction", "input", "output"], ["redder", "a.png", "b.jpg"]]
    source = put_csv(two / "e.csv", rows)
    assert reasons(source) == ["unknown format"]
    options = ["--before", "input", "--after", "output"]
    assert written(source, two / "edits", *options, "--instruction", "instruction") == [
        [("user", 10), ("user", "redder"), ("assistant", 20)]
    ]


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


# --- what an untrusted file may name ------------------------------------------------------------


@pytest.mark.parametrize(
    "path, reason",
    [
        ("../secret.png", "outside"),
        ("sub/../../secret.png", "outside"),
        ("{secret}", "outside"),
        ("/etc/passwd", "outside"),
        ("link.png", "outside"),
        ("linked/secret.png", "outside"),
        ("http://example.com/a.png", "a URL"),
        (" HTTPS://example.com/a.png", "a URL"),
        ("file:///etc/passwd", "a URL"),
        ("s3://bucket/a.png", "a URL"),
        ("data:image/png;base64,AAAA", "bad image"),
        ("//host/share/a.png", "a URL"),
        ("a.png\0", "missing file"),
        ("loop.png", "missing file"),
        ("pipe.png", "missing file"),
        ("x" * 5000, "missing file"),
        ("\ud800", "missing file"),
        ("sub/../a.png", ""),
        ("inner.png", ""),
        ("{inside}", ""),
    ],
)
@pytest.mark.parametrize("field", ["image", "conversations", "messages", "images", "parts"])
def test_no_path_leads_out_and_nothing_is_fetched(tmp_path, path, reason, field):
    folder = put(tmp_path / "in", a__png=encoded(10), sub___b__png=encoded(20))
    secret = put(tmp_path, secret__png=encoded(30)) / "secret.png"
    (folder / "link.png").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "inner.png").symlink_to("a.png")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    path = path.replace("{secret}", str(secret)).replace("{inside}", str(folder / "a.png"))
    row = {
        "image": {"image": path, "caption": "x"},
        "conversations": {"image": path, "conversations": TALK},
        "messages": {"messages": [{"role": "user", "content": [{"type": "image", "image": path}]}]},
        "images": {"texts": [None], "images": [path]},
        "parts": {"parts": [{"image": path}]},
    }[field]
    source = put_lines(folder / "t.jsonl", [row])
    assert reasons(source) == [reason]


def test_words_beside_an_image_lead_nowhere_either(tmp_path):
    put(tmp_path, secret__txt="secret")
    folder = put(tmp_path / "in", a__png=encoded(10), b__png=encoded(20))
    (folder / "a.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "b.json").symlink_to("/etc/passwd")
    assert reasons(folder) == ["outside", "outside"]
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").symlink_to(tmp_path / "secret.txt")
    assert reasons(texts) == ["outside"]


def test_a_huge_file_is_not_read(two):
    with (two / "a.png").open("ab") as file:
        file.truncate(1 << 29)
    assert reasons(put_lines(two / "t.jsonl", [{"image": "a.png", "text": "x"}])) == ["too large"]


def test_control_spellings_stay_text(tmp_path):
    source = put_lines(tmp_path / "t.jsonl", [{"text": "<image><|user|>"}])
    assert written(source, tmp_path / "out") == [[(None, "<image><|user|>")]]


# --- shards -------------------------------------------------------------------------------------


def test_plain_webdataset_reads_the_same_files(two):
    source = put_lines(two / "t.jsonl", [row for row, _ in ROWS])
    assert run(source, two / "out", "--shard-samples", 5, *PAIRS).exit_code == 0
    paths = find_shards(two / "out")
    read = [one for path in paths for one in webdataset.WebDataset(str(path), shardshuffle=False)]
    expected = outcomes(source)
    assert [sample["__key__"] for sample in read] == [f"{k:09d}" for k in range(len(ROWS))]
    for sample, ours in zip(read, expected, strict=True):
        assert {k: v for k, v in sample.items() if not k.startswith("__")} == ours.files
    assert len(paths) == 3


def test_the_same_input_gives_the_same_bytes(two):
    source = put_lines(two / "t.jsonl", [row for row, _ in ROWS])
    assert run(source, two / "one").exit_code == run(source, two / "two").exit_code == 0
    (one,), (other,) = find_shards(two / "one"), find_shards(two / "two")
    assert one.read_bytes() == other.read_bytes()


def test_names_of_files_are_checked(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for wrong in ("a/b", ""):
            with pytest.raises(ShardError, match="is not read as key"):
                writer.write_files("k", {wrong: b""})
        with pytest.raises(ShardError, match="without files"):
            writer.write_files("k", {})
        with pytest.raises(ShardError, match="is not read as key"):
            writer.write_files("a.b", {"txt": b""})


# --- bad rows -----------------------------------------------------------------------------------


def test_a_few_bad_rows_are_kept_aside(two):
    rows = [{"text": f"text {n}"} for n in range(100)]
    rows[30] = {"image": "gone.png", "caption": "x"}
    source = put_lines(two / "t.jsonl", rows)
    result = run(source, two / "out", "--shard-samples", 50)
    assert result.exit_code == 0, result.output
    assert "99 samples in 2 shards (99 text), 1 bad (see " in result.output
    assert [json.loads(line) for line in (two / "out/quarantine.jsonl").open()] == [
        {
            "shard": str(source),
            "key": "000000030",
            "reason": "missing file",
            "message": f"gone.png: there is no such file in {two}",
        }
    ]
    keys = [s.key(k) for s in map(Shard, find_shards(two / "out")) for k in range(len(s))]
    assert keys == [f"{n:09d}" for n in range(100) if n != 30]


def test_too_many_bad_rows_stop_with_the_first_ten(tmp_path):
    rows = [{"text": f"text {n}" if n < 20 else ""} for n in range(40)]
    source = put_lines(tmp_path / "t.jsonl", rows)
    result = run(source, tmp_path / "out", "--shard-samples", 16)
    assert result.exit_code == 2
    assert re.search(r"\d of 2\d samples cannot be used, .* the share of 1.00%", result.output)
    assert "or raise --bad-share:" in result.output
    assert 5 <= result.output.count(", key 0000000") <= 9
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["quarantine.jsonl", "shard-000000.tar"]
    assert run(source, tmp_path / "more", "--bad-share", 0.5).exit_code == 0


def test_few_rows_are_held_to_the_share_too(tmp_path):
    source = put_lines(tmp_path / "t.jsonl", [{"text": "fine"}, {"text": ""}])
    for _ in range(2):  # what was noted is not counted as known
        result = run(source, tmp_path / "out")
        assert result.exit_code == 2 and "1 of 2 samples cannot be used" in result.output
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["quarantine.jsonl"]


# --- the command --------------------------------------------------------------------------------


def test_a_folder_with_shards_is_left_alone(tmp_path):
    source = put_lines(tmp_path / "t.jsonl", [{"text": "fine"}])
    assert run(source, tmp_path / "out").exit_code == 0
    result = run(source, tmp_path / "out")
    assert result.exit_code == 2 and "holds shards already: give another folder" in result.output


@pytest.mark.parametrize(
    "name, message",
    [
        ("gone.csv", "there is no .*gone.csv: give a folder of images or texts, .csv"),
        ("t.xlsx", "t.xlsx is of no known kind: give a folder"),
        ("empty", "empty holds no images and no texts"),
    ],
)
def test_what_is_no_source_is_named(tmp_path, name, message):
    put(tmp_path, t__xlsx="x")
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / name, tmp_path / "out")
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=message):
        raise ValueError(result.output)


def test_a_column_that_is_not_there_is_named(tmp_path):
    source = put_csv(tmp_path / "t.csv", [["image", "text"], ["a.png", "x"]])
    result = run(source, tmp_path / "out", "--caption", "title")
    assert "--caption title: the columns are 'image', 'text'" in result.output
    result = run(source, tmp_path / "out", "--caption", "text", "--before", "image")
    assert "no format has --caption and --before together: leave one out" in result.output
    result = run(source, tmp_path / "out", "--caption", "text", "--format", "edit")
    assert "the format edit does not have --caption: leave one out" in result.output


def test_the_tables_of_names_agree_with_the_forms():
    assert {*NEEDED, "request"} == set(MAKERS) == set(formats.FORMATS) == set(formats.ROLES)
    assert set(ASKED) <= set(NAMES) and set(NAMES) == {r for n in NEEDED.values() for r in n}
    for role, names in (
        ("caption", formats.CAPTIONS),
        ("question", formats.QUESTIONS),
        ("answer", formats.ANSWERS),
        ("instruction", formats.INSTRUCTIONS),
    ):
        assert set(names) <= set(columns.NAMES[role])
    with pytest.raises(ValueError, match="no columns of the format edit: .* --before COLUMN"):
        detect_columns(["image", "text"], {}, format="edit")


@pytest.mark.parametrize("name", ["image", "images", "picture", "pictures", "Photo", "img_path"])
def test_columns_of_usual_names_are_found(name):
    found = detect_columns([name, "caption"], {})
    assert found.format == "caption" and found["image"] == (name,)
    assert all(len(set(names)) == len(names) for names in NAMES.values()), "no name is there twice"


# --- Arrow --------------------------------------------------------------------------------------


def test_without_the_library_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    put(tmp_path, t__parquet="PAR1", saved___dataset_info__json="{}")
    for source in ("hf:name", tmp_path / "t.parquet", tmp_path / "saved"):
        result = run(source, tmp_path / "out")
        assert result.exit_code == 2 and "pip install 'unimodal[hf]'" in result.output


@pytest.fixture
def dataset():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "photo": datasets.Image(),
            "title": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    photos = [
        {"bytes": encoded(10, "JPEG"), "path": None},
        Image.open(io.BytesIO(encoded(20))),
        np.full((16, 24, 3), 30, dtype=np.uint8),
    ]
    table = {"photo": photos, "title": ["one", "two", "three"], "label": [0, 1, 1]}
    return datasets.Dataset.from_dict(table, features)


@pytest.mark.parametrize("kind", ["parquet", "parquets", "saved"])
def test_datasets_of_hugging_face(tmp_path, dataset, kind):
    source = tmp_path / "in" / "t.parquet"
    source.parent.mkdir()
    if kind == "saved":
        dataset.save_to_disk(tmp_path / "in")
    else:
        dataset.to_parquet(source)
    source = source if kind == "parquet" else source.parent
    titles = written(source, tmp_path / "out", "--caption", "title")
    assert titles == [[(None, w), (None, n)] for w, n in (("one", 10), ("two", 20), ("three", 30))]
    labels = written(source, tmp_path / "labels", "--caption", "label")
    assert [document[0][1] for document in labels] == ["cat", "dog", "dog"]
    first, second, _ = outcomes(source, caption=("title",))
    assert first.files["jpg"] == encoded(10, "JPEG") and list(second.files) == ["json", "png"]


def test_a_dataset_by_its_name(tmp_path, dataset, monkeypatch):
    import datasets

    def load_dataset(name, **settings):
        assert (name, settings) == ("someone/something", {"split": "test"})
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    documents = written("hf:someone/something:test", tmp_path / "out", "--caption", "title")
    assert [document[0][1] for document in documents] == ["one", "two", "three"]


def test_images_of_the_hub_lie_in_its_cache_or_nowhere(tmp_path, dataset, monkeypatch):
    import datasets

    put(tmp_path, secret__png=encoded(30), cache___a__png=encoded(10))
    paths = [str(tmp_path / "secret.png"), str(tmp_path / "cache/a.png"), "/etc/passwd"]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    hub = datasets.Dataset.from_dict({"image": paths, "text": ["x"] * 3}, features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: hub)
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "cache"))
    assert reasons("hf:someone/something") == ["outside", "", "outside"]


def test_splits_and_damage_are_named(tmp_path, dataset):
    import datasets

    datasets.DatasetDict({"test": dataset, "train": dataset}).save_to_disk(tmp_path / "all")
    result = run(tmp_path / "all", tmp_path / "out")
    assert "holds the splits test, train: give one" in result.output
    assert len(written(tmp_path / "all/test", tmp_path / "out", "--caption", "title")) == 3
    put(tmp_path, t__parquet="no parquet")
    assert "t.parquet: no parquet" in run(tmp_path / "t.parquet", tmp_path / "more").output


def test_paths_in_a_dataset_lead_nowhere(tmp_path, dataset):
    import datasets

    put(tmp_path, secret__png=encoded(30))
    rows = {"image": [{"bytes": None, "path": str(tmp_path / "secret.png")}], "text": ["x"]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    (tmp_path / "in").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "in/plain.parquet")
    found = reasons(tmp_path / "in/plain.parquet")
    assert found in (["outside"], [""])  # some versions put the image's bytes into the file
