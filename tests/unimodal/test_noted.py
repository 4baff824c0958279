"""JSON that a run has noted: what is cut is left out, what is damaged is named."""

from pathlib import Path

import pytest

from unimodal import noted


def test_lines_that_end_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert noted.lines(path, "remove it") == []
    path.write_bytes('{"a": "\u2028 ü"}\n[2]\n{"cut": '.encode())
    assert noted.lines(path, "remove it") == [{"a": "\u2028 ü"}, [2]]
    assert b"".join(noted.whole_lines(path)) + b'{"cut": ' == path.read_bytes()


@pytest.mark.parametrize("bad", [b"{", b"\xff", b'{"a": 1} 2', b""])
def test_what_is_damaged_is_named(bad: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"1\n" + bad + b"\n3\n")
    with pytest.raises(ValueError, match=r"log.jsonl: line 2 is damaged \(.*\): remove it"):
        noted.lines(path, "remove it")
    with pytest.raises(ValueError, match=r"log.jsonl is damaged \(.*\): remove it"):
        noted.parsed(path, bad, "remove it")
