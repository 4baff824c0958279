"""What an evaluation found is printed, and written as a result file and as Markdown."""

from pathlib import Path
from typing import Any

from rich.console import Console

from unimodal.atomic import write_bytes

from ..report import markdown, recipe_line, terminal_table
from ..score import write
from .bootstrapped import INTERVALS, bootstrapped


def show(
    title: str, report: dict[str, Any], json_file: Path | None, markdown_file: Path | None
) -> None:
    """Print the report's table and recipe, and write its JSON and Markdown files if asked to.

    The recipe says how intervals were made too.
    """
    report = report | {"recipe": report["recipe"] | {"intervals": INTERVALS}}
    # First, so that a full disk does not cost the scores too; brackets of names are no markup.
    console = Console(markup=False)
    console.print(terminal_table(report["scores"], title))
    console.print(recipe_line(report["recipe"]), highlight=False)
    if json_file:
        write(json_file, report)  # first too: a program's own predictions may not be resampled
        write(json_file, report | bootstrapped(report))
    if markdown_file:
        markdown_file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(markdown_file, markdown(report["scores"], report["recipe"]).encode())
