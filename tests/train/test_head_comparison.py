"""The comparison of image heads: equal FLOPs by hand, its plan, tables and plots, a tiny run."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import head_tables as tables
from benchmarks.head_comparison import main
from benchmarks.head_costs import HeadCost, exam_s, plan, plan_cells
from benchmarks.head_exams import Scores
from benchmarks.head_tables import Result
from benchmarks.laboratory import HEADS, Budget, Drawing, Laboratory, Trial
from click.testing import CliRunner
from PIL import Image

from unimodal import config
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.grid import Grid

COST = HeadCost(
    parameters=1000, layer_parameters=600, step_flops=2e9, step_positions=4096, step_tokens=4000,
    step_images=50.0, step_targets=3000, passes={}, step_s=0.5, tokenizer_step_s=0.2,
    draw_s={"default": 0.1, "16": 0.04}, answer_s=0.01, beside_s=0.05,
)  # fmt: skip
LAB = Laboratory(Path("out"), Budget(tokenizer_steps=300, samples=10, sweep_samples=2))


def estimate(value: float) -> dict[str, float | int]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 10}


def scores(drawing: float, questions: float = 0.6, blind: float = 0.3) -> Scores:
    return Scores(*map(estimate, (drawing, drawing + 0.1, questions, blind, drawing / 2)))


def result(name: str, *drawing: float) -> Result:
    """A head whose seeds have these scores of drawing."""
    head = HEADS[name]
    passes = {one.name: head.passes(one, 64, 4) for one in head.drawings}
    cost = replace(COST, passes=passes)
    seeds = [scores(one) for one in drawing]
    found = Result(head, cost, 30, 1.5, {1e-3: None, 3e-3: seeds[0]}, 3e-3, 6.1e10, 2.0, seeds)
    found.drawings = {one: (seeds[0], 0.1 * (k + 1)) for k, one in enumerate(head.drawings)}
    found.curve = [(3e10, scores(drawing[0] / 2)), (6.1e10, seeds[0])]
    return found


@pytest.mark.parametrize("name", HEADS)
def test_all_heads_have_one_recipe_but_for_what_is_compared(name: str) -> None:
    head = HEADS[name]
    run, other = (LAB.recipe(Trial(one, 2e-3, 1), 40) for one in (head, HEADS["next_code"]))
    named = {key for key, _, _ in config.changes(other, run)}
    rows = {"model.factorised"} if name in ("flow", "pixel_flow", "scale") else set()
    kinds = {"model.head", "tokenizer", "sources.scenes.shards", "sampling.image_temperature"}
    kinds |= {"loader.unread_share"} if name != "next_code" else set()
    assert named <= {"output"} | kinds | rows
    assert run.model is not None and run.model.head == head.head
    assert (run.optimizer.lr, run.optimizer.muon_lr, run.seed, run.loader.seed) == (
        2e-3,
        1e-3,
        1,
        1,
    )
    assert run.schedule.num_steps == 40 and run.loop.keep_every_steps == 10
    for drawing in head.drawings:
        drawing.of(run.sampling).check(run.model.head_kind.follows, head.head)
    assert head.main in head.drawings


@pytest.mark.parametrize("kind", sorted({head.tokenizer for head in HEADS.values()}))
def test_tokenizers_give_all_heads_as_many_places(kind: str) -> None:
    run = LAB.tokenizer_recipe(kind)
    tokenizer = ImageTokenizer(run.model)
    grid = tokenizer.geometry.grid_of(64, 64)
    assert (grid.height, grid.width) == (8, 8)
    assert (kind == "scales") == bool(grid.scales)
    assert (tokenizer.latent_width > 0) == (kind in ("latents", "pixels"))
    assert run.schedule.num_steps == (100 if kind == "pixels" else 300)


def test_passes_over_an_image() -> None:
    grid = Grid(8, 8)
    for name, drawing, passes in (
        ("next_code", Drawing(), 64), ("scale", Drawing(), 4), ("masked", Drawing(16), 16),
        ("masked", Drawing(100), 64), ("flow", Drawing(50, "euler"), 50),
        ("flow", Drawing(50, "heun"), 99),
    ):  # fmt: skip
        assert HEADS[name].passes(drawing, grid.size, 4) == passes


def test_steps_come_nearest_to_the_flops() -> None:
    assert COST.steps(9.1e9) == 5 and COST.steps(1.0) == 1
    assert abs(COST.steps(1e12) * COST.step_flops - 1e12) <= COST.step_flops / 2


def test_the_plan_adds_up_by_hand() -> None:
    heads = [HEADS["next_code"]]
    rows = plan(LAB, {"next_code": COST}, heads, 2e11, rates=3, seeds=2)
    sweep_s = 2 * (12 * 0.1 + 22 * 0.01 + 0.05)
    assert exam_s(COST, 2, Drawing()) == pytest.approx(sweep_s)
    by_hand = 300 * 0.2 + (3 + 1) * 100 * 0.5 + (3 + 3) * sweep_s + 2 * 5 * sweep_s
    assert sum(times * each for _, _, times, each in rows) == pytest.approx(by_hand)
    assert plan_cells(rows)[-1][-1].startswith(f"{by_hand / 60:.1f} ")
    assert exam_s(COST, 10, Drawing(16), drawing_alone=True) == pytest.approx(
        10 * (6 * 0.04 + 0.05)
    )


def test_tables_have_a_cell_for_each_column() -> None:
    found = [result("next_code", 0.5, 0.7, 0.6), result("masked", 0.4)]
    for head, rows in (
        (tables.HEADS_HEAD, [tables.head_cells(one) for one in found]),
        (tables.COSTS_HEAD, [tables.cost_cells(one) for one in found]),
        (tables.RATES_HEAD, [row for one in found for row in tables.rate_cells(one)]),
        (tables.DRAWINGS_HEAD, [row for one in found for row in tables.drawing_cells(one)]),
    ):
        assert rows and all(len(row) == len(head) for row in rows)
    first = dict(zip(tables.HEADS_HEAD, tables.head_cells(found[0]), strict=True))
    assert first["drawing"] == "0.600 (0.500 to 0.700)" and first["seeds"] == "3"
    alone = dict(zip(tables.HEADS_HEAD, tables.head_cells(found[1]), strict=True))
    assert alone["drawing"] == "0.400 (0.300 to 0.500)" and alone["CPU s an image"] == "0.300"
    costs = dict(zip(tables.COSTS_HEAD, tables.cost_cells(found[0]), strict=True))
    assert costs["positions, 10^6"] == "0.12" and costs["FLOPs, 10^12"] == "0.06"
    assert [row[1:3] for row in tables.rate_cells(found[1])] == [
        ["0.001", "not finite"], ["0.003", f"{(0.6 + 0.4 + 0.2) / 3:.3f}"],
    ]  # fmt: skip


def test_what_is_said_follows_the_scores() -> None:
    lines = tables.said([result("flow", 0.2), result("next_code", 0.5), result("masked", 0.4)])
    assert lines[0] == "drawing, the best first: next_code 0.500 > masked 0.400 > flow 0.200."
    assert lines[-1].endswith(": next_code, masked.")  # of flow, single object is 0.3


def test_plots_show_every_head(tmp_path: Path) -> None:
    found = [result(name, 0.5) for name in HEADS]
    for number, figure in enumerate((tables.compute_plot(found), tables.drawing_plot(found))):
        tables.save(figure, tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as image:
            assert image.width > 1000 and len(image.convert("RGB").getcolors(2**24) or ()) > 50
    by_time = tables.drawing_plot(found).axes[0]
    lines = [line for line in by_time.get_lines() if len(line.get_xdata()) == 4]
    assert len(lines) >= 5  # masked, and two solvers of both flows


def test_a_folder_is_of_one_budget(tmp_path: Path) -> None:
    Laboratory(tmp_path, Budget(samples=3)).claim()
    Laboratory(tmp_path, Budget(samples=3)).claim()
    said = CliRunner().invoke(main, [str(tmp_path), "--samples", "4"]).output
    assert "is of another budget" in said and "samples 3 (now 4)" in said


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_tiny_comparison_runs_and_goes_on(tmp_path: Path) -> None:
    words = (
        "--positions 24576 --width 64 --layers 1 --tokenizer-steps 4 --samples 1 --sweep-samples 1"
        " --scenes 60 --checkpoints 2 --rate 1e-3 --rate 3e-3 --seeds 2 --precision fp32"
    ).split()
    first = CliRunner().invoke(main, [str(tmp_path), *words, "--head", "next_code"])
    assert first.exit_code == 0, first.output
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").glob("*.json")}
    assert len(kept) == 2 + 2 + 1  # rates, seeds, a checkpoint
    heads = [word for name in HEADS for word in ("--head", name)]
    all_heads = CliRunner().invoke(main, [str(tmp_path), *words, *heads])
    assert all_heads.exit_code == 0, all_heads.output
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    rows = [
        line for line in (tmp_path / "costs.md").read_text().splitlines() if " FLOPs" not in line
    ]
    costs = [line.strip("| ").split(" | ") for line in rows if line.startswith("| ")]
    found = [dict(zip(tables.COSTS_HEAD, row, strict=True)) for row in costs if row[0] in HEADS]
    assert [row["head"] for row in found] == list(HEADS)
    assert len({row["parameters of layers"] for row in found}) == 1
    flops = [float(row["FLOPs, 10^12"]) for row in found]
    assert max(flops) <= 1.15 * min(flops)  # half a step of seven, and what rows differ by
    assert all((tmp_path / name).exists() for name in ("compute.png", "drawing.png", "rates.md"))
    drawn = (tmp_path / "drawings.md").read_text()
    assert len(re.findall(r"^\| (?:pixel_)?flow ", drawn, re.MULTILINE)) == 16
    plain = json.loads(next((tmp_path / "scores").glob("masked-*-seed1.json")).read_text())
    assert plain["recipe"]["max_objects"] == 2 and plain["recipe"]["image_steps"] == 16
    assert math.isfinite(plain["scores"]["questions"]["blind"]["overall"]["value"])
