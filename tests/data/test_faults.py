"""Damaged data: every fault is met, counted and written down, and costs no other sample."""

import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.faults import (
    SOUND,
    TAR_FAULTS,
    Means,
    caption,
    damaged,
    image,
    key_of,
    one_pass,
    samples,
    sequencer,
    table,
    write,
    write_tar,
)

from unimodal.data.lengths import Bad
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.quarantine import Quarantine, is_too_many
from unimodal.data.sources import SourceConfig
from unimodal.data.tar import ShardError
from unimodal.sequence import PADDING, Batch

CONFIG = LoaderConfig(sequence_length=256, batch_rows=8, window_rows=64)


def test_every_fault_costs_its_own_sample_alone(tmp_path: Path) -> None:
    rows = {name: (met, reason, lost) for name, met, reason, lost in table(tmp_path)}
    assert len(rows) == len(samples()) + len(TAR_FAULTS)
    assert all(lost == 0 for _, _, lost in rows.values())
    harmless = ("text with control spellings", "animated image")
    assert [name for name, (met, *_) in rows.items() if met == "none"] == list(harmless)
    assert rows["corrupt image"][:2] == ("making", "bad image")
    for line in (tmp_path / "quarantine.jsonl").read_text().splitlines():
        entry = json.loads(line)
        assert Path(entry["shard"]).exists() and entry["reason"] and entry["message"]


def test_a_bad_sample_is_masked_padding_in_its_place(tmp_path: Path) -> None:
    """Beside the same data without damage, every other position is the same."""
    faults = {f"twin{k}": caption(f"#{k + 5000};", image()) for k in range(12)}
    sound, bad = tmp_path / "sound", tmp_path / "bad"
    for folder in (sound, bad):
        folder.mkdir()
    write(sound, faults, ())
    broken = {name: {**files, "png": damaged(files["png"])} for name, files in faults.items()}
    write(bad, broken, ())
    loaders = [
        Loader({"all": SourceConfig(str(folder))}, sequencer(), Means(), CONFIG)
        for folder in (sound, bad)
    ]
    blanks = 0
    for (whole, state), (holed, same) in islice(zip(*loaders, strict=True), 24):
        assert state == same
        blank = (holed.doc == PADDING) & (whole.doc != PADDING)
        assert (holed.weights[blank] == 0).all() and (holed.labels[blank] < 0).all()
        for name in Batch.tensors():
            if name != "positions":  # those of padding mean nothing
                left = getattr(whole, name)[~blank], getattr(holed, name)[~blank]
                assert torch.equal(*left), name
        starts = blank & (whole.positions == 0)
        blanks += int(starts.sum())
    assert blanks == sum(loaders[1].seen.bad.values()) > 5
    assert set(loaders[1].seen.bad) == {"bad image"}


@pytest.mark.parametrize(
    "number", [1000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_fuzzed_samples_never_break_a_run(tmp_path: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    kinds = [caption("fuzzed", image()), *samples().values()]
    fuzzed = {f"fuzz{k}": _fuzzed(kinds[k % len(kinds)], rng) for k in range(number)}
    write_tar(tmp_path / "fuzzed.tar", fuzzed)
    write_tar(tmp_path / "sound.tar", {f"s{k}": caption(f"#{k};", image()) for k in range(50)})
    found = one_pass(tmp_path, share=1.0, sequence_length=512)
    assert all(found.spelt[f"#{k};"] >= 1 for k in range(50))
    noted = set(found.measured) | set(found.made)
    assert noted <= set(fuzzed), "sound samples are never blamed"
    assert number / 4 < len(noted) < number
    with pytest.raises(ShardError, match=rf"of {number + 50} samples cannot be used, .*1.00%"):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        one_pass(tmp_path, share=0.01, sequence_length=512)


def _fuzzed(files: dict[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """Bytes changed, cut, doubled; files taken away, renamed."""
    changed = {}
    for extension, content in files.items():
        array = bytearray(content)
        for _ in range(int(rng.integers(0, 4))):
            if array:
                array[int(rng.integers(len(array)))] = int(rng.integers(256))
        match rng.integers(8):
            case 0:
                array = array[: int(rng.integers(len(array) + 1))]
            case 1:
                array = array * 2
            case 2:
                extension = str(rng.choice(["png", "json", "txt", "jpg", "0.png", "codes", "x"]))
        changed[extension] = bytes(array)
    return changed


def test_too_many_bad_samples_stop_a_run_with_the_list(tmp_path: Path) -> None:
    faults = {f"bad{k}": caption("x", b"") for k in range(20)}
    write(tmp_path, faults, ())
    one_pass(tmp_path, share=20 / (SOUND + 20))
    with pytest.raises(ShardError) as error:
        one_pass(tmp_path, share=19 / (SOUND + 20))
    message = str(error.value)
    assert message.startswith("all: 20 of 2020 samples cannot be used")
    assert "shard-0.tar, key bad0: .png: the image" in message and "and 10 more" in message
    assert "raise bad_share" in message and "quarantine.jsonl" in message


def test_images_that_break_while_rows_are_made_stop_a_run_too(tmp_path: Path) -> None:
    broken = {f"bad{k}": caption("x", damaged(image())) for k in range(19)}
    write(tmp_path, broken, ())
    loader = Loader(
        {"all": SourceConfig(str(tmp_path))},
        sequencer(),
        Means(),
        replace(CONFIG, bad_share=0.0),
        quarantine=tmp_path / "q.jsonl",
    )
    with pytest.raises(
        ShardError, match=r"[1-9] of .* cannot be used, more than the share of 0.00%"
    ):
        for _ in islice(loader, 60):
            pass
    assert 1 <= len((tmp_path / "q.jsonl").read_text().splitlines()) < 10


def test_a_sample_is_counted_once(tmp_path: Path) -> None:
    first = Bad("a.tar", "k", "bad image", "why")
    path = tmp_path / "q.jsonl"
    quarantine = Quarantine(path, 0.01)
    for documents in (10, 20, 5000):
        quarantine.add_read([first], documents)
    assert dict(quarantine.account().reasons) == {"bad image": 1}
    again = Quarantine(path, 0.01)
    again.add_measured([first], 100)
    assert len(again) == 1 and len(path.read_text().splitlines()) == 1


def test_a_quarantine_file_is_read_again_whatever_stands_in_it(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    odd = [
        Bad("a.tar", f"k{end}", "why", f"half \ud800 of {end}") for end in ("\u2028", "\x85", "\n")
    ]
    Quarantine(path, 1.0).add_read(odd, 100)
    with path.open("a") as file:
        file.write('{"shard": "a.tar", "key')  # as a full disk leaves it
    again = Quarantine(path, 1.0)
    again.add_read(odd, 100)
    again.add_read([Bad("a.tar", "new", "why", "else")], 100)
    assert len(again) == 4 and len(path.read_text().split("\n")) == 5
    assert len(Quarantine(path, 1.0)._known) == 4


def test_a_shard_that_goes_away_is_no_bad_sample(tmp_path: Path) -> None:
    write(tmp_path, {}, ())
    loader = Loader({"all": SourceConfig(str(tmp_path))}, sequencer(), Means(), CONFIG)
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    with pytest.raises(OSError, match="No such file"):
        next(iter(loader))


def test_spellings_of_control_tokens_are_text(tmp_path: Path) -> None:
    made_of = sequencer()
    names = [*made_of.vocabulary.special_tokens]
    spelt = " ".join(f"<|{name}|> <{name}> [{name.upper()}]" for name in names)
    write_tar(tmp_path / "a.tar", {"k": {"txt": spelt.encode()}})
    config = replace(CONFIG, sequence_length=4096)
    batch, _ = next(iter(Loader({"all": SourceConfig(str(tmp_path))}, made_of, Means(), config)))
    ids = batch.ids[0][batch.doc[0] == 0].tolist()
    begin, end = (made_of.vocabulary.special(name) for name in ("begin", "end"))
    assert ids[0] == begin and ids[-1] == end
    assert all(made_of.vocabulary.is_text(i) for i in ids[1:-1])
    assert made_of.text_tokenizer.decode(ids[1:-1]) == spelt
    assert key_of("a b.c") == "a-bc"


def bads(count: int, first: int = 0) -> list[Bad]:
    return [Bad("a.tar", f"k{n}", "bad image", "cut") for n in range(first, first + count)]


def test_the_share_is_that_of_a_sources_samples_from_the_first_one_on() -> None:
    """Ten bad ones always passed, and ten more with each thousand that were read again."""
    quarantine = Quarantine(None, 0.01)
    quarantine.add_measured([], 20, "small")
    with pytest.raises(ShardError, match="small: 1 of 20 samples cannot be used, more than .* 1.0"):
        quarantine.add_read(bads(1), 20, "small")
    quarantine.add_measured(bads(6), 1000, "large")
    quarantine.add_read(bads(4, 6), 500, "large")
    for read in (1000, 5000):  # later passes meet them again
        quarantine.add_read(bads(4, 6), read, "large")
    assert len(quarantine) == 11
    with pytest.raises(ShardError, match="large: 11 of 1000 samples"):
        quarantine.add_read(bads(1, 10), 9000, "large")


def test_so_many_bad_ones_at_the_beginning_are_no_chance() -> None:
    quarantine = Quarantine(None, 0.01)
    quarantine.add_measured([], 10**6, "a")
    quarantine.add_read(bads(2), 2, "a")
    with pytest.raises(ShardError, match="a: 3 of 3 samples cannot be used"):
        quarantine.add_read(bads(1, 2), 3, "a")
    assert not is_too_many(14, 256, 0.01) and is_too_many(15, 256, 0.01)
    assert is_too_many(1, 10**6, 0.0) and not is_too_many(5, 5, 1.0)


def test_a_sound_source_is_hardly_ever_stopped_by_chance() -> None:
    """Half of what is let pass is bad; each of 2,000 runs is asked after each of 2,000 samples."""
    rng = np.random.default_rng(0)
    bad_NT = (rng.random((2000, 2000)) < 0.005).cumsum(axis=1)
    for bad_T in bad_NT:
        new = np.flatnonzero(np.diff(bad_T, prepend=0))
        assert not any(is_too_many(int(bad_T[at]), int(at) + 1, 0.01) for at in new)
