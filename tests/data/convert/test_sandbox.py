"""What untrusted data may name: no path leads out of its folder, and nothing is fetched."""

import os

import pytest
from convert_cases import TALK, encoded, put, put_lines, reasons, written
from convert_cases import two as two


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
