"""Tars as others write them: long names, other formats, links, hidden files, samples in pieces."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from benchmarks.faults import image, sequencer

from unimodal.data.estimator import LengthEstimator
from unimodal.data.lengths import Bad
from unimodal.data.measured import measure_shard
from unimodal.data.quarantine import Quarantine
from unimodal.data.shards import Shard, ShardError, ShardWriter
from unimodal.data.tar import BLOCK, Fault, compression, members
from unimodal.tokenizer.autoencoder import TokenizerConfig

NAMES = ("plain", "фото/ü1", "d" * 60 + "/" + "n" * 70, "x" * 120, "日本語" * 20)
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
QUESTION = json.dumps({"question": "which?", "answer": "red"}).encode()


def add(tar: tarfile.TarFile, name: str, content: bytes = b"x") -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write(path: Path, names: list[str], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of members with these names; a .json is a question, a .png an image."""
    contents = {"json": QUESTION, "png": image(), "txt": b"words"}
    with tarfile.open(path, "w", format=format) as tar:
        for name in names:
            add(tar, name, contents.get(name.rpartition(".")[2].lower(), b"?"))
    return path


def read(path: Path) -> dict[str, list[str]]:
    """The names of files by key, in order."""
    shard = Shard(path)
    samples = [shard.sample(number) for number in range(len(shard))]
    return {sample.key: list(sample.files) for sample in samples}


def found(path: Path) -> tuple[dict[str, list[str]], list[tuple[str | None, str, str]]]:
    """The samples that are whole, and (key, reason, message) of those that are not."""
    faults: list[Fault] = []
    shard = Shard(path, faults)
    whole = {shard.key(number): list(shard.sample(number).files) for number in range(len(shard))}
    assert len(whole) == len(shard)
    return whole, [(fault.key, fault.reason, fault.message) for fault in faults]


# --- names and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_names_of_any_length_and_alphabet(tmp_path: Path, format: str) -> None:
    keys = [key for key in NAMES if format != "ustar" or len(key.encode()) < 100 or "/" in key]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=FORMATS[format], encoding="utf-8") as tar:
        for key in keys:
            add(tar, f"{key}.png", image())
            add(tar, f"{key}.txt", key.encode())
    assert read(path) == {key: ["png", "txt"] for key in keys}
    shard = Shard(path)
    assert [shard.sample(k).files["txt"].decode() for k in range(len(shard))] == keys
    assert all(shard.sample(k).files["png"] == image() for k in range(len(shard)))


@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(tmp_path: Path, format: str) -> None:
    keys = ["a", "ü", *(["k" * 120, "d" * 90 + "/" + "e" * 90] if format != "v7" else [])]
    keys = [key for key in keys if format != "ustar" or len(key) != 120]
    folder = tmp_path / "in"
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.txt").write_text(key)
        (folder / f"{key}.png").write_bytes(image())
    (folder / "zz").mkdir()  # a folder stands last
    command = ["tar", f"--format={format}", "--sort=name", "-cf", str(tmp_path / "a.tar"), "-C"]
    subprocess.run([*command, str(folder), "."], check=True)
    assert read(tmp_path / "a.tar") == {f"./{key}": ["png", "txt"] for key in sorted(keys)}


def test_a_size_in_base_256_and_one_in_a_record(tmp_path: Path) -> None:
    """As tars have them for files of 8 GB and more; here of five bytes."""
    path = write(tmp_path / "a.tar", ["a.txt", "a.json"], tarfile.GNU_FORMAT)
    content = bytearray(path.read_bytes())
    content[124:136] = b"\x80" + (5).to_bytes(11)
    _sum(content)
    path.write_bytes(content)
    assert Shard(path).sample(0).files == {"txt": b"words", "json": QUESTION}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("b.txt")
        info.size, info.pax_headers = 5, {"size": "5"}
        tar.addfile(info, io.BytesIO(b"words"))
    content = bytearray(path.read_bytes())
    at = content.index(b"b.txt")
    content[at + 124 : at + 136] = b"00000000000\0"
    _sum(content, at)
    path.write_bytes(content)
    assert Shard(path).sample(0).files == {"txt": b"words"}


def _sum(content: bytearray, at: int = 0, signed: bool = False) -> None:
    """Write the checksum of the header that begins at a byte."""
    content[at + 148 : at + 156] = b" " * 8
    head = content[at : at + BLOCK]
    total = sum(head) - (256 * sum(byte > 127 for byte in head) if signed else 0)
    content[at + 148 : at + 156] = b"%06o\0 " % total


def test_a_checksum_of_signed_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", ["ü.txt"], tarfile.GNU_FORMAT)
    content = bytearray(path.read_bytes())
    _sum(content, signed=True)
    path.write_bytes(content)
    assert read(path) == {"ü": ["txt"]}


def test_names_that_are_no_utf_8_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for key in ("fü", "fö"):
            add(tar, f"{key}.txt", b"words")
    assert read(path) == {"f\\xfc": ["txt"], "f\\xf6": ["txt"]}


def test_a_damaged_record_costs_its_own_sample(tmp_path: Path) -> None:
    keys = [f"ü{number}" for number in range(5)]
    path = write(tmp_path / "a.tar", [f"{key}.txt" for key in keys])
    content = path.read_bytes()
    at = content.index("path=ü2".encode()) - 3
    path.write_bytes(content[:at] + b"9!" + content[at + 2 :])
    whole, lost = found(path)
    assert set(whole) >= {"ü0", "ü1", "ü3", "ü4"} and "a pax header is damaged" in lost[0][2]


def test_long_names_are_written_so_that_any_tar_reads_them(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.write_files("k" * 150, {"txt": b"words"})
        writer.write_files("short", {"txt": b"words"})
    path = tmp_path / "shard-000000.tar"
    assert read(path) == {"k" * 150: ["txt"], "short": ["txt"]}
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["k" * 150 + ".txt", "short.txt"]


# --- what is no sample --------------------------------------------------------------------------


def test_hidden_files_are_left_out_and_counted(tmp_path: Path) -> None:
    mine = ["a.png", "a.txt", "d/b.png", "d/b.txt"]
    theirs = ["._a.png", "._a.txt", "d/._b.png", "d/._b.txt"]
    names = [name for both in zip(theirs, mine, strict=True) for name in both]
    path = write(tmp_path / "a.tar", [".DS_Store", *names])
    assert read(path) == {"a": ["png", "txt"], "d/b": ["png", "txt"]}
    assert Shard(path).num_hidden == 5
    measured = measure_shard(path, LengthEstimator(sequencer(), 256, TokenizerConfig()))
    assert measured.notes["unused: hidden"] == 5 and measured.notes["samples"] == 2


def test_links_and_sparse_files_cost_their_sample_and_say_how_to_write_them(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for key in "abcd":
            add(tar, f"{key}.txt", b"words")
            if key in "bc":
                info = tarfile.TarInfo(f"{key}.png")
                info.type = tarfile.LNKTYPE if key == "b" else tarfile.SYMTYPE
                info.linkname = "a.png"
                tar.addfile(info)
            else:
                add(tar, f"{key}.png", image())
    whole, lost = found(path)
    assert list(whole) == ["a", "d"] and [key for key, *_ in lost] == ["b", "c"]
    assert lost[0][2] == (
        "b.png is a link to a.png: write the tar with --dereference --hard-dereference"
    )
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/s.txt").open("wb") as file:
        file.truncate(1 << 20)
    (tmp_path / "in/t.txt").write_text("words")
    for format in ("gnu", "posix"):
        command = ["tar", f"--format={format}", "--sparse", "--sort=name", "-C"]
        subprocess.run(
            [*command, str(tmp_path / "in"), "-cf", str(path), "s.txt", "t.txt"], check=True
        )
        whole, lost = found(path)
        assert list(whole) == ["t"] and "write the tar without --sparse" in lost[0][2]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_called_that(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.tar.{kind}"
    with tarfile.open(path, f"w:{kind}") as tar:
        add(tar, "a.txt")
    how = {"gz": "gzip", "bz2": "bzip2", "xz": "xz"}[kind]
    assert compression(path.read_bytes()[:16]) == how
    with pytest.raises(ShardError, match=rf"no tar but compressed \({how}\): unpack it first"):
        Shard(path)


# --- samples in pieces --------------------------------------------------------------------------

BLOCKS = {
    "all images, then all texts": [f"h{k}.{e}" for e in ("png", "txt") for k in range(8)],
    "all questions, then all images": [f"h{k}.{e}" for e in ("json", "png") for k in range(8)],
    "edits in three blocks": [
        f"h{k}.{e}" for e in ("before.png", "after.png", "txt") for k in range(8)
    ],
}


@pytest.mark.parametrize("names", BLOCKS.values(), ids=BLOCKS)
def test_files_that_are_not_neighbours_are_no_sample(tmp_path: Path, names: list[str]) -> None:
    whole, lost = found(write(tmp_path / "a.tar", names))
    assert whole == {} and [key for key, *_ in lost] == [f"h{k}" for k in range(8)]
    assert {reason for _, reason, _ in lost} == {"scattered files"}
    first = ", ".join(f".{name.partition('.')[2]}" for name in names if name.startswith("h0"))
    assert lost[0][2] == (
        f"the files of h0 ({first}) are not next to each other: "
        "write the tar in the order of names (tar --sort=name)"
    )


def test_behind_a_thousand_good_samples_none_loses_its_image(tmp_path: Path) -> None:
    good = [f"g{k:04d}.{e}" for k in range(1000) for e in ("json", "png")]
    tail = [f"h{k}.{e}" for e in ("png", "json") for k in range(4)]
    path = write(tmp_path / "a.tar", [*good, *tail])
    whole, lost = found(path)
    assert len(whole) == 1000 and set(map(tuple, whole.values())) == {("json", "png")}
    assert [key for key, *_ in lost] == ["h0", "h1", "h2", "h3"]
    measured = measure_shard(path, LengthEstimator(sequencer(), 256, TokenizerConfig()))
    assert measured.notes["samples"] == 1004 and measured.notes["format question"] == 1000
    assert [bad["reason"] for bad in measured.bad] == ["scattered files"] * 4
    with pytest.raises(ShardError, match=r"a.tar, h0: the files of h0 .*tar --sort=name"):
        Shard(path)


def test_a_sample_in_two_halves_costs_no_other(tmp_path: Path) -> None:
    names = [f"g{k}.{e}" for k in range(6) for e in ("json", "png")]
    whole, lost = found(write(tmp_path / "a.tar", ["h.json", "i.png", *names, "h.png", "i.json"]))
    assert list(whole) == [f"g{k}" for k in range(6)] and [key for key, *_ in lost] == ["h", "i"]


@pytest.mark.parametrize("times", [3, 6])
def test_the_same_key_in_a_row_is_as_many_bad_samples(tmp_path: Path, times: int) -> None:
    good = [f"g{k}.{e}" for k in range(100) for e in ("json", "png")]
    path = write(tmp_path / "a.tar", ["k.json", "k.png"] * times + good)
    whole, lost = found(path)
    assert len(whole) == 100 and len(lost) == times
    message = "k.json stands in the tar twice: keys tell samples apart, so rename them"
    assert {one[1:] for one in lost} == {("the same name twice", message)}
    begins = [int(key.removeprefix("k (byte ").removesuffix(")")) for key, *_ in lost]
    assert begins[0] == 0 and all(path.read_bytes()[at:].startswith(b"k.json\0") for at in begins)
    measured = measure_shard(path, LengthEstimator(sequencer(), 256, TokenizerConfig()))
    assert measured.notes["samples"] == 100 + times and len(measured.bad) == times
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", times / (100 + times))
    quarantine.add_measured([Bad("a.tar", **bad) for bad in measured.bad], 100 + times)
    assert len(quarantine) == len((tmp_path / "quarantine.jsonl").read_text().splitlines()) == times
    with pytest.raises(ShardError, match=f"{times} of {100 + times} samples cannot be used"):
        Quarantine(None, 0.02).add_measured(
            [Bad("a.tar", **bad) for bad in measured.bad], 100 + times
        )


@pytest.mark.parametrize(
    "names",
    [
        ["k.png", "k.png", "k.txt"],
        ["k.png", "k.PNG", "k.txt"],
        ["k.png", "k.txt", "g.png", "g.txt", "k.png", "k.txt"],
    ],
)
def test_the_same_name_twice_is_bad_wherever_it_stands(tmp_path: Path, names: list[str]) -> None:
    whole, lost = found(write(tmp_path / "a.tar", [*names, "z.png", "z.txt"]))
    assert "k" not in whole and whole["z"] == ["png", "txt"]
    assert {reason for _, reason, _ in lost} == {"the same name twice"} and len(lost) == 2


def test_damage_between_the_files_of_a_sample_costs_the_sample(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(9)]
    path = write(
        tmp_path / "a.tar", [f"{key}.{e}" for key in keys for e in ("0.png", "1.png", "txt")]
    )
    content = bytearray(path.read_bytes())
    at = content.index(b"k4.1.png")
    content[at : at + 300] = b"?" * 300
    path.write_bytes(content)
    whole, lost = found(path)
    assert list(whole) == [key for key in keys if key != "k4"]
    assert [key for key, *_ in lost] == [None, "k4"]


def test_many_files_of_one_key_take_no_longer_than_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [f"video.{number:05d}.x" for number in range(20_000)])
    assert len(read(path)["video"]) == 20_000


def test_members_are_those_of_pythons_tarfile(tmp_path: Path) -> None:
    names = [f"{key}.{e}" for key in NAMES for e in ("png", "txt")]
    path = write(tmp_path / "a.tar", names)
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        theirs = [(info.name, info.offset_data, info.size) for info in tar.getmembers()]
    ours = [(m.name, m.start, m.stop - m.start) for m in members(content, 0, len(content))]
    assert ours == theirs
