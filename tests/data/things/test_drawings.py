"""Wide drawings: a pure function of (seed, number), of many kinds, the same for any workers."""

import io
import json
import tarfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as PILImage

from unimodal.command import main
from unimodal.data.scenes.world import (
    COLOURS,
    SHAPES,
    Background,
    Scene,
    SceneObject,
    render,
    scene,
)
from unimodal.data.shards import find_shards
from unimodal.data.things.drawings import DrawingMix, drawing
from unimodal.data.things.icons import STYLES, is_held_out
from unimodal.data.things.marks import FILLS, MARKS, Mark, paint
from unimodal.data.things.photos import Photos, photo_paths
from unimodal.data.things.table import things_of

KINDS = [field.name for field in fields(DrawingMix)]


def alone(kind: str) -> DrawingMix:
    return DrawingMix(**{name: float(name == kind) for name in KINDS})


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A shard of three photographs: a gradient of 80 x 60, noise of 40 x 40, and one too small."""
    path = tmp_path_factory.mktemp("photos") / "shard-000000.tar"
    rng = np.random.default_rng(1)
    ramp = np.broadcast_to(np.linspace(0, 255, 80)[None, :, None], (60, 80, 3))
    with tarfile.open(path, "w") as tar:
        for key, pixels in enumerate(
            (ramp, rng.integers(0, 256, (40, 40, 3)), np.full((16, 16, 3), 7))
        ):
            file = io.BytesIO()
            PILImage.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
            member = tarfile.TarInfo(f"{key}.png")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("canvas", [64, 160])
def test_a_drawing_is_a_pure_function_of_its_number(kind, canvas, table, photos):
    things, shown = things_of(table), Photos([photos])
    drawn = [drawing(3, k, canvas, things, shown, alone(kind)) for k in range(6)]
    again = [drawing(3, k, canvas, things, shown, alone(kind)) for k in reversed(range(6))][::-1]
    for one, other in zip(drawn, again, strict=True):
        assert one.dtype == np.uint8 and one.shape == (canvas, canvas, 3)
        assert np.array_equal(one, other)
    assert len({one.tobytes() for one in drawn}) >= 4  # white pages are alike


def test_exact_drawings_are_the_scenes_world(table):
    for number in range(5):
        drawn = drawing(9, number, 64, things_of(table), None, alone("exact"))
        assert np.array_equal(drawn, render(scene(9, number, seen_only=True)))


def test_kinds_come_as_often_as_the_mix_says(table):
    """The exact scenes are recognised; without photographs none are drawn."""
    number = 400
    exact = sum(
        np.array_equal(drawing(9, k, 64, things_of(table)), render(scene(9, k, seen_only=True)))
        for k in range(number)
    )
    share = 0.25 / 0.95
    assert abs(exact / number - share) < 4 * (share * (1 - share) / number) ** 0.5


def test_held_out_icons_are_never_drawn(table, monkeypatch):
    things = things_of(table)
    shown = set()
    real = type(things).drawing

    def noted(self, name, style):
        shown.add((name, style))
        return real(self, name, style)

    monkeypatch.setattr(type(things), "drawing", noted)
    for number in range(300):
        drawing(1, number, 64, things, None, alone("icons"))
    names = {name for name, _ in shown}
    assert len(names) > 200 and not any(map(is_held_out, names))
    assert {style for _, style in shown} == set(STYLES)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plain_mark_is_the_shape_of_the_exact_world(shape):
    obj = SceneObject(shape, "red", "large", 0.43, 0.52)
    expected = render(Scene(Background("plain", "sky"), (obj,)))
    page = render(Scene(Background("plain", "sky"), ())).astype(np.float32)
    paint(page, Mark(shape, COLOURS["red"], obj.x, obj.y, obj.width))
    assert np.abs(page - expected).max() < 1


@pytest.mark.parametrize("shape", MARKS)
def test_a_mark_turned_by_a_quarter_is_the_turned_image(shape):
    def drawn(turn):
        page = np.zeros((64, 64, 3), np.float32)
        paint(page, Mark(shape, (255, 255, 255), 0.5, 0.5, 0.6, turn=turn, outline=0.02))
        return page

    assert np.abs(np.rot90(drawn(0.0), -1) - drawn(np.pi / 2)).max() < 2


@pytest.mark.parametrize("fill", FILLS)
def test_fills_stay_inside_the_outline(fill):
    page = np.full((64, 64, 3), 9, np.float32)
    mark = Mark("square", (200, 0, 0), 0.5, 0.5, 0.5, fill=fill, second=(0, 0, 200), outline=0.03)
    paint(page, mark)
    changed = (page != 9).any(axis=2)
    assert not changed[:15].any() and not changed[:, :15].any()
    assert changed[32, 32] == (fill != "hollow") and changed[18, 32]
    assert page.min() >= 0 and page.max() <= 255


def test_photographs_are_cropped_and_small_ones_left_out(photos):
    found = Photos([photos])
    assert len(found) == 2
    rng = np.random.default_rng(0)
    crops = [found.crop(rng, 32) for _ in range(40)]
    ramps = [crop for crop in crops if crop.std(axis=0).max() < 1]  # equal down the columns
    assert 8 <= len(ramps) <= 32 and all(crop.shape == (32, 32, 3) for crop in crops)
    assert all((np.diff(crop[0, :, 0].astype(int)) >= 0).all() for crop in ramps)


def test_patterns_folders_and_files_name_photographs(photos, tmp_path):
    for word in (photos, photos.parent, photos.parent / "*.tar"):
        assert photo_paths([str(word)]) == [photos]
    with pytest.raises(ValueError, match="there is no shard"):
        photo_paths([str(tmp_path)])


def run(*words: object):
    return CliRunner().invoke(main, ["data", "scenes", *map(str, words)])


def test_the_bytes_do_not_depend_on_the_workers(table, photos, tmp_path):
    common = ["--kind=drawings", f"--things={table}", f"--photos={photos}", "--samples=9"]
    for workers in (1, 2):
        result = run(tmp_path / str(workers), *common, "--shard-samples=5", f"--workers={workers}")
        assert result.exit_code == 0, result.output
    one, two = (find_shards(tmp_path / name) for name in "12")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    notes = json.loads((tmp_path / "1" / "scenes.json").read_text())
    assert notes["things"] == "test" and notes["mix.photos"] == 0.15 and len(notes["photos"]) == 12
    result = run(tmp_path / "1", *common, "--shard-samples=5", "--mix=photos=0.3")
    assert result.exit_code == 2 and "mix.photos 0.15 (now 0.3)" in result.output


@pytest.mark.parametrize(
    "words, message",
    [
        (["--kind=drawings"], "needs --things FOLDER"),
        (["--kind=drawings", "--things=nowhere"], "holds no table of things"),
        (["--kind=images", "--things=nowhere"], "images are exact scenes"),
        (["--photos=nowhere"], "conversations hold none"),
        (["--kind=drawings", "--things=nowhere", "--mix=draw=1"], "the names are exact, shapes"),
    ],
)
def test_what_does_not_fit_is_refused(words, message, tmp_path):
    result = run(tmp_path / "out", *words, "--samples=1")
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "out").exists()


def test_wrong_mixes_are_refused():
    with pytest.raises(ValueError, match="icons: a weight is a number of at least 0"):
        DrawingMix(icons=-1)
    with pytest.raises(ValueError, match="at least one kind"):
        DrawingMix(**dict.fromkeys(KINDS, 0.0))
