"""CSV and TSV: cells of any text come out as they are, and what is no table is named."""

import json

import pytest
from convert_cases import encoded, outcomes, put, put_csv, put_lines, reasons, run, said, written
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.shards import Shard, ShardWriter, find_shards

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)


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
        ("", "t.csv is empty: its first line names the columns"),
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
