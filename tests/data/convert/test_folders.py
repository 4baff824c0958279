"""Tables as people have them: images of any suffix, case and order; what is not read is said."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from unimodal.command import main
from unimodal.data.convert.convert import converted, open_table
from unimodal.data.formats import Sample
from unimodal.data.lengths import Bad
from unimodal.data.shards import Shard, find_shards

KINDS = {
    "avif": "AVIF", "jfif": "JPEG", "jpe": "JPEG", "ppm": "PPM", "jp2": "JPEG2000", "apng": "PNG",
    "dib": "DIB", "JFIF": "JPEG", "img": "PNG", "AVIF": "AVIF", "qoi": "QOI", "tga": "TGA",
    "ico": "ICO", "icb": "TGA", "picture": "WEBP", "0": "GIF",
}  # fmt: skip
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def image(shade: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 24, 3), shade, dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["data", "convert", *map(str, words)])


def stored(output: Path) -> list[Sample]:
    shards = map(Shard, find_shards(output))
    return [shard.sample(number) for shard in shards for number in range(len(shard))]


def shades(sample: Sample) -> list[int]:
    """The grey of each image of a sample, in its order."""
    opened = [Image.open(io.BytesIO(sample.files[name])) for name in sample.images]
    return [int(np.asarray(one.convert("RGB"))[0, 0, 0]) for one in opened]


def rows(source: Path, format: str | None = None, **asked: tuple[str, ...]) -> list[Sample | Bad]:
    table = open_table(str(source), None, format)
    return [outcome.sample for outcome in converted(table, asked, format)]


def messages(source: Path, format: str | None = None, **asked: tuple[str, ...]) -> list[str]:
    """The reason and message of each row that is bad, nothing of the others."""
    made = rows(source, format, **asked)
    return [f"{one.reason}: {one.message}" if isinstance(one, Bad) else "" for one in made]


# --- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", KINDS)
def test_an_image_is_read_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    content = image(90, KINDS[suffix])
    source = put(tmp_path / "in", {f"a.{suffix}": content, "a.txt": "words"})
    result = run(source, tmp_path / "out")
    assert result.exit_code == 0 and "1 samples in 1 shards" in result.output, result.output
    assert ", 0 bad" in result.output and "left out" not in result.output
    (sample,) = stored(tmp_path / "out")
    assert [sample.files[name] for name in sample.images] == [content]


def test_no_caption_becomes_plain_text_when_its_image_is_not_read(tmp_path: Path) -> None:
    files = {"a.heic": HEIC, "b.svg": "<svg width='9'/>", "c.xyz": "what", "d.heif": HEIC}
    files |= {f"{name[0]}.txt": "a caption" for name in files}
    source = put(tmp_path / "in", files)
    assert all(reason for reason in messages(source))
    result = run(source, tmp_path / "out")
    assert result.exit_code == 2 and "3 of 3 samples cannot be used" in result.output
    first, second, third, last = messages(source)
    assert first.startswith("bad image: a.heic: ") and last.startswith("bad image: d.heif: ")
    assert "is SVG, which is not read: a drawing without pixels: save it as PNG" in second
    assert third.startswith("unknown file: c.txt: c.xyz beside it, which is no image that is known")


def test_one_good_pair_beside_files_of_nine_kinds(tmp_path: Path) -> None:
    read = ["avif", "jfif", "jpe", "ppm", "jp2", "apng", "dib"]
    files = {f"{k}.{suffix}": image(10 * k, KINDS[suffix]) for k, suffix in enumerate(read)}
    files |= {"8.heic": HEIC, "9.svg": "<svg/>", "z.png": image(200)}
    files |= {f"{Path(name).stem}.txt": "words" for name in files}
    made = rows(put(tmp_path, files))
    assert [isinstance(one, Bad) for one in made] == [False] * 7 + [True, True, False]


@pytest.mark.parametrize(
    ("picture", "words"),
    [("p4.png", "p4.TXT"), ("p5.JPG", "p5.TXT"), ("p6.Jpeg", "p6.Txt"), ("p7.jpg", "p7.JSON"),
     ("p8.PNG", "p8.json"), ("d/p9.Png", "d/p9.tXt")],
)  # fmt: skip
def test_suffixes_pair_in_any_case(tmp_path: Path, picture: str, words: str) -> None:
    content = '{"caption": "words"}' if words.lower().endswith("json") else "words"
    source = put(tmp_path / "in", {picture: image(7), words: content})
    result = run(source, tmp_path / "out")
    assert result.exit_code == 0 and "0 bad" in result.output and "left" not in result.output
    (sample,) = stored(tmp_path / "out")
    assert json.loads(sample.files["json"])["caption"] == "words" and sample.images == ["png"]


def test_two_files_of_words_are_no_choice(tmp_path: Path) -> None:
    source = put(tmp_path, {"a.png": image(1), "a.txt": "one", "a.TXT": "two"})
    assert messages(source) == ["two files: a.TXT and a.txt: which one has the words?"]


def test_files_that_nobody_used_are_counted_and_named(tmp_path: Path) -> None:
    source = put(
        tmp_path / "in",
        {"a.png": image(1), "a.txt": "words", "a.npy": b"1", "a.md": "more", "b.csv": "x",
         "c.csv": "y", "d.txt": "lone", "e.JSON": "{}", "README": "?", "._a.png": "x",
         ".DS_Store": "x"},
    )  # fmt: skip
    result = run(source, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "2 files of text without an image are left out; " in result.output
    assert "unused files: 2 .csv, 1 .md, 1 .npy, 1 without a suffix; " in result.output
    assert "2 hidden files are left out" in result.output and "0 bad" in result.output


def test_texts_with_a_twin_are_no_plain_texts(tmp_path: Path) -> None:
    files = {"a.txt": "one", "b.txt": "two", "b.pdf": "%PDF-", "c.md": "three", "c.json": "{}"}
    source = put(tmp_path / "in", {**files, "d.csv": "x"})
    first, second, third = messages(source)
    assert first == "" and second.startswith("unknown file: b.txt: b.pdf beside it")
    assert third.startswith("unknown file: c.md: c.json beside it") and "--format text" in third
    assert messages(source, "text") == ["", "", ""]
    result = run(source, tmp_path / "out", "--format", "text")
    assert "3 samples in 1 shards (3 text), 0 bad" in result.output
    assert "unused files: 1 .csv, 1 .json, 1 .pdf\n" in result.output


def test_an_image_says_what_lies_beside_it_instead_of_words(tmp_path: Path) -> None:
    source = put(tmp_path, {"a.png": image(1), "a.caption": "words"})
    assert messages(source) == [
        "no words: a.png: no a.txt or .json lies beside it, but a.caption: only .txt and .json are "
        "read"
    ]


def test_an_empty_folder_says_what_it_holds(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.tar.gz": b"x", "b.zip": b"x", "c.zip": b"x"})
    result = run(source, tmp_path / "out")
    assert result.exit_code == 2 and "but 2 .zip, 1 .gz: give a folder" in result.output


def test_images_stand_in_natural_order(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>" * 11}, {"from": "gpt", "value": "ok"}]
    files = {f"a.{n}.png": image(10 + n) for n in range(11)}
    source = put(tmp_path / "in", {**files, "a.json": json.dumps({"conversations": talk})})
    assert run(source, tmp_path / "out").exit_code == 0
    (sample,) = stored(tmp_path / "out")
    assert shades(sample) == list(range(10, 21))


def test_a_list_in_json_says_the_order(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "ok"}]
    files = {f"d/a.{n}.png": image(10 + n) for n in range(2)}
    listed = {"image": ["d/a.1.png", "d/a.0.png"], "conversations": talk}
    source = put(tmp_path / "in", {**files, "d/a.json": json.dumps(listed)})
    assert run(source, tmp_path / "out").exit_code == 0
    assert shades(stored(tmp_path / "out")[0]) == [11, 10]
    for names in (["a.1.png"], ["a.1.png", "a.2.png"], ["a.0.png", "a.1.png", "a.1.jpg", "x.png"]):
        put(tmp_path / "in", {"d/a.json": json.dumps({**listed, "image": names})})
        (message,) = messages(tmp_path / "in")
        assert message.startswith("other images: d/a.json: .json lists the images "), message


def test_a_cut_image_is_met_when_it_is_converted(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    files: dict[str, bytes | str] = {}
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("AVIF", "avif"), ("WEBP", "webp")):
        stream = io.BytesIO()
        noise.save(stream, kind)
        files |= {f"{kind}.{suffix}": stream.getvalue()[: 2 * len(stream.getvalue()) // 3]}
        files |= {f"{kind}.txt": "words"}
    found = messages(put(tmp_path, files))
    assert len(found) == 4 and all("is damaged or truncated" in one for one in found)


def test_looking_for_images_enters_nothing_that_leads_out(tmp_path: Path) -> None:
    put(tmp_path, {"secret.bin": image(1)})
    folder = put(tmp_path / "in", {"b.png": image(2), "b.txt": "words", "a.txt": "words"})
    (folder / "a.bin").symlink_to(tmp_path / "secret.bin")
    os.mkfifo(folder / "pipe.bin")
    assert [bool(message) for message in messages(folder)] == [True, False]


# --- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", KINDS)
def test_a_table_names_images_of_any_suffix(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, {f"a.{suffix}": image(5, KINDS[suffix])})
    line = json.dumps({"image": f"a.{suffix}", "question": "which?", "answer": "red"})
    (sample,) = rows(put(tmp_path, {"t.jsonl": line}) / "t.jsonl")
    assert isinstance(sample, Sample) and len(sample.images) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"thumb_nail": "a.jfif", "text": "words"},
        {"link": "https://example.com/photos/a.JPG?size=3", "text": "words"},
        {"pics": ["a.avif", "b.avif"], "question": "which?", "answer": "red"},
        {"shot": {"path": "a.heic"}, "question": "which?", "answer": "red"},
        {"shot": "data:image/png;base64,AAAA", "text": "words"},
        {"file_of_it": "my photos/a b.webp", "text": "words"},
    ],
)
def test_an_image_in_a_column_that_nobody_reads_is_told(tmp_path: Path, row: dict) -> None:
    source = put(tmp_path, {"t.jsonl": json.dumps(row)}) / "t.jsonl"
    (message,) = messages(source)
    column = next(iter(row))
    assert message.startswith(f"unread image: {column} has an image, ")
    format = "text" if "text" in row else "question"
    assert f"--image {column}, or give --format {format} for the words alone" in message
    assert messages(source, format) == [""]


def test_bytes_of_an_image_in_parquet_are_told_whatever_the_column(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra hf is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"jpg": [image(1, "JPEG")] * 3, "text": ["words"] * 3})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert all("jpg has an image, " in one for one in messages(tmp_path / "t.parquet"))
    urls = pyarrow.table({"URL_of": ["https://a.com/b.jpeg"], "TEXT": ["words"]})
    parquet.write_table(urls, tmp_path / "u.parquet")
    assert "unread image: URL_of has an image" in messages(tmp_path / "u.parquet")[0]


@pytest.mark.parametrize(
    "row",
    [
        {"url": "https://example.com/page.html", "text": "words"},
        {"id": 3, "source": "a book, with a picture a.png of it.", "text": "words"},
        {"image": "a.png", "url": "https://example.com/a.jpg", "caption": "words"},
        {"text": "photo.jpg"},
    ],
)
def test_what_is_no_image_is_no_reason(tmp_path: Path, row: dict) -> None:
    put(tmp_path, {"a.png": image(1), "t.jsonl": json.dumps(row)})
    assert messages(tmp_path / "t.jsonl") == [""]


def test_empty_cells_of_an_image_column_are_counted(tmp_path: Path) -> None:
    lines = [
        {"image": cell, "question": "which?", "answer": "red"} for cell in (None, "", [], "a.png")
    ]
    put(tmp_path, {"a.png": image(1), "t.jsonl": "\n".join(map(json.dumps, lines))})
    result = run(tmp_path / "t.jsonl", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 rows have no image: their image column is empty" in result.output
