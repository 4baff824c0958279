"""`unimodal eval report` and `unimodal eval compare`: results on a page; two of them in pairs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..options import EVAL_SEED, OUT_FILE, option

if TYPE_CHECKING:
    from .comparison import Comparison, Row

IN_RESULT = click.Path(exists=True, path_type=Path)


@click.command("report")
@click.argument("runs", type=IN_RESULT, nargs=-1, required=True)
@click.option("--output", type=OUT_FILE, required=True, help="Write the page here.")
def report_(runs: tuple[Path, ...], output: Path) -> None:
    """Write one HTML page of RUNS, results that evaluators wrote by --json, or folders of them:
    tables, plots with intervals, contact sheets that lie beside them, and every recipe.

    \b
    unimodal eval report scores.json geneval.json --output page.html
    """
    from unimodal.atomic import write_bytes

    from .page import page
    from .stored import read_results

    results = read_results(runs)
    content = page(results).encode()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(output, content)
    many = "s" * (len(results) > 1)
    click.echo(f"{output}: {len(results)} result{many}, {len(content):,} bytes")


@click.command("compare")
@click.argument("a", type=IN_RESULT)
@click.argument("b", type=IN_RESULT)
@option("--resamples", 10_000, "Of prompts, for intervals.", click.IntRange(1000, 1_000_000))
@option("--seed", EVAL_SEED, "Of the resamples, and of signs.", click.IntRange(0, 2**40))
@click.option("--json", type=OUT_FILE, help="Write differences, tests and every pair here.")
def compare_(a: Path, b: Path, resamples: int, seed: int, json: Path | None) -> None:
    """Say which differences between A and B are real: results of the same evaluation, as --json or
    --predictions wrote them, paired item by item.

    \b
    unimodal eval compare small.json large.json --json difference.json
    """
    from .comparison import compare
    from .stored import read_judged

    found = compare(read_judged(a), read_judged(b), seed, resamples)
    _show(found)
    if json:
        from ..score import write

        write(json, found.report())


def _show(found: "Comparison") -> None:
    """Print the table, what is real, and both recipes."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from ..report import recipe_line
    from .items import OVERALL

    console = Console(markup=False)  # brackets of names are none
    for part in dict.fromkeys(row.part for row in found.rows):
        title = f"{part.replace('_', ' ')}: {found.names[1]} less {found.names[0]}"
        table = Table(title=title, box=SIMPLE, padding=(0, 0, 0, 1))
        table.add_column("score", overflow="fold")
        for heading in (*found.names, "change", "95 % interval", "n", "p (Holm)", "real"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in (row for row in found.rows if row.part == part):
            table.add_row(*_cells(row), style="bold" if row.kind == OVERALL else None)
        console.print(table)
    console.print(
        "n (prompts, or images asked about); p is exact, or ~ from drawn signs", highlight=False
    )
    for line in found.words():
        console.print(line, highlight=False)
    first, second = (one.recipe.items() for one in (found.a, found.b))
    shared = dict(one for one in first if one in second) | found.settings
    console.print(f"both: {recipe_line(shared)}", highlight=False)
    for name, settings in zip(found.names, (first, second), strict=True):
        mine = {key: value for key, value in settings if key not in shared}
        console.print(f"{name}: {recipe_line(mine)}", highlight=False)


def _cells(row: "Row") -> list[str]:
    """Return the cells of a row of the table."""
    from .comparison import told_p

    d = row.difference
    ends = "" if d.low is None else f"{d.low:+.3f} to {d.high:+.3f}"
    n = str(d.n) if row.prompts == d.n else f"{d.n} ({row.prompts})"
    p = told_p(row.p_corrected) if row.is_exact else f"~ {told_p(row.p_corrected)}"
    kind, real = row.kind.replace("_", " "), "yes" if row.is_real else "no"
    return [kind, f"{row.a:.3f}", f"{row.b:.3f}", f"{d.value:+.3f}", ends, n, p, real]
