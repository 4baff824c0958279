"""Packages of npm: read from a folder by their hash, and clear about what is wrong."""

import urllib.error
from pathlib import Path

import pytest

from unimodal.data.things import packages as npm
from unimodal.data.things.icons import STYLES, is_held_out, is_held_out_pair
from unimodal.data.things.names import NAMES


def test_urls_and_names_are_those_of_npm():
    assert npm.FLAT.url == (
        "https://registry.npmjs.org/@iconify-json/fluent-emoji-flat/-/fluent-emoji-flat-1.2.6.tgz"
    )
    assert npm.FLAT.file_name == "iconify-json-fluent-emoji-flat-1.2.6.tgz"
    assert npm.KEYWORDS.file_name == "emojilib-4.0.3.tgz"


def test_a_missing_package_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="emojilib-4.0.3.tgz cannot be read .*npm pack emojilib@"):
        npm.read_json(npm.KEYWORDS, tmp_path, ("package.json",))


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / npm.KEYWORDS.file_name).write_bytes(b"other")
    with pytest.raises(ValueError, match="has the SHA-256 .*, not 7f9a6b"):
        npm.read_json(npm.KEYWORDS, tmp_path, ("package.json",))


def test_without_network_the_way_out_is_said(monkeypatch):
    def refuse(url: str, timeout: float):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(npm.urllib.request, "urlopen", refuse)
    with pytest.raises(ValueError, match="no network.*give --packages FOLDER"):
        npm.read_json(npm.KEYWORDS, None, ("package.json",))


def test_icons_that_are_not_people(real_icons):
    icons, svgs = real_icons
    assert len(icons) == len(svgs) == 1252
    assert len({icon.name for icon in icons}) == 1252
    assert "People & Body" not in {icon.category for icon in icons}
    cat = next(icon for icon in icons if icon.name == "cat")
    assert cat.category == "Animals & Nature" and cat.twin == "cat" and "meow" in cat.keywords
    assert sum(not icon.keywords for icon in icons) < 20
    assert all(len(pair) == len(STYLES) and pair[0] != pair[1] for pair in svgs)
    assert not set(NAMES) - {icon.name for icon in icons}


def test_the_hold_out_is_a_share_of_all():
    held_out = [name for name in NAMES if is_held_out(name)]
    assert len(NAMES) == 401 and len(held_out) == 24 and "cat" not in held_out
    names = list(NAMES)[:60]
    pairs = [is_held_out_pair(a, b) for a in names for b in names if a < b]
    assert 0.08 < sum(pairs) / len(pairs) < 0.12
    assert all(is_held_out_pair(a, b) == is_held_out_pair(b, a) for a in names for b in names)
