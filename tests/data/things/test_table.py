"""The table of icons: premultiplied RGBA, exact, and refused where it is damaged."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from unimodal.command import main
from unimodal.data.shards import find_shards
from unimodal.data.things.icon_shards import write_icon_shards
from unimodal.data.things.icons import STYLES
from unimodal.data.things.names import NAMES
from unimodal.data.things.stamp import lay, scaled, tinted
from unimodal.data.things.table import PIXELS, Things, rendered, write_table

SQUARE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4">'
    '<rect x="1" y="1" width="2" height="2" fill="#ff8000" fill-opacity="{}"/></svg>'
)


@pytest.mark.parametrize("opacity", [1.0, 0.5, 0.2])
def test_opacity_and_colour_of_a_render(opacity: float):
    pixels_HW4 = rendered(SQUARE.format(opacity), 32).astype(int)
    expected = opacity * np.array((255, 128, 0, 255))
    assert np.abs(pixels_HW4[8:24, 8:24] - expected).max() <= 1
    outside = np.ones((32, 32), bool)
    outside[8:24, 8:24] = False
    assert not pixels_HW4[outside].any()


def test_real_icons_are_whole(real_icons):
    icons, svgs = real_icons
    for number in range(0, len(icons), 97):
        for svg in svgs[number]:
            pixels_HW4 = rendered(svg, 48)
            assert 0.08 < (pixels_HW4[:, :, 3] > 127).mean() <= 1
            assert (pixels_HW4[:, :, :3] <= pixels_HW4[:, :, 3:]).all()


@pytest.mark.slow
def test_the_command_writes_a_table(packages: Path, tmp_path: Path):
    words = ["data", "things", str(tmp_path / "t"), "--packages", str(packages), "--side", "32"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0 and "1,252 icons in two styles" in result.output
    things = Things(tmp_path / "t")
    assert things.pixels_SNHW4.shape == (2, 1252, 32, 32, 4)
    assert things.drawing("cat", "flat").shape != things.drawing("cat", "cartoon").shape
    assert write_table(tmp_path / "again", packages, 32) == 1252
    assert Things(tmp_path / "again").digest == things.digest


def test_a_table_knows_its_icons(table: Path):
    things = Things(table)
    assert len(things.icons) == len(NAMES) + 1 == len(things.numbers)
    assert all(things.drawing("cat", style).shape == (32, 32, 4) for style in STYLES)


def test_a_folder_without_a_table_is_refused(tmp_path: Path, table: Path):
    with pytest.raises(
        ValueError, match=f"{tmp_path} holds no table of things .*unimodal data thi"
    ):
        Things(tmp_path)
    shutil.copytree(table, tmp_path / "cut")
    np.save(tmp_path / "cut" / PIXELS, np.zeros((2, 3, 8, 8, 4), np.uint8))
    with pytest.raises(ValueError, match="write the table again"):
        Things(tmp_path / "cut")


def test_an_icon_keeps_its_colours_when_it_is_scaled_and_laid():
    drawing_hw4 = np.zeros((16, 8, 4), np.uint8)
    drawing_hw4[...] = (100, 50, 25, 127)  # half opaque
    icon_hw4 = scaled(drawing_hw4, 8)
    assert icon_hw4.shape == (8, 4, 4) and (icon_hw4 == (100, 50, 25, 127)).all()
    page_HW3 = np.full((20, 20, 3), 200.0, np.float32)
    lay(page_HW3, icon_hw4, 0.5, 0.5)
    expected = np.array((100, 50, 25)) + 200 * (1 - 127 / 255)
    assert np.allclose(page_HW3[6:14, 8:12], expected, atol=0.01)
    page_HW3[6:14, 8:12] = 200
    assert (page_HW3 == 200).all()
    lay(page_HW3, icon_hw4, 0.0, 1.0)  # three quarters of it lie outside
    assert (page_HW3 != 200).any(axis=2).sum() == 4 * 2
    lay(page_HW3, icon_hw4, 3.0, 3.0)
    assert (page_HW3 != 200).any(axis=2).sum() == 4 * 2


def test_a_tint_takes_the_colour_and_keeps_light_and_shade():
    grey_hw4 = np.full((4, 4, 4), 255, np.float32)
    grey_hw4[:, :, :3] = np.array((60, 120, 180, 240))[:, None, None]
    red_hw4 = tinted(grey_hw4, (220, 40, 40))
    light = red_hw4[:, 0, :3].sum(axis=1)
    assert (np.diff(light) > 0).all() and (red_hw4[:, :, 3] == 255).all()
    assert np.abs(red_hw4[:, :, :3].mean(axis=(0, 1)) - (220, 40, 40)).max() < 60
    flat_hw4 = np.full((4, 4, 4), 255, np.float32)
    flat_hw4[:, :, :3] = 77  # of one lightness: the tint itself
    assert np.allclose(tinted(flat_hw4, (220, 40, 40))[:, :, :3], (220, 40, 40), atol=0.5)


def test_icons_become_shards_with_what_is_known_of_them(small_table: Path, tmp_path: Path):
    things = Things(small_table)
    assert write_icon_shards(things, tmp_path / "icons") == 2 * len(things.icons)
    (shard,) = find_shards(tmp_path / "icons")
    with tarfile.open(shard) as tar:
        found = {one.name: tar.extractfile(one).read() for one in tar}
    assert len(found) == 4 * len(things.icons)
    for number in (0, 7):
        icon = things.icons[number]
        for at, style in enumerate(STYLES):
            known = json.loads(found[f"{number:06d}_{style}.json"])
            assert known["icon"] == icon.name and known["category"] == icon.category
            assert known["style"] == style and "-" not in known["caption"]
            pixels = np.asarray(Image.open(io.BytesIO(found[f"{number:06d}_{style}.png"])))
            rgba = things.pixels_SNHW4[at, number].astype(int)
            assert (pixels == rgba[..., :3] + 255 - rgba[..., 3:]).all()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.tar").touch()
    with pytest.raises(ValueError, match="not of this command"):
        write_icon_shards(things, tmp_path / "other")
