"""The house itself: who imports whom, what the wheel holds, and that the command starts at once."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import unimodal

ROOT = Path(__file__).resolve().parents[1]
CHAIN = ("tokenizer", "unimodal", "data", "eval", "train")  # each may import what is left of it
FOLDERS = (*CHAIN, "configs")


def _own(home: Path) -> Iterator[Path]:
    """The folder's Python files, those of its sub-folders included; links lead to other folders."""
    for path in home.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from _own(path)
        elif path.suffix == ".py":
            yield path


SOURCES = [file for folder in CHAIN for file in sorted(_own(ROOT / folder))]
TOP_LEVEL = {folder for folder in FOLDERS if folder != "unimodal"}
FORBIDDEN = {"torchvision", "pickle", "dill", "cloudpickle", "joblib"}
HEAVY = {"torch", "transformers", "numpy", "PIL", "matplotlib"}


def run(*words: str, cwd: Path = ROOT, path: str | None = None) -> str:
    """Standard output of a command that must succeed."""
    env = os.environ if path is None else {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


# --- the chain of imports -----------------------------------------------------------------------


def imports(source: str, package: str) -> Iterator[str]:
    """Absolute names of everything a module of `package` imports, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            num_kept = len(package.split(".")) - node.level + 1
            above = package.split(".")[:num_kept] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


def folder(name: str) -> str | None:
    """The folder of the house in which a module lies; None for everybody else's modules."""
    top, _, rest = name.partition(".")
    below = rest.partition(".")[0]
    return (below if below in FOLDERS else "unimodal") if top == "unimodal" else None


def wrong_imports(source: str, place: str) -> list[str]:
    """What a file in `place`, a folder or a sub-folder such as data/scenes, must not import."""
    home = place.partition("/")[0]
    package = ".".join(["unimodal", *(name for name in place.split("/") if name != "unimodal")])
    allowed = (None, *CHAIN[: CHAIN.index(home) + 1])
    banned = FORBIDDEN | TOP_LEVEL
    return [
        name
        for name in imports(source, package)
        if folder(name) not in allowed or name.split(".")[0] in banned
    ]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_folder_imports_only_what_stands_to_its_left(file: Path):
    assert wrong_imports(file.read_text(), str(file.parent.relative_to(ROOT))) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("unimodal", "from .train import loop"),
        ("unimodal", "from . import data"),
        ("data", "def late():\n    from ..train.loop import run"),
        ("data", "from .. import eval"),
        ("eval", "import unimodal.train.loop as loop"),
        ("eval", "importlib.import_module('unimodal.train.loop')"),
        ("tokenizer", "from unimodal import load"),
        ("data/scenes", "from ...train.loop import run"),
        ("unimodal/hub", "from ..data import loader"),
        ("train/plan", "import data"),
        ("train", "import data"),
        ("train", "import pickle"),
        ("train", "from torchvision.transforms import v2"),
    ],
)
def test_a_wrong_import_is_seen(place: str, line: str):
    assert wrong_imports(line, place) != []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("train", "from . import loop, schedule"),
        ("data", "from ..document import Text"),
        ("data", "from unimodal.tokenizer.grid import Grid"),
        ("unimodal", "from .tokenizer.grid import Grid"),
        ("unimodal/hub", "from ..tokenizer.grid import Grid"),
        ("train/plan", "from ..loop import run"),
    ],
)
def test_a_right_import_passes(place: str, line: str):
    assert wrong_imports(line, place) == []


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_foreign_is_unpickled(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert words.get("weights_only") == "True", f"{file}:{node.lineno}"


def test_the_links_of_a_bare_clone():
    for name in TOP_LEVEL:
        link = ROOT / "unimodal" / name
        assert link.is_symlink() and os.readlink(link) == f"../{name}"


# --- the command --------------------------------------------------------------------------------


def test_every_public_name_is_there():
    for name in unimodal.__all__:
        assert getattr(unimodal, name).__name__ == name
    with pytest.raises(AttributeError, match="lod"):
        unimodal.lod  # noqa: B018


@pytest.mark.parametrize(
    "verb",
    ["", "chat", "serve", "encode", "grow", "export", "data", "data inspect", "eval", "train"],
)
def test_help_imports_nothing_heavy(verb: str):
    code = f"""if True:
        import sys
        import unimodal.command
        unimodal.command.main({[*verb.split(), "--help"]!r}, standalone_mode=False)
        assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)
    """
    assert run(sys.executable, "-c", code).startswith("Usage:")


# --- the wheel ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HEAD, exported clean: the checkout's build/ may keep stale files."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the git repository: the wheel is built from an export of HEAD")
    folder = tmp_path_factory.mktemp("export")
    run("git", "archive", "--output", str(folder / "head.tar"), "HEAD")
    (folder / "head").mkdir()
    run("tar", "-xf", str(folder / "head.tar"), "-C", str(folder / "head"))
    return folder / "head"


@pytest.fixture(scope="module")
def wheel(export: Path) -> Path:
    """Built by way of the sdist, so that both are complete."""
    out = str(export.parent)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, str(export))
    (built,) = export.parent.glob("*.whl")
    return built


def test_the_wheel_holds_one_name_and_every_file(export: Path, wheel: Path):
    paths = [file for name in FOLDERS for file in (export / name).rglob("*") if file.is_file()]
    files = {str(path.relative_to(export)).removeprefix("unimodal/") for path in paths}
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"unimodal"}
    assert {name.removeprefix("unimodal/") for name in names} == files


def test_the_wheel_works_where_no_clone_is(wheel: Path, tmp_path: Path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)

    def python(*words: str) -> str:
        return run(sys.executable, *words, cwd=tmp_path, path=str(site))

    assert python("-c", "import unimodal; print(unimodal.__file__)").startswith(str(site))
    verbs = ("chat", "decode", "encode", "export", "grow", "data", "eval", "train")
    text = python("-m", "unimodal", "--help")
    assert [verb for verb in verbs if f"\n  {verb} " not in text] == []
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert python("-m", "unimodal", "--version") == f"unimodal {number}\n"


@pytest.mark.slow
def test_the_wheel_finds_what_it_ships_by_name(wheel: Path, tmp_path: Path):
    """The model `default`, recipes and DeepSpeed's files, where no clone is."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)

    def unimodal(*words: str) -> str:
        return run(sys.executable, "-m", "unimodal", *words, cwd=tmp_path, path=str(site))

    plan = unimodal("train", "plan", "lm_7b", "engine.deepspeed=zero3", "--gpus", "64",
                    "--memory-gb", "80")  # fmt: skip
    assert plan.endswith("fits\n")
    assert unimodal("export", "default", "--format", "hf", "--output", "hf") == "hf\n"
    words = "checkpoints.save(__import__('pathlib').Path('old'))"
    run(sys.executable, "-c", f"import checkpoints; {words}", cwd=tmp_path,
        path=f"{site}:{ROOT / 'tests'}")  # fmt: skip
    grown = ("grow", "old", "--tokenizer", "default", "--output", "new", "--grid", "2x3")
    assert unimodal(*grown) == "new\n"


def test_the_entry_points(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    lines = archive.read(name).decode().split("\n")
    assert "unimodal = unimodal.command:main" in lines
    assert "[unimodal.commands]" in lines
    for verb, target in (("data", "data"), ("eval", "eval_"), ("train", "train")):
        assert f"{verb} = unimodal.{verb}.command:{target}" in lines


@pytest.mark.parametrize(
    "script", sorted((ROOT / "tests/benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_a_benchmark_launched_by_its_path_finds_the_package(script: Path, tmp_path: Path) -> None:
    """`tests` on the path alone would put tests/unimodal in the package's place."""
    text = script.read_text()
    if '__name__ == "__main__"' not in text or not re.search("^from (benchmarks|api_)", text, re.M):
        pytest.skip("not launched, or needs nothing of tests/")
    (line,) = (line for line in text.splitlines() if line.startswith("sys.path"))
    code = f"import sys; from pathlib import Path; __file__ = {str(script)!r}; {line}\n"
    code += "import benchmarks; import importlib.util as u; print(u.find_spec('unimodal').origin)"
    env = {**os.environ, "PYTHONPATH": ""}
    found = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=env, text=True)
    assert found.strip() == str(ROOT / "unimodal/__init__.py")
