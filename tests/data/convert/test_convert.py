"""`unimodal data convert`: folders come out as the Documents that they are, in shards that plain
webdataset reads, and bad rows are kept aside.
"""

import json
import re

import pytest
import webdataset
from convert_cases import (
    PAIRS,
    ROWS,
    encoded,
    outcomes,
    put,
    put_lines,
    reasons,
    run,
    said,
    written,
)
from convert_cases import two as two

from unimodal.data.shards import Shard, ShardError, ShardWriter, find_shards

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
        ("empty", "empty is empty"),
    ],
)
def test_what_is_no_source_is_named(tmp_path, name, message):
    put(tmp_path, t__xlsx="x")
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / name, tmp_path / "out")
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=message):
        raise ValueError(result.output)
