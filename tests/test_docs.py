"""The pages are true: README.md and docs/ say what is there, and their code blocks run.

A page's blocks run in order, in a folder of its own in which a reader has the clone and a folder
of photos. A block of Python or YAML that begins with a comment that names a file is written there:
what follows uses it. Excepted are `make` lines (they would set everything up again), whose targets
must exist, and blocks under a comment `<!-- too long for the suite: make TARGET -->`, which that
target runs.
"""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from tiny_runs import write_conversations

from unimodal import config
from unimodal.data.scenes.world import SMALL, render, scene
from unimodal.data.sources import mixtures
from unimodal.train.rl.run import RlRun
from unimodal.train.run import LmRun
from unimodal.train.tokenizer import TokenizerRun

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
MOST_LINES = {"README.md": 200, "files.md": 320}  # an index; others: 150
FOLDERS = ("tokenizer", "unimodal", "data", "eval", "train")
CLONE = ("unimodal", "configs")  # what examples name of the repository's folder
NUM_PHOTOS = 64
# Models here are small: a second thread would only wait, and on a busy machine for long.
QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FENCE = re.compile(
    r"(?:^<!-- too long for the suite: make (?P<target>\S+) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
PLACE = re.compile(r"`([\w./-]+/[\w.-]*\.\w+)(?::([\w.]+))?`")  # `folder/file.ext:name`
GROUPS = [*FOLDERS, "configs", "tests", "docs", ".github"]


class Block(NamedTuple):
    page: Path
    language: str  # sh, python, yaml (a recipe of `train lm`), or text (not code)
    code: str
    target: str | None  # of make, when the block is too long for the suite

    @property
    def file(self) -> str | None:
        """The file that the block is written to."""
        named = NAMED.match(self.code)
        return named[1] if named else None


BLOCKS = [
    Block(page, m["language"], m["code"], m["target"])
    for page in PAGES
    for m in FENCE.finditer(page.read_text())
]
RUN = [block for block in BLOCKS if block.language in ("sh", "python", "yaml") and not block.target]


@pytest.fixture(scope="module")
def desks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A folder for each page, and on its reader's path commands that fork a warm process."""
    folder, short = tmp_path_factory.mktemp("desks"), tempfile.TemporaryDirectory()
    # A socket's path has room for a hundred characters.
    socket, server = Path(short.name) / "socket", ROOT / "tests" / "forked.py"
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
    warm = subprocess.Popen(
        [sys.executable, server, socket], env=environment, start_new_session=True
    )
    (folder / "bin").mkdir()
    for name, words in (("unimodal", 'unimodal "$@"'), ("program", 'python "$@"')):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E {server} {socket} {words}\n')
        command.chmod(0o755)
    write_photos(folder / "photos")
    while not socket.exists():
        assert warm.poll() is None, "the server of commands has ended"
        time.sleep(0.05)
    yield {page.stem: desk(folder, page.stem) for page in PAGES}
    os.killpg(warm.pid, signal.SIGKILL)
    warm.wait()
    short.cleanup()


def desk(folder: Path, name: str) -> Path:
    """Make a folder in which a reader has the clone, and photos."""
    made = folder / name
    made.mkdir()
    for one in CLONE:
        (made / one).symlink_to(ROOT / one)
    (made / "photos").symlink_to(folder / "photos")
    return made


def write_photos(folder: Path) -> None:
    """Write images with a .txt of the same name beside each."""
    folder.mkdir()
    for number in range(NUM_PHOTOS):
        shown = scene(5, number, SMALL)
        first = shown.objects[0]
        path = folder / f"photo_{number:02d}.png"
        Image.fromarray(np.asarray(render(shown, 64))).save(path)
        path.with_suffix(".txt").write_text(f"a {first.colour} {first.shape}")


def run(words: list[str], desk: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a reader's folder; it must succeed."""
    path = f"{desk.parent / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        words, cwd=desk, env={**os.environ, **QUIET, "PATH": path}, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, f"{words[-1]}\n{done.stdout}{done.stderr}"
    return done


def title(block: Block) -> str:
    return f"{block.page.stem}: {block.code.strip().splitlines()[0][:50]}"


@pytest.mark.parametrize("block", RUN, ids=title)
def test_a_block_runs(block: Block, desks: dict[str, Path]):
    desk = desks[block.page.stem]
    if block.file is not None:
        (desk / block.file).write_text(block.code)
    if block.language == "yaml":
        kind = LmRun if "\nsources:" in block.code else TokenizerRun
        kind = RlRun if "\nreward:" in block.code else kind
        recipe = config.load(kind, desk / str(block.file))
        if isinstance(recipe, LmRun):
            mixtures(recipe.sources, recipe.loader.stages, recipe.loader.images)
    elif block.language == "python" and block.file is None:
        run([str(desk.parent / "bin" / "program"), block.code], desk)
    elif block.language == "sh":
        lines = [line for line in block.code.splitlines() if not line.startswith("make ")]
        run(["sh", "-eu", "-c", "\n".join(lines)], desk)


def test_stages_of_a_recipe(desks: dict[str, Path]):
    (block,) = [block for block in BLOCKS if block.file == "sources.yaml"]
    (desks["data"] / "stages.yaml").write_text(block.code)
    recipe = config.load(LmRun, desks["data"] / "stages.yaml")
    found = mixtures(recipe.sources, recipe.loader.stages, recipe.loader.images)
    assert [mixture.weights for mixture in found] == [
        {"photos": 3.0, "books": 1.0},
        {"photos": 3.0, "books": 0.0},
    ]


def test_every_block_is_of_a_known_language():
    assert {block.language for block in BLOCKS} == {"sh", "python", "yaml", "text"}
    assert sum(page.read_text().count("```") for page in PAGES) == 2 * len(BLOCKS)


def test_what_a_block_is_written_to_is_used():
    for block in BLOCKS:
        if block.file is not None and block.language == "python":
            later = "".join(one.code for one in BLOCKS if one.page == block.page and one != block)
            assert Path(block.file).stem in later, block.file


def test_the_first_commands():
    lines = [line for block in BLOCKS for line in block.code.splitlines()]
    assert [line.split("#")[0].strip() for line in lines[:2]] == ["make chat", "make test"]


def test_make_targets_exist():
    text = "".join(page.read_text() for page in [*PAGES, *OTHERS])
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named | {block.target for block in BLOCKS if block.target} <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_short(page: Path):
    assert len(page.read_text().splitlines()) <= MOST_LINES.get(page.name, 150)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.stem)
def test_links_and_images_are_there(page: Path):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_renamed_keys_are_told():
    told = (ROOT / "CHANGELOG.md").read_text()
    lines = [line for line in told.splitlines() if line.startswith("| `")]
    for old, new in config.RENAMED.items():
        assert any(f"`{old}`" in line and f"`{new}`" in line for line in lines), old


@cache
def names(file: Path) -> set[str]:
    """What a Python file defines: `function`, `Class.method`, `CONSTANT`."""
    found: set[str] = set()

    def walk(node: ast.AST, before: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                found.add(before + child.name)
                walk(child, f"{before}{child.name}.")
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                found.update(before + one.id for one in targets if isinstance(one, ast.Name))

    walk(ast.parse(file.read_text()), "")
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_files_and_names_are_there(page: Path):
    places = [
        place for place in PLACE.findall(page.read_text()) if place[0].split("/")[0] in GROUPS
    ]
    assert [file for file, _ in places if not (ROOT / file).exists()] == []
    assert [place for place in places if place[1] and place[1] not in names(ROOT / place[0])] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.svg")), ids=lambda page: page.stem)
def test_files_of_diagrams_are_there(page: Path):
    files = re.findall(r">([\w/]+(?:\.py|/))<", page.read_text())
    assert files and [file for file in files if not (ROOT / file).exists()] == []


# --- the tree -----------------------------------------------------------------------------------


def tree() -> Iterator[str]:
    """The paths that the tree names; a line has one or more names, and a comment."""
    (text,) = [block.code for block in BLOCKS if block.code.startswith("tokenizer/")]
    folders: list[str] = []
    for line in text.splitlines():
        words, comment = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        assert comment, line
        depth = (len(line) - len(line.lstrip())) // 2
        for name in words.split():
            yield "".join([*folders[:depth], name])
        if words.endswith("/"):
            folders[depth:] = [words]


def test_the_tree_is_the_tree():
    """Every module of every folder stands in it, and nothing that is not there."""
    named = list(tree())
    assert len(named) == len(set(named))
    assert [path for path in named if not (ROOT / path).exists()] == []
    files = {
        str(file.relative_to(ROOT))
        for name in FOLDERS
        for pattern in ("[!_]*.py", "[!_]*/[!_]*.py")
        for file in (ROOT / name).glob(pattern)
        if not any(parent.is_symlink() for parent in file.parents)
    }
    assert {path for path in named if path.endswith(".py")} == files


# --- the walks ----------------------------------------------------------------------------------

WALKS = {"Prompt to pixels": "chat", "Shard to loss": "train", "Config to step": "train"}
COMMANDS = {
    "chat": ["chat", "--prompt", "draw two red circles", "--guidance", "2", "--output", "out"],
    "train": ["train", "lm", "recipe.yaml", "schedule.num_steps=1"],
}
RECIPE = """
output: runs/walk
sources: {talks: {shards: shards/talks}}
tokenizer: unimodal/default
text_ids: 300
model: {width: 32, num_layers: 1, num_heads: 2, num_kv_heads: 1, head_width: 16, mlp_width: 64}
schedule: {num_steps: 1, warmup_steps: 1}
loader: {sequence_length: 512, batch_rows: 1, window_rows: 8}
"""
# Notes each function of ours when it is first entered, by any thread.
TRACED = """
import json, sys, threading
from pathlib import Path
from unimodal.command import main

seen, entered = set(), []

def note(frame, event, argument):
    if event == "call" and frame.f_code not in seen:
        seen.add(frame.f_code)
        entered.append((frame.f_code.co_filename, frame.f_code.co_qualname))

threading.setprofile(note)
sys.setprofile(note)
try:
    main({words!r}, standalone_mode=False)
finally:
    sys.setprofile(None)
    threading.setprofile(None)
    Path("{name}.json").write_text(json.dumps(entered))
"""


@pytest.fixture(scope="module")
def entered(desks: dict[str, Path]) -> dict[str, list[str]]:
    """The functions that each command of the walks enters, in the order of their first calls."""
    desk, found = desks["architecture"], {}
    write_conversations(desk / "shards" / "talks", samples=24, shard_samples=24)
    (desk / "recipe.yaml").write_text(RECIPE)
    cache = {"UNIMODAL_CACHE": str(desk / "cache")}  # what is measured must be measured here
    for name, words in COMMANDS.items():
        code = f"import os\nos.environ.update({cache!r})\n" + TRACED.format(words=words, name=name)
        run([str(desk.parent / "bin" / "program"), code], desk)
        calls = json.loads((desk / f"{name}.json").read_text())
        found[name] = [f"{place(file)}:{function}" for file, function in calls]
    return found


def place(file: str) -> str:
    """The path of a source file in the repository; links lead to other folders."""
    path = Path(os.path.realpath(file))
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else file


def stops(heading: str) -> list[str]:
    """The places that a walk names, in order."""
    text = (ROOT / "docs" / "architecture.md").read_text().split(f"## {heading}\n")[1]
    walk = text.split("\n## ")[0].split("\n1. ")[1]
    return [f"{file}:{name}" for file, name in PLACE.findall(walk) if name]


@pytest.mark.parametrize("heading", WALKS)
def test_a_walk_goes_where_the_page_says(heading: str, entered: dict[str, list[str]]):
    calls, walk = entered[WALKS[heading]], stops(heading)
    assert len(walk) > 15
    assert [stop for stop in walk if stop not in calls] == []
    order = [calls.index(stop) for stop in walk]
    late = [walk[at] for at in range(1, len(order)) if order[at] < order[at - 1]]
    assert late == [], "these are entered before the stop that the page has before them"
