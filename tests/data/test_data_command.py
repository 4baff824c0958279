"""`unimodal data scenes`: the same bytes for any workers, resumable, clear about what is wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from unimodal.command import main
from unimodal.data.command import SceneShards, mix_of, write_shard
from unimodal.data.scenes.conversations import conversation
from unimodal.data.scenes.mixes import MIXES
from unimodal.data.scenes.reading import read_scene
from unimodal.data.scenes.world import render, scene
from unimodal.data.shards import Shard, find_shards
from unimodal.document import Document, Image, Text

SAMPLES = 12


def run(*arguments):
    return CliRunner().invoke(main, ["data", "scenes", *map(str, arguments)])


def options(samples=SAMPLES, **more):
    named = {"samples": samples, "shard-samples": 5, "seed": 3, "workers": 1, **more}
    return [f"--{name}={value}" for name, value in named.items()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of three shards, made by two workers."""
    directory = tmp_path_factory.mktemp("made")
    preview = directory / "look.png"
    result = run(directory, *options(workers=2, preview=preview))
    assert result.exit_code == 0, result.output
    return directory


def read(shard, index):
    return shard.document(index)


def test_shards_hold_the_conversations(made):
    shards = [Shard(path) for path in find_shards(made)]
    assert [len(shard) for shard in shards] == [5, 5, 2]
    for index in range(SAMPLES):
        shard = shards[index // 5]
        key, document = shard.key(index % 5), read(shard, index % 5)
        expected = conversation(3, index)
        assert key == f"{index:09d}"
        for part, wanted in zip(document.parts, expected.parts, strict=True):
            assert (part.role, part.weight) == (wanted.role, wanted.weight)
            if isinstance(wanted, Text):
                assert part.text == wanted.text
            else:
                assert np.array_equal(part.pixels, wanted.pixels)


def test_the_bytes_do_not_depend_on_the_workers(made, tmp_path):
    settings = SceneShards("conversations", SAMPLES, 3, 64, 5, mix_of("conversations", ()))
    for number, path in enumerate(find_shards(made)):
        write_shard(tmp_path, settings, number)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_preview_shows_the_first_samples(made):
    image = PILImage.open(made / "look.png")
    assert image.mode == "RGB" and image.width > 6 * 192 and image.height > 192
    assert len(image.getcolors(2**24)) > 50


def test_finished_shards_are_kept_and_missing_ones_made(made):
    first, second, _ = find_shards(made)
    before, bytes_before = first.stat(), second.read_bytes()
    second.unlink()
    second.with_name(second.name + ".part").write_bytes(b"left over")
    result = run(made, *options())
    assert result.exit_code == 0 and "2 kept" in result.output
    assert first.stat().st_mtime_ns == before.st_mtime_ns
    assert second.read_bytes() == bytes_before
    assert not list(made.glob("*.part"))


def test_other_settings_in_the_same_folder_are_an_error(made):
    names = sorted(path.name for path in made.iterdir())
    for changed in (options(seed=4), options(13), options(mix="draw=1"), options(canvas=72)):
        result = run(made, *changed)
        assert result.exit_code == 2 and "holds shards of other settings" in result.output
    assert (
        "other settings: mix.draw 0.42 (now 1.0); give" in run(made, *options(mix="draw=1")).output
    )
    assert sorted(path.name for path in made.iterdir()) == names


def test_shards_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "shard-000000.tar").write_bytes(b"precious")
    result = run(tmp_path, *options())
    assert result.exit_code == 2 and "not of this command" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar"]


def test_images_of_the_larger_world(tmp_path):
    settings = SceneShards("images", 30, 3, 128, 30, mix_of("images", ()))
    write_shard(tmp_path, settings, 0)
    documents = [read(Shard(find_shards(tmp_path)[0]), index) for index in range(30)]
    for index, document in enumerate(documents):
        (part,) = document.parts
        assert isinstance(part, Image) and part.role is None and part.weight == 1
        assert part.pixels.shape == (128, 128, 3)
        drawn = settings.document(index)
        assert np.array_equal(part.pixels, drawn.parts[0].pixels)
    small = SceneShards("images", 1, 3, 64, 1, {}).document(0)
    assert np.array_equal(small.parts[0].pixels, render(scene(3, 0, seen_only=True)))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--samples=0"], "samples"),
        (["--seed=-1"], "seed"),
        (["--canvas=63"], "canvas"),
        (["--canvas=513"], "canvas"),
        (["--workers=0"], "workers"),
        (["--kind=movies"], "movies"),
        (["--mix=drow=1"], "--mix drow=1: the names are draw, "),
        (["--mix=most_follows=3"], "most_follows is called max_follows now"),
        (["--mix=draw=much"], "'much' is no number"),
        (["--mix=draw=-1"], "draw: every field of a Mix is a number of at least 0"),
        (["--mix=draw=nan"], "draw: every field of a Mix is a number of at least 0"),
        (["--mix=free=1.5"], "free: a share is at most 1"),
        (["--mix=draw=1", "--mix=people"], "--mix people: the names are draw, "),
        (["--mix=persons"], "or, first, plain, people"),
        (["--mix=draw=1e308", "--mix=ask=1e308"], "sum to inf: a number above 0 is needed"),
        (["--mix=min_questions=9"], "min_questions 9 exceeds max_questions 6"),
        (["--kind=images", "--mix=draw=1"], "images have no mix"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, arguments, words):
    result = run(tmp_path / "new", *arguments)
    assert result.exit_code == 2 and words in result.output
    assert not (tmp_path / "new").exists()


def test_a_named_mix_is_the_first_and_may_be_changed(tmp_path):
    result = run(tmp_path / "new", *options(), "--mix=people", "--mix=chain=0.5")
    assert result.exit_code == 0, result.output
    noted = json.loads((tmp_path / "new" / "scenes.json").read_text())
    people = asdict(MIXES["people"])
    assert noted["mix.chain"] == 0.5 != people["chain"]
    assert all(noted[f"mix.{name}"] == people[name] for name in people if name != "chain")


def test_a_folder_of_before_a_field_came_goes_on(tmp_path):
    folder = tmp_path / "old"
    assert run(folder, *options()).exit_code == 0
    noted = json.loads((folder / "scenes.json").read_text())
    old = {name: value for name, value in noted.items() if name != "mix.chain"}
    (folder / "scenes.json").write_text(json.dumps(old))
    assert "3 kept" in run(folder, *options()).output
    assert "mix.chain 0 (now 0.2)" in run(folder, *options(mix="chain=0.2")).output


@contextmanager
def largest_file(limit_bytes: int) -> Iterator[None]:
    """Writing more into one file is an OSError of the operating system, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_finished_shards(made):
    first, second, third = find_shards(made)
    whole = {path: path.read_bytes() for path in (first, second, third)}
    third.unlink()
    with largest_file(4096):
        result = run(made, *options())
    assert result.exit_code == 2
    assert "File too large" in result.output and "shard-000002.tar" in result.output
    assert "finished shards are kept" in result.output
    assert not third.exists() and not list(made.glob("*.part"))
    assert run(made, *options()).exit_code == 0
    assert {path: path.read_bytes() for path in find_shards(made)} == whole


def test_the_settings_are_noted(made):
    found = json.loads((made / "scenes.json").read_text())
    assert found["seed"] == 3 and found["mix.draw"] == 0.42
    assert isinstance(conversation(3, 0), Document)


def test_ctrl_c_ends_all_processes_and_keeps_finished_shards(tmp_path):
    words = ["data", "scenes", str(tmp_path / "new"), "--samples=20000", "--shard-samples=200"]
    process = subprocess.Popen([sys.executable, "-m", "unimodal", *words], start_new_session=True)
    try:
        for _ in range(600):
            if list((tmp_path / "new").glob("*.tar")):
                break
            time.sleep(0.1)
        for _ in range(3):  # an impatient person
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
            time.sleep(0.05)
        assert process.wait(60) == 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    finished = find_shards(tmp_path / "new")
    assert 0 < len(finished) < 100 and not list((tmp_path / "new").glob("*.part"))
    assert all(len(Shard(path)) == 200 for path in finished)


@pytest.mark.parametrize("kind", ["images", "conversations"])
def test_scenes_of_few_objects(kind, tmp_path):
    result = run(tmp_path, *options(30, kind=kind, **{"max-objects": 1}))
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "scenes.json").read_text())["max_objects"] == 1
    documents = [Shard(p).document(k) for p in find_shards(tmp_path) for k in range(len(Shard(p)))]
    images = [part for one in documents for part in one.parts if isinstance(part, Image)]
    assert len(images) >= 25
    assert {len(read_scene(image.pixels).objects) for image in images} == {1}
    assert "max_objects 1 (now None)" in run(tmp_path, *options(30, kind=kind)).output


def test_a_limit_of_objects_that_does_not_hold_is_an_error(made, tmp_path):
    for limit, more, words in (
        (5, {}, "max_objects 5: 1 to 4 on a canvas of 64 pixels"),
        (2, {"kind": "drawings", "things": tmp_path}, "limits exact scenes alone"),
        (2, {"things": tmp_path}, "limits exact scenes alone"),
    ):
        result = run(tmp_path / "out", *options(**{"max-objects": limit}, **more))
        assert result.exit_code != 0 and words in result.output
    assert "max_objects" not in json.loads((made / "scenes.json").read_text())
