"""Every recipe loads into the dataclass that its command trains from, and says what it costs."""

import re
from pathlib import Path

import pytest

from unimodal.config import load, save

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
HEAD = ("command", "hardware", "cost", "expected")


def recipe_class(verb: str) -> type:
    """What `unimodal train VERB` takes."""
    if verb == "tokenizer":
        from unimodal.train.tokenizer import TokenizerRun

        return TokenizerRun
    from unimodal.train.lm import LmRun

    assert verb == "lm", f"no verb of `unimodal train`: {verb}"
    return LmRun


def head(path: Path) -> dict[str, str]:
    """The head comment's `# word: text` lines; lines without a word go on with the one before."""
    entries: dict[str, str] = {}
    word = ""
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        match = re.match(rf"# ({'|'.join(HEAD)}): (.*)", line)
        word, text = match.groups() if match else (word, line.removeprefix("#"))
        entries[word] = f"{entries.get(word, '')} {text.strip()}".strip()
    return entries


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_head_says_what_to_expect(path: Path):
    entries = head(path)
    assert [word for word in HEAD if not entries.get(word)] == []
    assert re.search(rf"unimodal train \w+ configs/{path.name}", entries["command"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_loads_and_comes_back(path: Path, tmp_path: Path):
    (verb,) = re.findall(rf"unimodal train (\w+) configs/{path.name}", head(path)["command"])
    recipe = load(recipe_class(verb), path)
    save(recipe, tmp_path / path.name)
    assert load(recipe_class(verb), tmp_path / path.name) == recipe
