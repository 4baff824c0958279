"""docs/formats.md is true: each sample on it is read as it says, wherever it is stored.

A sample of JSON is read as a tar, a folder, JSONL, CSV and, where pyarrow is installed, parquet.
"""

import base64
import csv
import functools
import http.server
import io
import json
import re
import runpy
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from benchmarks.faults import write_tar
from click.testing import CliRunner
from PIL import Image as PILImage

from unimodal import config
from unimodal.command import main
from unimodal.data import asking
from unimodal.data.fields import NAMES
from unimodal.data.formats import FORMATS, Sample, detect_format
from unimodal.data.shards import Shard, find_shards
from unimodal.document import Document, Image, Part, Text
from unimodal.train.run import LmRun

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def png(level: int) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (16, 16), (level, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


LEVELS = {"a.png": 1, "b.png": 2, "PNG": 3}
FILES = {name: png(level) for name, level in LEVELS.items()}
INSIDE = base64.b64encode(FILES["PNG"]).decode()  # what stands where the page has PNG


class Example(NamedTuple):
    stored: str
    """A line of JSON, or lines of files: their names, and the contents of texts."""
    read: str

    @property
    def is_json(self) -> bool:
        return self.stored.startswith("{")

    @property
    def fields(self) -> dict:
        return json.loads(self.stored.replace("base64,PNG", f"base64,{INSIDE}"))


def examples() -> Iterator[Example]:
    for _, block in BLOCKS:
        lines: list[str] = []
        for line in block.splitlines() if "\n=> " in block else ():
            if line.startswith("=> "):
                yield Example("\n".join(lines), line.removeprefix("=> "))
                lines = []
            else:
                lines.append(line)
        assert not lines, "every sample has a line that says how it is read"


EXAMPLES = list(examples())
ROWS = [example for example in EXAMPLES if example.is_json]


def shown(found: Document) -> str:
    """A document as the page writes it."""
    names = {level: name for name, level in LEVELS.items()}

    def words(part: Part) -> str:
        if isinstance(part, Text):
            return part.text.replace("\n", "\\n")
        assert isinstance(part, Image) and part.pixels is not None
        return f"[{names[int(part.pixels[0, 0, 0])]}]"

    turns = [(role, " ".join(map(words, parts))) for role, parts in found.turns()]
    return " | ".join(f"{role}: {said}" if role else said for role, said in turns)


def beside(example: Example, stem: str) -> tuple[dict, dict[str, bytes]]:
    """The fields of a sample with its images as files of its name, and these files."""
    fields, files = example.fields, {}
    if "before" in fields:  # the names of an edit's images say which is which
        names = {name: f"{when}.png" for when in ("before", "after") if (name := fields.pop(when))}
    else:
        there = [name for name in ("a.png", "b.png") if name in example.stored]
        names = {name: f"{number}.png" for number, name in enumerate(there)}
    text = json.dumps(fields)
    for name, extension in names.items():
        text = text.replace(f'"{name}"', f'"{stem}.{extension}"')
        files[extension] = FILES[name]
    return json.loads(text), files


def converted(source: Path, output: Path, example: Example) -> list[Document]:
    """Convert a source, its captions as pairs unless the page says that they are marked."""
    kind = () if '"turns"' in example.stored else ("--captions", "pairs")
    done = CliRunner().invoke(main, ["data", "convert", str(source), str(output), *kind])
    assert done.exit_code == 0, done.output
    (path,) = find_shards(output)
    return [Shard(path).document(number) for number in range(len(Shard(path)))]


def from_tar(example: Example, folder: Path) -> Document:
    fields, files = beside(example, "k")
    content = json.dumps(fields).encode()
    return Shard(write_tar(folder / "t.tar", {"k": {**files, "json": content}})).document(0)


def from_folder(example: Example, folder: Path) -> Document:
    fields, files = beside(example, "k")
    (folder / "in").mkdir()
    for extension, content in files.items():
        (folder / "in" / f"k.{extension}").write_bytes(content)
    (folder / "in" / "k.json").write_text(json.dumps(fields))
    source = folder / "in"
    if not files:  # a folder of JSON alone is none
        source = folder / "t.jsonl"
        source.write_text(json.dumps(fields))
    (found,) = converted(source, folder / "out", example)
    return found


def table(example: Example, folder: Path) -> dict:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(FILES[name])
    return example.fields


def from_jsonl(example: Example, folder: Path) -> Document:
    (folder / "t.jsonl").write_text(json.dumps(table(example, folder)) + "\n")
    (found,) = converted(folder / "t.jsonl", folder / "out", example)
    return found


def from_csv(example: Example, folder: Path) -> Document:
    """Lists are written as JSON, as pandas and people do."""
    row = table(example, folder)
    cells = [value if isinstance(value, str) else json.dumps(value) for value in row.values()]
    with (folder / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([list(row), cells])
    (found,) = converted(folder / "t.csv", folder / "out", example)
    return found


def from_parquet(example: Example, folder: Path) -> Document:
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.Table.from_pylist([table(example, folder)])
    pyarrow.parquet.write_table(rows, folder / "t.parquet")
    (found,) = converted(folder / "t.parquet", folder / "out", example)
    return found


# All that the caption of the page may be read as, over keys.
ASKED = {
    *(f"user: {words.replace('{}', 'a red bus')} | assistant: [a.png]" for words in asking.SHORT),
    *(f"user: [a.png] {words} | assistant: a red bus" for words in asking.QUESTIONS),
}
WITHOUT_PYARROW = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs the extra hf")


@pytest.mark.parametrize("example", ROWS, ids=lambda example: example.stored[:40])
@pytest.mark.parametrize(
    "reader",
    [
        from_tar, from_folder, from_jsonl, from_csv,
        pytest.param(from_parquet, marks=WITHOUT_PYARROW),
    ],
)  # fmt: skip
def test_a_sample_is_read_as_the_page_says(
    reader: Callable[[Example, Path], Document], example: Example, tmp_path: Path
) -> None:
    found = shown(reader(example, tmp_path))
    if '"turns"' in example.stored:  # the key decides the phrasing, and keys differ
        assert found in ASKED
    else:
        assert found == example.read


def test_the_page_shows_one_of_the_phrasings() -> None:
    (example,) = [example for example in ROWS if '"turns"' in example.stored]
    assert example.fields["caption"] == "a red bus" and example.read in ASKED


@pytest.mark.parametrize(
    "example", [example for example in EXAMPLES if not example.is_json], ids=lambda e: e.stored[:20]
)
def test_a_folder_is_read_as_the_page_says(example: Example, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for line in example.stored.splitlines():
        name, _, content = line.partition(": ")
        (source / name).write_bytes(content.encode() if content else FILES[name])
    (found,) = converted(source, tmp_path / "out", example)
    assert shown(found) == example.read


def test_every_format_is_on_the_page() -> None:
    found = {detect_format(Sample("k", {"txt": b"a", "png": b""}))}
    for example in ROWS:
        fields, files = beside(example, "k")
        found.add(detect_format(Sample("k", {**files, "json": json.dumps(fields).encode()})))
    assert found == set(FORMATS)


def test_the_names_on_the_page_are_known() -> None:
    (listed,) = re.findall(r"is taken: ([^.]*)\.", PAGE)
    names = [name.strip() for name in listed.split(",")]
    known = list(NAMES["caption"])
    assert [name for name in names if name not in known] == []
    assert names == sorted(names, key=known.index), "in the order in which they are taken"


def test_the_recipe_on_the_page_is_one(tmp_path: Path) -> None:
    (recipe,) = [block for language, block in BLOCKS if language == "yaml"]
    (tmp_path / "fields.yaml").write_text(recipe)
    found = config.load(LmRun, tmp_path / "fields.yaml")
    assert found.sources["laion"].fields == {"caption": "my_caption"}


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) < 150


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_script_fetches_pages_that_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.png").write_bytes(FILES["a.png"])
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    pages = [
        {"texts": ["one", None], "images": [None, f"{url}/a.png"], "metadata": "{}"},
        {"texts": ["two", None], "images": [None, f"{url}/gone.png"], "metadata": "{}"},
    ]
    (tmp_path / "obelics.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    (script,) = [block for _, block in BLOCKS if "urlretrieve" in block]
    (tmp_path / "fetch.py").write_text(script)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("fetch.py")
    server.shutdown()
    words = ["data", "convert", "pages.jsonl", "out", "--images", "images"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    (path,) = find_shards(tmp_path / "out")
    assert len(Shard(path)) == 1 and shown(Shard(path).document(0)) == "one\\n [a.png]"
    refused = CliRunner().invoke(main, ["data", "convert", "obelics.jsonl", "no"])
    assert refused.exit_code == 2 and "docs/formats.md says how" in refused.output
