"""The ablation of recipes: levers that change what they say alone, gains of equal seeds, tables."""

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.head_exams import Scores
from benchmarks.laboratory import Budget, Head, Laboratory, Trial
from benchmarks.recipe_ablation import (
    BASE,
    LEVERS,
    LR,
    NOTHING,
    Lever,
    Rows,
    Run,
    gained,
    main,
    together,
)
from click.testing import CliRunner

from unimodal import config

LAB = Laboratory(Path("out"), Budget())
CHANGES = {
    "factorised": {"model.factorised"},
    "addresses": {"model.addresses"},
    "1,024 codes": {"tokenizer", "sources.scenes.shards"},
    "changed codes x 4": {"sources.scenes.changed_weight"},
    "more edits": set(),
    "contrast pairs": set(),
    "no plan in words": set(),
    "code noise": {"loader.code_noise"},
    "residual lambdas": {"model.residual_lambdas"},
    "value embeddings": {"model.value_embeddings"},
    "two-way prompts": {"model.two_way"},
    "weight decay": {"optimizer.weight_decay"},
    "cautious weight decay": {"optimizer.weight_decay", "optimizer.cautious"},
    "decay from the start": {"schedule.decay_steps"},
}


def recipe(lever: Lever):
    settings = [one.replace("LONGEST", "300") for one in lever.settings]
    head = Head("x", "next_code", lever.tokenizer, settings=(*BASE, *settings))
    return LAB.recipe(Trial(head, LR), 400)


@pytest.mark.parametrize("name", LEVERS)
def test_a_lever_changes_what_it_says_and_no_more(name: str) -> None:
    run = recipe(LEVERS[name])
    changes = {key for key, _, _ in config.changes(recipe(NOTHING), run)}
    assert changes == CHANGES[name] and not run.problems()
    assert bool(LEVERS[name].mix) == (not changes)


def run(mean: float) -> Run:
    part = {"value": mean, "low": mean, "high": mean}
    return Run(Scores(part, part, part, part, part), 2.0)


def test_gains_are_of_equal_seeds() -> None:
    base, other = [run(0.5), run(0.3), run(0.4)], [run(0.6), run(0.5), run(0.4)]
    assert gained(other[:1], base[:1]) == "+0.100"
    # Gains 0.1, 0.2 and 0: mean 0.1, standard deviation 0.1, 4.303 * 0.1 / sqrt(3) = 0.2484.
    assert gained(other, base) == "+0.100 (-0.148 to +0.348)"


def test_the_best_levers_go_on_and_together_they_are_all_of_them(tmp_path: Path) -> None:
    rows = Rows(replace(LAB, folder=tmp_path), "screened.md", "few positions")
    for name, mean in [("nothing", 0.9), ("addresses", 0.2), ("1,024 codes", 0.4),
                       ("more edits", 0.3)]:  # fmt: skip
        rows.add(LEVERS.get(name, NOTHING), [run(mean)])
    rows.write()
    best = rows.best(2)
    assert [lever.name for lever in best] == ["1,024 codes", "more edits"]
    both = together([*best, LEVERS["code noise"]])
    assert both == together([LEVERS["code noise"], *best[::-1]])
    assert both.name == "together: 1,024 codes, code noise, more edits"
    assert (both.tokenizer, both.settings) == ("few_codes", ("loader.code_noise=0.05",))
    assert both.mix == LEVERS["more edits"].mix
    lines = (tmp_path / "screened.md").read_text().splitlines()
    assert "| addresses | 0.200 | 0.200 | 0.200 | 0.200 | -0.700 | 2.0 |" in lines


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_tiny_ablation_runs_and_goes_on(tmp_path: Path) -> None:
    words = (
        "--screened 8192 --confirmed 12288 --tokenizer-steps 4 --samples 1 --scenes 60 --best 2"
        " --seeds 2 --precision fp32"
    ).split()
    alone = [str(tmp_path), *words, "--lever", "nothing", "--lever", "more edits"]
    first = CliRunner().invoke(main, alone)
    assert first.exit_code == 0, first.output
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").glob("*.json")}
    assert len(kept) == 2
    whole = CliRunner().invoke(main, [str(tmp_path), *words, "--workers", "2"])
    assert whole.exit_code == 0, whole.output
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    screened, confirmed = (
        (tmp_path / f"{one}.md").read_text() for one in ("screened", "confirmed")
    )
    assert all(f"| {name} |" in screened for name in ("nothing", *LEVERS))
    assert "| together: " in confirmed and len(confirmed.splitlines()) == 4 + 4
