"""Tables of all kinds for `unimodal data convert`, and the Documents that come of them."""

import csv
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from unimodal.command import main
from unimodal.data.convert.convert import converted, open_table
from unimodal.data.lengths import Bad
from unimodal.data.shards import Shard, find_shards
from unimodal.document import Document, Text


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
