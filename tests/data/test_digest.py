"""`unimodal data digest`: one number for the rows of a run, however they are produced."""

import hashlib
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from unimodal.codec import ImageCodec
from unimodal.command import main
from unimodal.data.digest import ARRAYS, HEADS, Feed, batch_rows, digest, feed, rows_bytes
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.shards import ShardWriter
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig, Stage
from unimodal.document import Document, Image, Text
from unimodal.sequence import Batch

SETTINGS = LoaderConfig(sequence_length=128, window_rows=8, seed=3, caption_dropout=0.5)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "digest", *map(str, arguments)])


def document(index: int, words: str = "draw") -> Document:
    """A drawing; its image is of one colour, so that it is the same however it is cropped."""
    pixels = np.full((16, 24, 3), 3 * index % 256, np.uint8)
    return Document((Text(f"{words} {index}", "user", 0), Image(pixels, role="assistant")))


def write(folder: Path, words: str = "draw") -> Path:
    with ShardWriter(folder, max_samples=30) as writer:
        for index in range(70):
            writer.write(f"{index}", document(index, words if index % 7 == 5 else "draw"))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def made(shards, tiny_model) -> Feed:
    sources = {"one": SourceConfig(str(shards))}
    return Feed(sources, tiny_model.sequencer, ImageCodec(tiny_model.image_tokenizer), SETTINGS)


@pytest.fixture(scope="module")
def whole(made) -> list[bytes]:
    """Rows 0 to 19, of three windows, as one rank makes them."""
    return produced(made, 1, 0, 20)


def produced(made: Feed, world_size: int, first: int, count: int) -> list[bytes]:
    with closing(rows_bytes(made, world_size, first)) as rows:
        return list(islice(rows, count))


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_ranks_change_nothing(made, whole, world_size):
    assert produced(made, world_size, 0, 20) == whole


def test_ranks_change_nothing_in_groups_of_rows(made, whole):
    """Groups decide the order, and ranks still do not."""
    grouped = replace(made, loader=replace(SETTINGS, group_rows=4))
    rows = produced(grouped, 1, 0, 20)
    assert rows != whole and all(produced(grouped, world, 0, 20) == rows for world in (3, 4, 8))
    assert produced(grouped, 2, 9, 5) == rows[9:14]


@pytest.mark.parametrize(("first", "count", "world_size"), [(5, 3, 1), (7, 6, 2), (17, 3, 4)])
def test_rows_can_be_begun_anywhere(made, whole, first, count, world_size):
    wanted = hashlib.sha256(b"".join(whole[first : first + count])).hexdigest()
    assert digest(made, world_size, first, count) == wanted


def test_rows_are_the_loaders(made, whole):
    """The first row of a plain Loader, byte for byte, and what was done to its images."""
    loader = Loader(made.sources, made.sequencer, made.codec, replace(SETTINGS, batch_rows=1))
    batch, _ = next(iter(loader))
    arrays = b""
    for name, kind in ARRAYS.items():
        array = getattr(batch, name)[0].numpy()
        assert np.array_equal(array, array.astype(kind)), "nothing is lost in the bytes"
        arrays += array.astype(kind).tobytes()
    assert whole[0].startswith(arrays)
    reported = {"source"}  # and never learned from
    assert set(Batch.tensors()) == ARRAYS.keys() | HEADS.keys() | reported
    units = int(batch.doc.max()) + 1
    assert len(whole[0]) == len(arrays) + 4 + 17 * units
    assert whole[0][len(arrays) :][:4] == units.to_bytes(4, "little")


def test_another_text_seed_dropout_or_order_is_another_digest(made, tmp_path, shards):
    settings = {
        "seed": replace(SETTINGS, seed=4),
        "length": replace(SETTINGS, sequence_length=130),
        "dropout": replace(SETTINGS, caption_dropout=0.0),
        "window": replace(SETTINGS, window_rows=16),
    }
    feeds = {name: replace(made, loader=changed) for name, changed in settings.items()}
    text = write(tmp_path / "text", "drew")
    feeds["text"] = replace(made, sources={"one": SourceConfig(str(text))})
    feeds["order"] = replace(made, sources={"two": SourceConfig(str(shards))})
    feeds["weights"] = replace(made, sources={"one": SourceConfig(str(shards), image_weight=0.5)})
    found = {name: digest(changed, 1, 0, 20) for name, changed in feeds.items()}
    found["as it was"] = digest(made, 1, 0, 20)
    assert len(set(found.values())) == len(found)


def test_crops_and_mirrors_are_in_it_and_nothing_else_is_changed_by_them(made):
    plain = ImageRule(target_pixels=16 * 24, multiple=8, max_aspect_ratio=1.5)
    varied = replace(plain, random_crop=True, flip=0.5)
    rows = [
        produced(replace(made, loader=replace(SETTINGS, images=rule)), 2, 0, 8)
        for rule in (plain, varied)
    ]
    size = sum(np.dtype(kind).itemsize for kind in ARRAYS.values()) * SETTINGS.sequence_length
    for before, after in zip(*rows, strict=True):
        assert before != after and before[: size + 4] == after[: size + 4]
    flips = {row[at] for row in rows[1] for at in range(size + 4 + 16, len(row), 17)}
    assert flips == {0, 1}


def test_a_batch_is_the_smallest_that_the_ranks_divide():
    found = [batch_rows(SETTINGS, ranks) for ranks in (1, 2, 3, 4, 5, 8, 12, 16)]
    assert found == [1, 2, 3, 4, 5, 8, 12, 16]
    grouped = replace(SETTINGS, group_rows=8)
    found = [batch_rows(grouped, ranks) for ranks in (1, 2, 3, 4, 5, 8, 12, 16)]
    assert found == [8, 8, 24, 8, 40, 8, 24, 16]


def test_stages_count_in_the_recipes_batches(made):
    staged = replace(SETTINGS, batch_rows=4, stages=(Stage(2, target_pixels=64),))
    assert batch_rows(staged, 2) == 4
    with pytest.raises(ValueError, match="8 ranks do not divide the 4 rows of a batch"):
        batch_rows(staged, 8)
    rule = ImageRule(target_pixels=16 * 16, multiple=8)
    changed = replace(made, loader=replace(staged, images=rule))
    first = produced(changed, 1, 0, 20)
    assert produced(changed, 4, 0, 20) == first
    assert produced(changed, 2, 11, 4) == first[11:15]


def test_the_verb_prints_the_digest_alone_on_its_last_line(shards):
    results = [run(shards, "--world-size", ranks, "--from-row=1", "--rows=2") for ranks in (1, 2)]
    lines = [result.stdout.splitlines() for result in results]
    assert lines[0] == lines[1] and len(lines[0]) == 1
    assert lines[0][0] == digest(feed(str(shards), None), 1, 1, 2)
    assert "rows 1 to 2 by 2 ranks in batches of 2" in results[1].stderr


@pytest.fixture
def recipe(shards, tmp_path) -> Path:
    """Of `train lm`, with sections that the digest does not know."""
    tree = {
        "output": "runs/one",
        "sources": {"one": {"shards": str(shards)}},
        "schedule": {"num_steps": 3},
        "loader": {"sequence_length": 256, "seed": 5},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_a_recipe_gives_sources_and_loader(recipe, shards, tmp_path, tiny_model):
    found = feed(None, recipe)
    assert found.loader == LoaderConfig(sequence_length=256, seed=5)
    assert found.sources == {"one": SourceConfig(str(shards))}
    plain = run("--config", recipe, "--rows=2").stdout
    assert plain == run(shards, "--config", recipe, "--rows=2").stdout
    assert plain != run(shards, "--rows=2").stdout
    elsewhere = write(tmp_path / "elsewhere", "drew")
    assert feed(str(elsewhere), recipe).sources["one"].shards == str(elsewhere)
    tiny_model.image_tokenizer.save(tmp_path)
    tree = yaml.safe_load(recipe.read_text()) | {"tokenizer": str(tmp_path)}
    recipe.write_text(yaml.safe_dump(tree))
    found = feed(None, recipe)
    assert found.codec.hash == found.sequencer.codec_hash == tiny_model.image_tokenizer.hash
    assert found.sequencer.vocabulary.num_codes == tiny_model.image_tokenizer.num_codes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows=1"], "name SHARDS, or a recipe with --config"),
        (["/nowhere", "--rows=1"], "/nowhere holds no .tar shard"),
        (["here"], "--rows"),
        (["here", "--rows=0"], "--rows"),
        (["here", "--rows=1", "--world-size=0"], "--world-size"),
        (["here", "--rows=1", "--from-row=-1"], "--from-row"),
    ],
)
def test_what_cannot_be_is_refused(shards, words, message):
    result = run(*(shards if word == "here" else word for word in words))
    assert result.exit_code == 2 and message in result.output


def test_shards_for_one_of_several_sources_are_refused(recipe, shards):
    tree = yaml.safe_load(recipe.read_text())
    tree["sources"]["two"] = {"shards": str(shards)}
    recipe.write_text(yaml.safe_dump(tree))
    result = run(shards, "--config", recipe, "--rows=1")
    assert result.exit_code == 2 and "names the sources one, two" in result.output
    tree["loader"]["rows"] = 3
    recipe.write_text(yaml.safe_dump(tree))
    assert "loader.rows: unknown key" in run("--config", recipe, "--rows=1").output
