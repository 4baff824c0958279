"""Every recipe loads into the dataclass that its command trains from, and says what it costs."""

import json
import re
from pathlib import Path

import pytest

from unimodal.config import load, save

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
HEAD = ("command", "hardware", "cost", "expected")
CLUSTER = [path for path in RECIPES if " x H" in path.read_text().partition("\noutput")[0]]
MEMORY_GB = {"H100": 80, "H200": 141}


def recipe_class(verb: str) -> type:
    """What `unimodal train VERB` takes."""
    if verb == "tokenizer":
        from unimodal.train.tokenizer import TokenizerRun

        return TokenizerRun
    if verb == "rl":
        from unimodal.train.rl.run import RlRun

        return RlRun
    if verb == "select":
        from unimodal.train.rl.selection import SelectionRun

        return SelectionRun
    from unimodal.train.run import LmRun

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


def verb(path: Path) -> str:
    """That of `unimodal train`, or `-m unimodal.train`, which runs the recipe."""
    pattern = rf"(?:unimodal[. ]train|slurm\.sh) (\w+) configs/{re.escape(path.name)}"
    (found,) = set(re.findall(pattern, head(path)["command"])) - {"plan"}
    return found


def test_there_are_recipes():
    assert RECIPES and len(CLUSTER) >= 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_head_says_what_to_expect(path: Path):
    entries = head(path)
    assert [word for word in HEAD if not entries.get(word)] == []
    assert verb(path) in ("lm", "rl", "select", "tokenizer")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_loads_and_comes_back(path: Path, tmp_path: Path):
    recipe = load(recipe_class(verb(path)), path)
    save(recipe, tmp_path / path.name)
    assert load(recipe_class(verb(path)), tmp_path / path.name) == recipe


@pytest.mark.parametrize("path", CLUSTER, ids=lambda path: path.name)
def test_a_plan_says_what_the_head_of_a_recipe_says(path: Path, monkeypatch: pytest.MonkeyPatch):
    """It fits its hardware, and pace and hours are those of the forecast, to two digits."""
    from unimodal.train.plan.plan import plan
    from unimodal.train.run import LmRun

    monkeypatch.chdir(ROOT)
    entries, recipe = head(path), load(LmRun, path)
    gpus, gpu = re.findall(r"^(\d+) x (H\d+)", entries["hardware"])[0]
    made = plan(recipe, int(gpus), MEMORY_GB[gpu], gpu)
    assert made.fits
    (rate,) = re.findall(r"predicted: ([\d,]+) tokens a second", entries["expected"])
    (hours,) = re.findall(r"predicted: ([\d.,]+) hours", entries["cost"])
    assert int(rate.replace(",", "")) == pytest.approx(made.tokens_per_s, rel=0.05)
    expected = recipe.schedule.num_steps * made.likely_s / 3600
    assert float(hours.replace(",", "")) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.json")), ids=lambda p: p.name)
def test_a_deepspeed_file_can_be_given(path: Path):
    from unimodal.train.zero_settings import ZeroSettings

    settings = ZeroSettings.read(path, 2, 4, 1.0, bf16=True).deepspeed
    assert settings["zero_optimization"] == json.loads(path.read_text())["zero_optimization"]
    assert settings["gradient_accumulation_steps"] == 4
