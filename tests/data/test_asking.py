"""Captions as conversations: requests to draw and questions, in many phrasings, by the key."""

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.faults import write_tar
from click.testing import CliRunner
from PIL import Image as PILImage
from tiny_runs import recipe, write_tokenizer

from unimodal.command import main
from unimodal.data import asking, formats
from unimodal.data.formats import Sample, detect_format, document, variants
from unimodal.data.loader import LoaderConfig
from unimodal.data.shards import Shard, find_shards
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.document import Document, Image, Text
from unimodal.train import lm


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    PILImage.new("RGB", (64, 64), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def turns(found: Document) -> list[tuple]:
    return [(p.role, p.weight, p.text if isinstance(p, Text) else "image") for p in found.parts]


def folder_of(path: Path, count: int) -> Path:
    path.mkdir()
    for number in range(count):
        (path / f"{number:03d}.png").write_bytes(png(number))
        (path / f"{number:03d}.txt").write_text(f"A cat of shade {number}.")
    return path


def convert(*words: object) -> str:
    done = CliRunner().invoke(main, ["data", "convert", *map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_convert_makes_conversations_of_captions_and_says_so(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", 60)
    said = convert(source, tmp_path / "out")
    assert "captions are written as conversations" in said and "--captions pairs" in said
    (path,) = find_shards(tmp_path / "out")
    found = [turns(Shard(path).document(number)) for number in range(60)]
    drawn = [one for one in found if one[-1] == ("assistant", 1.0, "image")]
    told = [one for one in found if one not in drawn]
    assert 15 < len(drawn) < 45, "by half, whoever takes only the first of the variants"
    for number, one in enumerate(found):
        if one in drawn:
            (role, weight, words), _ = one
            assert (role, weight) == ("user", 0.0) and f"a cat of shade {number}" in words
        else:
            (shown, (role, weight, _), answer) = one
            assert shown == ("user", 0.0, "image") and (role, weight) == ("user", 0.0)
            assert answer == ("assistant", 1.0, f"A cat of shade {number}.")
    phrasings = Counter(one[0][2].replace(str(found.index(one)), "#") for one in drawn)
    assert len(phrasings) > 10 and len({one[1][2] for one in told}) > 10
    convert(source, tmp_path / "again")
    (again,) = find_shards(tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()


def test_pairs_are_as_they_were(tmp_path: Path) -> None:
    said = convert(folder_of(tmp_path / "in", 3), tmp_path / "out", "--captions", "pairs")
    assert "bare pairs, which teach no turns" in said
    (path,) = find_shards(tmp_path / "out")
    assert turns(Shard(path).document(0)) == [
        (None, 1.0, "A cat of shade 0."),
        (None, 1.0, "image"),
    ]


def test_an_option_that_says_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "plain"}\n')
    said = convert(tmp_path / "t.jsonl", tmp_path / "out", "--captions", "pairs")
    assert "--captions pairs: there are no captions" in said
    words = [str(tmp_path / "t.jsonl"), str(tmp_path / "no"), "--captions", "pairs"]
    done = CliRunner().invoke(main, ["data", "convert", *words, "--format", "text"])
    assert done.exit_code == 2 and "the format text has none" in done.output


def test_each_sample_has_several_phrasings_both_ways() -> None:
    fields = {"caption": ["A red bus.", "a bus"], "turns": True}
    sample = Sample("k", {"png": png(1), "json": json.dumps(fields).encode()})
    assert detect_format(sample) == "request"
    count = variants(sample, "request")
    assert count == 2 * 2 * asking.PHRASINGS
    found = [turns(document(sample, "request", number)) for number in range(count)]
    assert len({str(one) for one in found}) == count, "no variant is there twice"
    assert sum(one[-1][2] == "image" for one in found) == count // 2
    again = [turns(document(sample, "request", number)) for number in range(count)]
    assert again == found
    other = Sample("another", sample.files)
    assert [turns(document(other, "request", number)) for number in range(count)] != found


def test_phrasings_are_those_that_were_trained_on() -> None:
    """A change of these is a change of what a stored shard says."""
    assert asking.requests("Two red circles.", "a") == [
        "can you draw two red circles?", "draw me two red circles",
        "i want a picture of two red circles", "could you draw two red circles, please?",
    ]  # fmt: skip
    assert asking.questions("a") == [
        "what is this?", "describe the image", "write a caption for this image",
        "what does the image show?",
    ]  # fmt: skip
    long = "A dog. It runs over the grass.\nBehind it lies a house {} of stone."
    assert all(long in request for request in asking.requests(long, "a"))
    assert {len(set(table)) - len(table) for table in (asking.SHORT, asking.LONG)} == {0}
    assert all(table.count("{}") == 1 for table in (*asking.SHORT, *asking.LONG))
    assert "Anna at 5 p.m." in asking.requests("Anna at 5 p.m.", "a")[0]


def test_the_share_of_either_direction_is_a_half() -> None:
    draws = sum(asking.draws_first(f"{number:09d}") for number in range(2000))
    assert 900 < draws < 1100


def test_training_on_bare_captions_says_that_they_teach_no_turns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = {f"k{n}": {"png": png(n), "txt": b"a red cat"} for n in range(12)}
    talk = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}
    write_tar(tmp_path / "bare.tar", samples)
    write_tar(tmp_path / "talk.tar", {"a": {"json": json.dumps(talk).encode()}})
    run = recipe(tmp_path / "run", tmp_path / "bare.tar", write_tokenizer(tmp_path / "image"), 1)
    rule = ImageRule(target_pixels=64 * 64, multiple=8)
    loader = LoaderConfig(sequence_length=256, batch_rows=1, window_rows=8, images=rule)

    def said(name: str, **sources: SourceConfig) -> int:
        lm.train(replace(run, output=tmp_path / name, sources=sources, loader=loader))
        return capsys.readouterr().err.count("captions teach no turns")

    bare = SourceConfig(str(tmp_path / "bare.tar"))
    assert said("once", bare=bare) == 1
    assert said("read_as_talk", bare=SourceConfig(bare.shards, format="request")) == 0
    assert said("with_talk", bare=bare, talk=SourceConfig(str(tmp_path / "talk.tar"))) == 0


def test_no_drawing_is_learned_from_the_users_side() -> None:
    sample = Sample("k", {"png": png(1), "txt": b"a cat"})
    for number in range(variants(sample, "request")):
        parts = document(sample, "request", number).parts
        (image,) = [part for part in parts if isinstance(part, Image)]
        assert (image.weight == 1.0) == (image.role == "assistant")
    assert formats.detect_format(sample) == "caption", "without the mark it is a pair"
