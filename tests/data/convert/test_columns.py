"""Columns: which say what, by the names that people give them or that the command is told."""

import pytest
from convert_cases import encoded, outcomes, put, put_csv, put_lines, reasons, run, written
from convert_cases import two as two

from unimodal.data import formats as formats
from unimodal.data.convert import columns
from unimodal.data.convert.columns import ASKED, NAMES, NEEDED, detect_columns
from unimodal.data.convert.convert import MAKERS


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
