"""How full planned rows are, how even their costs, and how long planning takes.

Peers: every document padded to the longest; first-fit decreasing over the units of all windows at
once, which may put a document anywhere and so can never begin.
"""

from functools import partial
from statistics import median

import numpy as np

from unimodal.data.loader import LoaderConfig
from unimodal.data.sizes import ImageRule
from unimodal.data.sources import SourceConfig
from unimodal.data.windows import Window, WindowPlanner
from unimodal.train.flops import layer_weights
from unimodal.train.initial import ShapeConfig

from .inputs import Sizes, loader, tokenizers
from .measured import Line, interleaved, spread

GROUP_ROWS = 8  # as recipes for clusters have it
FILL, GOAL, USEFUL, EVEN = 0.995, 0.999, 2.7, 0.03  # the bars


def lines(
    name: str,
    sources: dict[str, SourceConfig],
    rule: ImageRule | None,
    sequence_length: int,
    sizes: Sizes,
) -> list[Line]:
    """What is found for these sources and this length of rows."""
    config = LoaderConfig(
        sequence_length=sequence_length, window_rows=sizes.window_rows, images=rule,
        group_rows=GROUP_ROWS,
    )  # fmt: skip
    planner = loader(sources, config).planner
    windows = planned(planner, sizes.windows)
    lengths_n = np.concatenate([window.lengths_n for window in windows])
    plan_s, peer_s = interleaved(
        min(sizes.repeats, 3),
        partial(planned, planner, sizes.windows),
        partial(first_fit_decreasing, lengths_n, sequence_length),
    )
    fill = float(lengths_n.sum()) / (len(windows) * sizes.window_rows * sequence_length)
    rows = first_fit_decreasing(lengths_n, sequence_length)
    peer_fill = float(lengths_n.sum()) / (len(rows) * sequence_length)
    padded = float(lengths_n.mean() / lengths_n.max())
    uneven = unevenness(windows, sequence_length)
    worst, most = float(uneven.max()), float(np.quantile(uneven, 0.99))
    micro, where = 1e6 / len(lengths_n), f"{name}, T {sequence_length:,}"
    wrong = tuple(misplaced(planner, windows))
    check = f"{len(lengths_n):,} units in {len(windows)} windows, each once a pass"
    return [
        Line(f"fill, {where}", f"{fill:.5f}", f"first-fit decreasing {peer_fill:.5f}", "",
             f">= {FILL}, goal {GOAL}", fill >= FILL, check, wrong),
        Line(f"useful tokens a slot, {where}", f"{fill:.3f}", f"padded to longest {padded:.3f}",
             f"{fill / padded:.2f}", f">= {USEFUL}", fill / padded >= USEFUL, check, wrong),
        Line(f"costs in groups of {GROUP_ROWS}, {where}",
             f"worst {worst:.2%}, 99 % under {most:.2%}",
             bar=f"<= {EVEN:.0%}", met=worst <= EVEN),
        Line(f"planning a document, {where}", spread(plan_s, " us", micro),
             f"first-fit decreasing {spread(peer_s, ' us', micro)}",
             f"{median(peer_s) / median(plan_s):.2f}"),
    ]  # fmt: skip


def planned(planner: WindowPlanner, least: int) -> list[Window]:
    """Windows from the start on until every stream has ended a pass; at least so many."""
    state, windows = planner.begin(), []
    sizes = [stream.sizes for stream in planner.streams]
    while len(windows) < least or np.any(np.array(state.taken) < sizes):
        windows.append(planner.window(state))
        state = windows[-1].after
    return windows


def misplaced(planner: WindowPlanner, windows: list[Window]) -> list[str]:
    """What is wrong with where units stand; empty where every row holds what it can, and each pass
    of a stream gives every unit once, as long as the index has it.
    """
    wrong = []
    for number, window in enumerate(windows):
        placed = sorted(item for row in window.rows for item in row)
        if placed != list(range(len(window.lengths_n))):
            wrong.append(f"window {number}: units are placed twice or not at all")
        if max(int(window.lengths_n[row].sum()) for row in window.rows) > planner.sequence_length:
            wrong.append(f"window {number}: a row is too full")
    items_n5 = np.concatenate([window.items_n5 for window in windows])
    lengths_n = np.concatenate([window.lengths_n for window in windows])
    for number, stream in enumerate(planner.streams):
        mine = items_n5[:, 0] == number
        wrong += _wrong_passes(stream.name, items_n5[mine], len(stream.lengths))
        records, drops = items_n5[mine, 3], items_n5[mine, 4]
        if (stream.lengths.records["lengths"][records, drops] != lengths_n[mine]).any():
            wrong.append(f"{stream.name}: lengths are not those of the index")
    return wrong


def _wrong_passes(name: str, items_n5: np.ndarray, size: int) -> list[str]:
    """Passes but the last that lack a unit, and units that a pass gives twice."""
    epochs, units = items_n5[:, 1], items_n5[:, 2]
    wrong = []
    for epoch in range(int(epochs.max(initial=-1)) + 1):
        counts = np.bincount(units[epochs == epoch], minlength=size)
        if counts.max() > 1:
            wrong.append(f"{name}: pass {epoch} gives unit {counts.argmax()} twice")
        if counts.min() < 1 and (epoch + 1) * size <= len(units):
            wrong.append(f"{name}: pass {epoch} lacks unit {counts.argmin()}")
    return wrong


def unevenness(windows: list[Window], sequence_length: int) -> np.ndarray:
    """By how much the dearest row of each group costs more than its cheapest, as a share: a row
    costs its positions and the pairs in it that see each other.
    """
    pair, squares = _pair_cost(), [window.lengths_n.astype(np.float64) ** 2 for window in windows]
    costs = [
        sequence_length + pair * float(squares_n[row].sum())
        for window, squares_n in zip(windows, squares, strict=True)
        for row in window.rows
    ]
    groups = np.array(costs).reshape(-1, GROUP_ROWS)
    return groups.max(axis=1) / groups.min(axis=1) - 1


def first_fit_decreasing(lengths_n: np.ndarray, sequence_length: int) -> list[list[int]]:
    """Each sequence, the longest first, into the first row that has room for it."""
    rooms_n = np.full(len(lengths_n), sequence_length)
    rows: list[list[int]] = []
    for number in np.argsort(-lengths_n, kind="stable").tolist():
        at = int(np.argmax(rooms_n[: len(rows) + 1] >= lengths_n[number]))
        if at == len(rows):
            rows.append([])
        rows[at].append(number)
        rooms_n[at] -= lengths_n[number]
    return rows


def _pair_cost() -> float:
    """FLOPs of a pair of positions of one document over those of a position, in the default model.

    A position costs 2 FLOPs a weight of the layers and the head. A pair costs 4 FLOPs a channel of
    every head and layer (its score, and its part of the sum) and half of the pairs are in the past.
    """
    num_ids = tokenizers()[0].vocabulary.size
    shape = ShapeConfig().transformer(num_ids)
    weights = shape.num_layers * layer_weights(shape) + shape.width * shape.num_ids
    return 2 * shape.num_heads * shape.head_width * shape.num_layers / (2 * weights)
