"""The README is true: its code blocks run in order as a reader would run them, its tree is real.

Excepted: `make` lines (they would set everything up again), whose targets must exist, and blocks
under a comment `<!-- too long for the suite: make TARGET -->`, which that target runs.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from unimodal import config
from unimodal.data.sources import mixtures
from unimodal.train.run import LmRun

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FENCE = re.compile(
    r"(?:^<!-- too long for the suite: make (?P<target>\S+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    language: str  # sh, python, yaml (a recipe of `train lm`), or text (not code)
    code: str
    target: str | None  # of make, when the block is too long for the suite


BLOCKS = [Block(m["language"], m["code"], m["target"]) for m in FENCE.finditer(README)]
RUN = [block for block in BLOCKS if block.language in ("sh", "python") and not block.target]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one directory in which a reader tries all blocks; `unimodal` is this checkout's."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "bin").mkdir()
    command = desk / "bin" / "unimodal"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m unimodal "$@"\n')
    command.chmod(0o755)
    return desk


def test_every_block_is_of_a_known_language():
    assert {block.language for block in BLOCKS} == {"sh", "python", "yaml", "text"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_the_first_commands():
    lines = [line for block in BLOCKS for line in block.code.splitlines()]
    assert [line.split("#")[0].strip() for line in lines[:3]] == [
        "make chat",
        "make test",
        "make install",
    ]


def test_recipes_load(tmp_path: Path):
    (recipe,) = [block.code for block in BLOCKS if block.language == "yaml"]
    (tmp_path / "recipe.yaml").write_text(recipe)
    loaded = config.load(LmRun, tmp_path / "recipe.yaml")
    found = mixtures(loaded.sources, loaded.loader.stages, loaded.loader.images)
    assert [mixture.weights for mixture in found] == [
        {"photos": 3.0, "books": 1.0},
        {"photos": 3.0, "books": 0.0},
    ]


def test_make_targets_exist():
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert named | {block.target for block in BLOCKS if block.target} <= TARGETS


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.code.strip().splitlines()[0][:60])
def test_a_block_runs(block: Block, desk: Path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{desk / 'bin'}:{os.environ['PATH']}"}
    words = [sys.executable, "-c", block.code]
    if block.language == "sh":
        lines = [line for line in block.code.splitlines() if not line.startswith("make ")]
        words = ["sh", "-eu", "-c", "\n".join(lines)]
    done = subprocess.run(words, cwd=desk, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{block.code}\n{done.stdout}{done.stderr}"


def tree() -> Iterator[str]:
    """The paths that the README's tree names; each line of it carries a comment."""
    (text,) = [block.code for block in BLOCKS if block.code.startswith("tokenizer/")]
    folder = ""
    for line in text.splitlines():
        name, comment = line.split(maxsplit=1)
        assert comment, line
        folder = folder if line.startswith(" ") else name
        yield name if name == folder else folder + name


def test_the_tree_is_the_tree():
    """Every module of every folder stands in it, and nothing that is not there."""
    named = list(tree())
    assert len(named) == len(set(named))
    assert [path for path in named if not (ROOT / path).exists()] == []
    folders = ("tokenizer", "unimodal", "data", "eval", "train")
    files = {f"{name}/{file.name}" for name in folders for file in (ROOT / name).glob("[!_]*.py")}
    assert {path for path in named if path.endswith(".py")} == files
