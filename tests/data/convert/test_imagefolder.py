"""Folders of images whose words stand in metadata.csv or metadata.jsonl, as `datasets` has them."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from unimodal.command import main
from unimodal.data.convert.convert import converted, open_table
from unimodal.data.lengths import Bad
from unimodal.data.shards import Shard, find_shards
from unimodal.document import Text


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (16, 16), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def put(folder: Path, **files: bytes | str) -> Path:
    """Write files by name; __ stands for a dot and ___ for a slash."""
    for name, content in files.items():
        path = folder / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def convert(*words: object) -> str:
    return CliRunner().invoke(main, ["data", "convert", *map(str, words)]).output


def written(output: Path) -> list[list]:
    (path,) = find_shards(output)
    shard = Shard(path)
    return [
        [p.text if isinstance(p, Text) else int(p.pixels[0, 0, 0]) for p in document.parts]
        for document in map(shard.document, range(len(shard)))
    ]


def reasons(source: Path) -> list[str]:
    samples = [one.sample for one in converted(open_table(str(source)), {})]
    return [one.reason if isinstance(one, Bad) else "" for one in samples]


def test_metadata_csv_names_images_beside_it(tmp_path: Path) -> None:
    source = put(
        tmp_path / "in",
        metadata__csv="file_name,text\na.png,one\nsub/b.png,two\n",
        a__png=png(1),
        sub___b__png=png(2),
        c__png=png(3),
        c__txt="not in the table",
    )
    said = convert(source, tmp_path / "out", "--captions", "pairs")
    assert "files that no row of metadata.csv names are left out: 1 .png, 1 .txt" in said
    assert "2 samples in 1 shards (2 caption), 0 bad" in said
    assert written(tmp_path / "out") == [["one", 1], ["two", 2]]


@pytest.mark.parametrize("name", ["Metadata.csv", "METADATA.CSV"])
def test_metadata_is_told_in_any_case(tmp_path: Path, name: str) -> None:
    source = put(tmp_path / "in", a__png=png(1))
    (source / name).write_text("file_name,text\na.png,one\n")
    convert(source, tmp_path / "out", "--captions", "pairs")
    assert written(tmp_path / "out") == [["one", 1]]


def test_each_folder_may_have_its_own(tmp_path: Path) -> None:
    lines = [
        {"file_name": "a.png", "question": "which?", "answer": "red"},
        {"file_names": ["a.png", "b.png"], "question": "same?", "answer": "no"},
    ]
    source = put(
        tmp_path / "in",
        train___metadata__jsonl="".join(json.dumps(line) + "\n" for line in lines),
        test___metadata__csv="file_name,question,answer\na.png,which?,blue\n",
        train___a__png=png(1),
        train___b__png=png(2),
        test___a__png=png(3),
    )
    said = convert(source, tmp_path / "out")
    assert "left out" not in said and "3 samples in 1 shards (3 question), 0 bad" in said
    assert written(tmp_path / "out") == [
        [3, "which?", "blue"], [1, "which?", "red"], [1, 2, "same?", "no"],
    ]  # fmt: skip


def test_other_columns_of_files(tmp_path: Path) -> None:
    source = put(
        tmp_path / "in",
        metadata__csv="before_file_name,after_file_name,prompt\na.png,b.png,redder\n",
        a__png=png(1),
        b__png=png(2),
    )
    convert(source, tmp_path / "out")
    assert written(tmp_path / "out") == [[1, "redder", 2]]


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    put(tmp_path, secret__png=png(9))
    rows = ["a.png", "gone.png", "../../secret.png", "https://a/b.png", "", 3]
    lines = [json.dumps({"file_name": name, "text": "x"}) for name in rows]
    source = put(
        tmp_path / "in", sub___metadata__jsonl="\n".join([*lines, "{"]), sub___a__png=png(1)
    )
    assert reasons(source) == [
        "", "missing file", "outside", "a URL", "wrong fields", "wrong fields", "wrong JSON",
    ]  # fmt: skip


def test_a_table_without_file_names_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "in", metadata__csv="path,text\na.png,one\n", a__png=png(1))
    said = convert(source, tmp_path / "out")
    assert "metadata.csv has no column file_name, only path, text: add it" in said
    put(source, metadata__csv="file_name,text\na.png,one\n")
    put(tmp_path / "far", b__png=png(2))
    said = convert(source, tmp_path / "out", "--images", tmp_path / "far")
    assert "metadata.csv names images relative to itself" in said


@pytest.mark.parametrize("name", ["metadata.txt", ".metadata.csv", ".hidden/metadata.csv"])
def test_other_files_are_no_metadata(tmp_path: Path, name: str) -> None:
    source = put(tmp_path / "in", a__png=png(1), a__txt="one")
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("file_name,text\na.png,two\n")
    convert(source, tmp_path / "out", "--captions", "pairs")
    assert written(tmp_path / "out") == [["one", 1]]
