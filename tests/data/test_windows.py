"""Plans of windows: full rows, equal costs, shares that are kept, from lengths alone."""

import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimodal.data.lengths import LONG, Lengths
from unimodal.data.measured import RECORD, UNIT
from unimodal.data.packing import longest_first
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import Mixture, SourceConfig, Stage, mixtures
from unimodal.data.streams import Stream, Units
from unimodal.data.windows import Window, WindowPlanner, planned_rows

T = 512
PAIR_COST = 2.6e-4  # FLOPs of a pair of tokens over those of a token
GROUPS = [1, 8]  # rows that cost the same


class Table(Lengths):
    """An index of given lengths, without shards."""

    def __init__(self, folder: Path, lengths: np.ndarray) -> None:
        folder.mkdir(parents=True)
        object.__setattr__(self, "folder", folder)
        units = np.zeros(len(lengths) + 1, UNIT)
        units["record"] = np.arange(len(lengths) + 1)
        records = np.zeros(len(lengths), RECORD)
        records["lengths"] = lengths[:, None]
        np.save(folder / "units.npy", units)
        np.save(folder / "records.npy", records)
        members, num_long = longest_first(lengths, T)
        np.save(folder / "members.npy", members)
        (folder / "notes.json").write_text(json.dumps({LONG: num_long}))


def planner(
    tmp_path: Path, weights: dict[str, float], window_rows: int = 64, group_rows: int = 8,
    **lengths: np.ndarray,
) -> WindowPlanner:  # fmt: skip
    streams = [
        Stream(name, SourceConfig("nowhere", weights[name]), None,
               Table(tmp_path / name, array), group_rows)
        for name, array in lengths.items()
    ]  # fmt: skip
    mixed = [Mixture(0, weights, None)]
    return WindowPlanner(streams, mixed, 5, T, window_rows, 8, 0.0, group_rows)


def windows(found: WindowPlanner, count: int) -> list:
    state, made = found.begin(), []
    for _ in range(count):
        made.append(found.window(state))
        state = made[-1].after
    return made


RNG = np.random.default_rng(1)
MIXED = np.concatenate([RNG.integers(20, 200, 3000), RNG.integers(200, T, 1000)])


@pytest.mark.parametrize("group_rows", GROUPS)
def test_windows_have_their_rows_full_and_nothing_twice(tmp_path: Path, group_rows: int) -> None:
    found = planner(tmp_path, {"a": 1.0}, 1024, group_rows, a=MIXED)
    units: list[int] = []
    for window in windows(found, 2):
        assert len(window.rows) == 1024
        placed = sorted(item for row in window.rows for item in row)
        assert placed == list(range(len(window.lengths_n)))
        used = [int(window.lengths_n[row].sum()) for row in window.rows]
        assert max(used) <= T and sum(used) / (1024 * T) > 0.995
        units += window.items_n5[:, 2].tolist()
    assert sorted(units[: len(MIXED)]) == list(range(len(MIXED)))


def test_rows_of_a_group_cost_the_same(tmp_path: Path) -> None:
    found = planner(tmp_path, {"a": 1.0}, window_rows=256, a=MIXED)
    for window in windows(found, 8):
        groups = costs(window).reshape(-1, 8)
        assert (groups.max(1) / groups.min(1)).max() < 1.03
        means = groups.mean(1)
        assert not (np.diff(means) >= 0).all(), "groups are shuffled"
        by_place = np.argsort(groups, axis=1)
        assert len({tuple(order) for order in by_place.tolist()}) > 1, "no place is always cheap"


def costs(window: Window) -> np.ndarray:
    squares_n = window.lengths_n.astype(float) ** 2
    return np.array([T + PAIR_COST * squares_n[row].sum() for row in window.rows])


def test_rows_of_groups_of_one_are_in_the_order_of_chance(tmp_path: Path) -> None:
    """Neighbours differ in cost as rows far apart do; in groups of eight they do not."""
    for group_rows, least, most in ((1, 0.9, 1.1), (8, 0.0, 0.3)):
        found = planner(tmp_path / str(group_rows), {"a": 1.0}, 256, group_rows, a=MIXED)
        cost_n8 = np.stack([costs(window) for window in windows(found, 8)]).reshape(-1, 8)
        variance = cost_n8.var(axis=1, ddof=1).mean()
        assert least < variance / cost_n8.var(ddof=1) < most


@pytest.mark.parametrize("group_rows", GROUPS)
def test_sources_have_their_share_of_tokens(tmp_path: Path, group_rows: int) -> None:
    weights = {"long": 3.0, "short": 1.0, "rare": 0.004}
    found = planner(
        tmp_path, weights, 64, group_rows, long=RNG.integers(300, T, 700),
        short=RNG.integers(10, 60, 900), rare=np.full(50, 100),
    )  # fmt: skip
    given_n = np.zeros(3)
    for window in windows(found, 150):
        given_n += np.bincount(window.items_n5[:, 0], window.lengths_n, minlength=3)
    shares = given_n / given_n.sum()
    assert shares[:2] == pytest.approx([3 / 4.004, 1 / 4.004], rel=0.01)
    # 0.004 / 4.004 of 150 windows is 49 documents of 100 tokens, drawn one by one
    assert shares[2] == pytest.approx(0.004 / 4.004, rel=0.35)


def test_documents_of_one_length_leave_what_they_must(tmp_path: Path) -> None:
    for length, in_a_row in ((T, 1), (300, 1), (256, 2), (100, 5)):
        found = planner(tmp_path / str(length), {"a": 1.0}, a=np.full(40, length))
        (window,) = windows(found, 1)
        assert [len(row) for row in window.rows] == [in_a_row] * 64


def test_a_window_that_length_groups_do_not_fill_has_a_group_halved(tmp_path: Path) -> None:
    """Many long documents and few short ones: length groups alone may leave a group of
    rows over.
    """
    rng = np.random.default_rng(1)
    lengths = np.concatenate([rng.integers(257, T + 1, 2000), rng.integers(1, 257, 60)])
    found = planner(tmp_path, {"a": 1.0}, window_rows=256, a=lengths)
    taken: Counter = Counter()
    for window in windows(found, 12):
        assert len(window.rows) == 256
        placed = sorted(item for row in window.rows for item in row)
        assert placed == list(range(len(window.lengths_n)))
        taken.update(map(tuple, window.items_n5[:, 1:3].tolist()))
    assert set(taken.values()) == {1}


@pytest.mark.parametrize("group_rows", GROUPS)
@pytest.mark.parametrize("window_rows", [64, 256])
def test_short_documents_fill_the_end_of_a_window(
    tmp_path: Path, window_rows: int, group_rows: int
) -> None:
    found = planner(
        tmp_path, {"long": 1.0, "short": 1.0}, window_rows, group_rows, long=np.full(800, T),
        short=RNG.integers(5, 50, 4000),
    )  # fmt: skip
    least = 1 - 1.5 / window_rows if group_rows == 1 else 0.995  # there long ones may end it too
    for window in windows(found, 20):
        assert window.lengths_n.sum() / (window_rows * T) > least
        assert np.abs(window.after.owed).max() < 3 * 8 * T, "what is owed does not grow"


def test_what_is_owed_is_not_taken_for_the_length_of_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    units = Stream.units

    def counted(self: Stream, taken: tuple, count: int, *more: float) -> Units:
        asked.append(count)
        return units(self, taken, count, *more)

    monkeypatch.setattr(Stream, "units", counted)
    found = planner(tmp_path, {"a": 1.0, "b": 1.0}, 8, 8, a=np.full(96, T), b=np.full(99, 2))
    found.window(replace(found.begin(), owed=(-600.0, 600.0)))
    assert max(asked) < 4 * 8 * T, "no more units than tokens"


@pytest.mark.parametrize("group_rows", GROUPS)
def test_planned_rows_go_on_from_any_state(tmp_path: Path, group_rows: int) -> None:
    lengths = {"a": MIXED, "b": RNG.integers(5, 50, 60)}
    found = planner(tmp_path, {"a": 2.0, "b": 1.0}, 64, group_rows, **lengths)
    taken = planned_rows(found, found.begin())
    whole = [next(taken) for _ in range(150)]
    taken.close()
    for stop in (0, 1, 62, 63, 64, 100):
        again = planned_rows(found, whole[stop][1])
        assert [next(again) for _ in range(20)] == whole[stop + 1 : stop + 21]
        again.close()
    assert whole[63][1] == replace(whole[63][1], window=1, row=0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, T), min_size=1, max_size=30),
    st.sampled_from([(64, 8), (64, 1), (6, 3), (3, 1), (1, 1)]),
)
def test_any_lengths_make_windows(lengths: list, sizes: tuple[int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = planner(Path(folder), {"a": 1.0}, *sizes, a=np.array(lengths))
        window, *_ = windows(found, 3)
        assert len(window.rows) == sizes[0] and all(window.rows)
        assert all(window.lengths_n[row].sum() <= T for row in window.rows)


def test_mixtures_of_stages() -> None:
    sources = {"a": SourceConfig("x"), "b": SourceConfig("y", weight=0)}
    rule = ImageRule(target_pixels=64)
    stages = (Stage(10, {"b": 2}), Stage(20, target_pixels=256), Stage(30, {"a": 0}))
    found = mixtures(sources, stages, rule)
    assert [(m.from_step, m.weights, m.rule.target_pixels) for m in found] == [
        (0, {"a": 1.0, "b": 0}, 64),
        (10, {"a": 1.0, "b": 2}, 64),
        (20, {"a": 1.0, "b": 2}, 256),
        (30, {"a": 0, "b": 2}, 256),
    ]
    for wrong, words in (
        ((Stage(10), Stage(10)), "from step 10 after one from 10"),
        ((Stage(10, {"a": 0}),), "from step 10 on no source has a weight"),
    ):
        with pytest.raises(ValueError, match=words):
            mixtures(sources, wrong, rule)
    with pytest.raises(ValueError, match="a stage sets target_pixels, but `images` is not set"):
        mixtures(sources, (Stage(10, target_pixels=64),), None)
