"""Files and folders that appear whole or not at all, whatever fails and whoever else writes."""

import errno
import os
import signal
import stat
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from unimodal.atomic import flush, publish, replacing, write_bytes

LARGE = 200_000  # bytes: more than one write of the system takes at once from a buffer
WRITERS, WRITES = 3, 40


def write_folder(fresh: Path, content: bytes) -> None:
    (fresh / "below").mkdir(parents=True)
    for name in ("first", "below/second"):
        (fresh / name).write_bytes(content)


def folder_content(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def whole(content: bytes) -> dict[str, bytes]:
    return {"first": content, "below/second": content}


# --- what becomes of it -------------------------------------------------------------------------


def test_a_file_takes_the_place_of_an_older_one_and_nothing_else_stays(tmp_path: Path):
    path = tmp_path / "a.json"
    for content in (b"old", b"new"):
        with replacing(path) as fresh:
            assert fresh.name == path.name and fresh != path
            fresh.write_bytes(content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, "as other files are"


def test_a_name_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_bytes("a.json", b"new")
    assert Path("a.json").read_bytes() == b"new"
    with pytest.raises(FileNotFoundError) as caught:
        write_bytes("nowhere/a.json", b"new")
    assert caught.value.filename == "nowhere/a.json"


def test_a_folder_takes_the_place_of_one_with_files_only_when_told(tmp_path: Path):
    path = tmp_path / "old"
    for content in (b"first", b"second"):
        with replacing(path, over_folder=True) as fresh:
            write_folder(fresh, content)
        assert folder_content(path) == whole(content)
    with pytest.raises(OSError) as caught, replacing(path) as fresh:
        write_folder(fresh, b"third")
    assert caught.value.errno in (errno.ENOTEMPTY, errno.EEXIST)
    assert caught.value.filename == str(path)
    assert folder_content(path) == whole(b"second") and list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_block_is_its_own_and_changes_nothing(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="mine"), replacing(path) as fresh:
        fresh.write_bytes(b"new")
        raise RuntimeError("mine")
    with pytest.raises(FileNotFoundError) as caught, replacing(path) as fresh:
        fresh.write_bytes((tmp_path / "source").read_bytes())
    assert caught.value.filename == str(tmp_path / "source"), "of what is read, not of what is made"
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_older_folder_is_put_back_when_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "model"
    write_folder(path, b"old")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == target.name == "model" and self != path:
            raise OSError(errno.EIO, "Input/output error", str(self))
        return real(self, target)

    with pytest.raises(OSError, match="Input/output"), replacing(path, over_folder=True) as fresh:
        write_folder(fresh, b"new")
        monkeypatch.setattr(Path, "rename", rename)
    assert folder_content(path) == whole(b"old") and list(tmp_path.iterdir()) == [path]


# --- kills, full disks and other writers --------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_between_writing_and_renaming_leaves_the_older_one(tmp_path: Path, kind: str):
    path = tmp_path / "target"
    write_folder(path, b"old") if kind == "folder" else path.write_bytes(b"old")
    write = "write_folder(fresh, b'new')" if kind == "folder" else "fresh.write_bytes(b'new')"
    code = f"""if True:
        import os, signal
        from unimodal.atomic import replacing
        from test_atomic import write_folder
        with replacing({str(path)!r}, over_folder=True) as fresh:
            {write}
            os.kill(os.getpid(), signal.SIGKILL)
    """
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    old = folder_content(path) if kind == "folder" else path.read_bytes()
    assert old == (whole(b"old") if kind == "folder" else b"old")
    if kind == "file":
        write_bytes(path, b"later")
        assert path.read_bytes() == b"later"


def test_a_full_disk_names_the_file_and_leaves_the_older_one(small_disk: Path):
    file, folder = small_disk / "a.json", small_disk / "folder"
    write_bytes(file, b"old")
    write_folder(folder, b"old")
    with pytest.raises(OSError) as caught:
        write_bytes(file, b"x" * LARGE)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))
    with pytest.raises(OSError) as caught, replacing(folder, over_folder=True) as fresh:
        write_folder(fresh, b"x" * 40_000)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(folder))
    assert file.read_bytes() == b"old" and folder_content(folder) == whole(b"old")
    assert sorted(small_disk.iterdir()) == [file, folder]


def test_a_stream_that_refuses_every_byte_is_said_to_be_of_the_file(tmp_path: Path):
    with pytest.raises(OSError) as caught, replacing(tmp_path / "a") as fresh:
        fresh.symlink_to("/dev/full")
        fresh.write_bytes(b"x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def write_again_and_again(path: Path, letter: bytes, is_folder: bool) -> None:
    for _ in range(WRITES):
        if is_folder:
            with replacing(path, over_folder=True) as fresh:
                write_folder(fresh, letter * 1000)
        else:
            write_bytes(path, letter * LARGE)


@pytest.mark.parametrize("is_folder", [False, True])
def test_processes_that_write_the_same_path_do_not_disturb_each_other(
    tmp_path: Path, is_folder: bool
):
    path, context = tmp_path / "target", get_context("fork")
    letters = [bytes([65 + number]) for number in range(WRITERS)]
    writers = [
        context.Process(target=write_again_and_again, args=(path, letter, is_folder))
        for letter in letters
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if not is_folder and path.exists():
            seen.add(path.read_bytes())
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    if is_folder:
        assert folder_content(path) in [whole(letter * 1000) for letter in letters]
    else:
        assert seen <= {letter * LARGE for letter in letters}, "whole at every instant"
    assert list(tmp_path.iterdir()) == [path]


# --- the disk itself ----------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What reaches the disk, in order: ('flush', inode) of each fsync, ('rename', inode)."""
    found: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        fsync(descriptor)
        found.append(("flush", os.fstat(descriptor).st_ino))

    def renamed(source: Path, target: Path) -> None:
        found.append(("rename", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    return found


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_file_is_flushed_then_renamed_then_its_folder_is_flushed(
    tmp_path: Path, steps: list[tuple[str, int]]
):
    path = tmp_path / "a"
    write_bytes(path, b"new")
    assert steps == [("flush", inode(path)), ("rename", inode(path)), ("flush", inode(tmp_path))]


def test_all_of_a_folder_is_flushed_before_it_is_renamed(
    tmp_path: Path, steps: list[tuple[str, int]]
):
    path = tmp_path / "folder"
    with replacing(path) as fresh:
        write_folder(fresh, b"new")
    *flushed, renamed, last = steps
    inside = [path, path / "first", path / "below", path / "below" / "second"]
    assert sorted(flushed) == sorted(("flush", inode(one)) for one in inside)
    assert renamed == ("rename", inode(path)) and last == ("flush", inode(tmp_path))


def test_a_file_that_was_filled_elsewhere_is_published_alike(
    tmp_path: Path, steps: list[tuple[str, int]]
):
    part = tmp_path / "a.tar.part"
    part.write_bytes(b"whole")
    publish(part, tmp_path / "a.tar")
    assert [kind for kind, _ in steps] == ["flush", "rename", "flush"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    flush(tmp_path / "a.tar")
    assert steps[-1] == ("flush", inode(tmp_path / "a.tar"))
