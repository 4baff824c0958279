"""Defaults < YAML < overrides, every problem at once, and save -> load is the identity."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.config import RENAMED, ConfigError, load, save, saved
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig, Stage
from unimodal.train.run import LmRun
from unimodal.train.schedule import ScheduleConfig


@dataclass(frozen=True)
class Optimizer:
    rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    kind: Literal["adamw", "sgd"] = "adamw"

    def problems(self) -> list[str]:
        return [] if self.rate > 0 else [f"rate {self.rate}: must be above 0"]


@dataclass(frozen=True)
class Recipe:
    num_steps: int
    name: str = "small"
    compile: bool = False
    optimizer: Optimizer = Optimizer(rate=0.5)  # its own default differs from Optimizer's
    teacher: Optimizer | None = None
    limit: float | Literal["none"] | None = None
    mix: dict[str, float] = field(default_factory=lambda: {"captions": 1.0, "edits": 2.0})
    shards: Path | None = None
    widths: tuple[int, ...] = ()
    stages: tuple[Optimizer, ...] = ()


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(Recipe, None, ["num_steps=1", *overrides])
    return caught.value.problems


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_file_over_defaults_and_overrides_on_top(tmp_path: Path):
    path = written(tmp_path, "num_steps: 10\nname: file\noptimizer: {kind: sgd}\nwidths: [8, 16]\n")
    recipe = load(Recipe, path, ["name=line", "optimizer.betas=[0, 0.5]", "shards=a/b"])
    assert recipe == Recipe(
        num_steps=10,
        name="line",
        optimizer=Optimizer(rate=0.5, betas=(0.0, 0.5), kind="sgd"),
        widths=(8, 16),
        shards=Path("a/b"),
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3", 3.0), ("2.5E+3", 2500.0), ("-1.e2", -100.0), (".5", 0.5)],
)
def test_numbers_as_people_write_them(text: str, value: float):
    recipe = load(Recipe, None, ["num_steps=1", f"limit={text}"])
    assert recipe.limit == value and type(recipe.limit) is float


def test_whole_numbers():
    assert load(Recipe, None, ["num_steps=4e9"]).num_steps == 4_000_000_000
    assert problems("num_steps=1.5") == ["num_steps: expected a whole number, got 1.5 (float)"]
    assert problems("num_steps=true") == ["num_steps: expected a whole number, got True (bool)"]


def test_null_is_off_and_on_again(tmp_path: Path):
    path = written(tmp_path, "num_steps: 1\nlimit: 3\nteacher:\n")
    assert load(Recipe, path, ["limit=null"]).limit is None
    assert load(Recipe, path, ["teacher.rate=2"]).teacher == Optimizer(rate=2.0)
    assert problems("name=null") == ["name: expected text, got nothing"]
    assert problems("optimizer=null") == ["optimizer: expected the keys of Optimizer, got nothing"]


def test_a_file_replaces_a_mapping_and_a_dotted_key_changes_one_entry(tmp_path: Path):
    path = written(tmp_path, "num_steps: 1\nmix: {stories: 1}\n")
    assert load(Recipe, path).mix == {"stories": 1.0}
    assert load(Recipe, path, ["mix.edits=3"]).mix == {"stories": 1.0, "edits": 3.0}
    assert load(Recipe, None, ["num_steps=1", "mix.edits=3"]).mix == {"captions": 1.0, "edits": 3.0}


def test_an_alias_is_a_copy(tmp_path: Path):
    path = written(tmp_path, "num_steps: 1\noptimizer: &o {kind: sgd}\nteacher: *o\n")
    recipe = load(Recipe, path, ["optimizer.kind=adamw"])
    assert recipe.teacher is not None
    assert (recipe.optimizer.kind, recipe.teacher.kind) == ("adamw", "sgd")


def test_every_problem_is_reported_at_once():
    assert problems(
        "nam=x",
        "compile=1",
        "optimizer.kid=sgd",
        "optimizer.betas=[1]",
        "teacher.rate=0",
        "mix.edits=many",
        "widths=[1, 2.5]",
        "stages=[{rate: -1}]",
        "lonely",
    ) == [
        "'lonely': write key=value, or key=null to switch it off",
        "nam: unknown key; did you mean 'name'?",
        "compile: expected true or false, got 1 (int)",
        "optimizer.kid: unknown key; did you mean 'kind'?",
        "optimizer.betas: expected a list of 2, got [1] (list)",
        "mix.edits: expected a number, got 'many' (str)",
        "widths.1: expected a whole number, got 2.5 (float)",
        "teacher: rate 0.0: must be above 0",
        "stages.0: rate -1.0: must be above 0",
    ]


def test_the_message_is_one_line_for_one_problem():
    with pytest.raises(ConfigError) as caught:
        load(Recipe)
    assert str(caught.value) == "configuration: num_steps: a value is needed"
    with pytest.raises(ConfigError) as caught:
        load(Recipe, None, ["nam=x"])
    assert str(caught.value).splitlines() == [
        "configuration:",
        "  nam: unknown key; did you mean 'name'?",
        "  num_steps: a value is needed",
    ]


def test_an_unknown_key_without_a_neighbour_lists_the_keys():
    assert problems("optimizer.zzz=1") == [
        "optimizer.zzz: unknown key; the keys here are rate, betas, kind"
    ]


def test_a_default_must_hold_too():
    @dataclass(frozen=True)
    class Broken:
        optimizer: Optimizer = Optimizer(rate=-1)

    with pytest.raises(ConfigError, match="optimizer: rate -1: must be above 0"):
        load(Broken)


def test_a_value_that_its_class_refuses():
    @dataclass(frozen=True)
    class Side:
        length: int = 1

        def __post_init__(self) -> None:
            if self.length < 1:
                raise ValueError(f"length {self.length}: at least 1")

    @dataclass(frozen=True)
    class Square:
        side: Side = Side()

    with pytest.raises(ConfigError, match="side: length 0: at least 1"):
        load(Square, None, ["side.length=0"])


def test_a_value_is_needed():
    with pytest.raises(ConfigError, match="num_steps: a value is needed"):
        load(Recipe)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_steps: 1\nnum_steps: 2\n", "'num_steps' is given twice"),
        ("num_steps: [1\n", "is not YAML"),
        ("- 1\n", "expected 'key: value' lines"),
        ("num_steps: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, words: str):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        load(Recipe, path)
    assert str(path) in str(caught.value)


def test_what_another_version_saved_is_understood(tmp_path: Path):
    """Renamed keys at any depth, keys that are gone, and values that are a problem today."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "output: run\ntokenizer: t\nschedule: {num_steps: 3, warmup_steps: 5, gone: 1}\n"
        "sources: {s: {shards: x, form: text, part: [0, 0.5], older: [1]}}\n"
        "loader: {row_length: 512, pictures: {area: 1024, widest: 2}, stages: "
        "[{from_step: 4, area: 64}]}\n"
        "optimizer: {average: 0.9}\nengine: {deepspeed: nowhere.json}\nnothing: 1\n"
    )
    found = saved(LmRun, path)
    assert found.schedule == ScheduleConfig(3, 5)
    assert found.sources == {"s": SourceConfig("x", format="text", split=(0.0, 0.5))}
    assert found.loader.sequence_length == 512 and found.optimizer.ema_decay == 0.9
    assert found.loader.images == ImageRule(1024, max_aspect_ratio=2.0)
    assert found.loader.stages == (Stage(4, target_pixels=64),)
    assert found.engine.deepspeed == Path("nowhere.json")
    path.write_text("output: 5\n")
    with pytest.raises(ConfigError, match="output: expected a path, got 5"):
        saved(LmRun, path)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        load(Recipe, tmp_path / "none.yaml")


def test_overrides_that_lead_nowhere():
    assert problems("name.first=x") == ["name: expected text, got {'first': 'x'} (Entries)"]
    assert problems("num_steps.a=1") == ["num_steps.a: 'num_steps' is 1 (int), without keys"]
    assert problems("name=[x") == ["name: '[x' is not YAML; quote it"]
    assert problems("name=") == ["'name=': write key=value, or key=null to switch it off"]


number = st.floats(allow_nan=False, allow_infinity=False)
word = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
optimizers = st.builds(
    Optimizer,
    rate=st.floats(1e-300, 1e300),
    betas=st.tuples(number, number),
    kind=st.sampled_from(["adamw", "sgd"]),
)
recipes = st.builds(
    Recipe,
    num_steps=st.integers(),
    name=word | st.sampled_from(["1e-4", "3e8", "null", "true", "off", "~", "1", "2024-01-01", ""]),
    compile=st.booleans(),
    optimizer=optimizers,
    teacher=st.none() | optimizers,
    limit=st.none() | number | st.just("none"),
    mix=st.dictionaries(word, number, max_size=3),
    shards=st.none() | st.sampled_from([Path("a/b"), Path("1e5"), Path("null")]),
    widths=st.lists(st.integers(), max_size=3).map(tuple),
    stages=st.lists(optimizers, max_size=2).map(tuple),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(recipe=recipes)
def test_what_is_saved_loads_back_equal(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe):
    path = tmp_path_factory.mktemp("saved") / "recipe.yaml"
    save(recipe, path)
    assert load(Recipe, path) == recipe


def test_a_failed_save_keeps_the_older_file(small_disk: Path):
    path, filler = small_disk / "recipe.yaml", small_disk / "filler"
    save(Recipe(1), path)
    with suppress(OSError):
        filler.write_bytes(b"x" * 64 * 1024)
    with pytest.raises(OSError, match="No space left.*recipe.yaml"):
        save(Recipe(2), path)
    assert load(Recipe, path) == Recipe(1) and sorted(small_disk.iterdir()) == [filler, path]


def test_a_partial_load_passes_over_other_sections_but_no_misspelt_key(tmp_path):
    @dataclass(frozen=True)
    class Part:
        seed: int = 0

    @dataclass(frozen=True)
    class Mine:
        part: Part = field(default_factory=Part)

    path = tmp_path / "recipe.yaml"
    path.write_text("output: elsewhere\npart: {seed: 3}\n")
    assert load(Mine, path, partial=True) == Mine(Part(3))
    with pytest.raises(ConfigError, match="output: unknown key"):
        load(Mine, path)
    path.write_text("part: {sed: 3}\n")
    with pytest.raises(ConfigError, match="part.sed: unknown key"):
        load(Mine, path, partial=True)


@dataclass(frozen=True)
class Inner:
    target_pixels: int = 1
    ema_decay: float | None = None
    format: str | None = None
    max_images: int = 1
    micro_batch_rows: int = 1
    split: tuple[float, float] = (0.0, 1.0)
    split_by: str | None = None
    image: str | None = None
    image_weight: float = 1.0
    max_follows: int = 1
    min_questions: int = 1
    max_questions: int = 1
    sequence_length: int = 1
    min_side: int = 1
    max_aspect_ratio: float = 1.0


@dataclass(frozen=True)
class Outer:
    images: Inner | None = None
    sources: dict[str, Inner] = field(default_factory=dict)
    stages: tuple[Inner, ...] = ()
    part: int = 0  # has that name still


@dataclass(frozen=True)
class Patches:
    patch: int = 8
    margin: int = 2


@dataclass(frozen=True)
class Shape:
    patches: Patches | None = None
    width: int = 1


def test_a_key_that_moved_into_a_section_is_refused_and_read_where_it_was_saved(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load(Shape, None, ["patch=4", "margin=1", "width=2", "patches.margin=3"])
    assert caught.value.problems == [
        "patch: it is called patches.patch now",
        "margin: it is called patches.margin now",
    ]
    (tmp_path / "old.yaml").write_text("patch: 4\nwidth: 3\nmargin: 1\n")
    assert saved(Shape, tmp_path / "old.yaml") == Shape(Patches(4, 1), 3)


def test_every_renamed_key_is_refused_with_its_new_name(tmp_path: Path):
    """In files and overrides, in sections, mappings and lists; what lies below it is read too."""
    for old, new in RENAMED.items():
        if old == "pictures":
            continue
        path = written(tmp_path, f"sources: {{a: {{{old}: null}}}}\nstages: [{{{old}: null}}]\n")
        with pytest.raises(ConfigError) as caught:
            load(Outer, path, [f"pictures.{old}=null"])
        told = [one for one in caught.value.problems if "it is called" in one]
        assert told == [
            "pictures: it is called images now",
            f"images.{old}: it is called images.{new} now",
            f"sources.a.{old}: it is called sources.a.{new} now",
            f"stages.0.{old}: it is called stages.0.{new} now",
        ]
    assert load(Outer, None, ["part=2"]).part == 2
