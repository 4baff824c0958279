"""One HTML page of results: tables, plots with intervals, images, and every recipe.

In: `Result`s. Out: HTML that stands alone: nothing is loaded from elsewhere, no script runs, and
all text of results is escaped. Equal results give equal bytes.

1. Runs of one evaluation share a section: a table with a column for each, and plots.
2. What they asked is compared by its hashes; where that differs, the page says so.
3. Each run has its recipe, all its scores and the images that lie beside it (sheets.py).
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ..intervals import Estimate
from ..report import main_rows, recipe_line, rows
from .items import HASHES
from .plot import Row, plot
from .sheets import Sheet, Tile, drawn_beside, sheets_beside, tiles_of
from .stored import Result, names_of
from .style import style

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TITLE = "Results of unimodal eval"
Path = tuple[str, ...]
Named = Sequence[tuple[str, Result]]


def page(results: Sequence[Result]) -> str:
    """Return the page of results."""
    names = names_of([result.path for result in results])
    groups: dict[str, list[tuple[str, Result]]] = {}
    for name, result in zip(names, results, strict=True):
        groups.setdefault(result.evaluation, []).append((name, result))
    body = "".join(_group(evaluation, runs) for evaluation, runs in groups.items())
    most = max(len(runs) for runs in groups.values())
    told = f"{len(results)} result{'s' * (len(results) > 1)}; intervals are of 95 %"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{TITLE}</title><style>{style(most)}</style></head>\n"
        f"<body><h1>{TITLE}</h1><p>{told}</p>\n{body}</body></html>\n"
    )


def _group(evaluation: str, runs: Named) -> str:
    """Return the section of runs of one evaluation."""
    parts = [f"<h2>{_text(evaluation)}</h2>"]
    if len(runs) > 1:
        parts += [_asked(runs), _legend(runs)]
    parts += [_table(runs), *_plots(runs)]
    parts += [_run(name, result) for name, result in runs]
    return "\n".join(parts) + "\n"


def _asked(runs: Named) -> str:
    """Say whether all runs asked the same, by the hashes in their recipes."""
    hashes = {
        hash: [str(result.recipe.get(hash, "unknown")) for _, result in runs]
        for hash in HASHES
        if any(hash in result.recipe for _, result in runs)
    }
    differing = {hash: found for hash, found in hashes.items() if len(set(found)) > 1}
    if not differing:
        told = ", ".join(f"{hash} {found[0][:12]}" for hash, found in hashes.items())
        return f"<p>All asked the same: {_text(told or 'no hash is recorded')}.</p>"
    told = "; ".join(
        f"{hash} "
        + ", ".join(f"{one[:12]} ({name})" for one, (name, _) in zip(found, runs, strict=True))
        for hash, found in differing.items()
    )
    return (
        f'<p class="warn">They did not ask the same, and their scores cannot be compared: '
        f"{_text(told)}</p>"
    )


def _legend(runs: Named) -> str:
    spans = (f'<span class="run-{at}">{_text(name)}</span>' for at, (name, _) in enumerate(runs))
    return f'<p class="legend">{"".join(spans)}</p>'


def _scores(runs: Named) -> dict[Path, list[Estimate | None]]:
    """Return the main scores of all runs by their paths, as the first that has them orders them."""
    found: dict[Path, list[Estimate | None]] = {}
    for at, (_, result) in enumerate(runs):
        for path, score in main_rows(result.scores):
            found.setdefault(path, [None] * len(runs))[at] = score
    return found


def _table(runs: Named) -> str:
    """Return the table of the main scores, a column for each run."""
    heads = "".join(f"<th>{_text(name)}</th>" for name, _ in runs)
    return (
        f'<div class="wide"><table><thead><tr><th>score</th>{heads}</tr></thead>'
        f"<tbody>{_lines(_scores(runs).items())}</tbody></table></div>"
    )


def _lines(scores: Iterable[tuple[Path, Sequence[Estimate | None]]]) -> str:
    """Return the rows of a table; the name of a part stands above its own."""
    lines, above = [], ""
    for path, estimates in scores:
        if len(path) > 1 and path[0] != above:
            lines.append(
                f'<tr class="part"><th colspan="{1 + len(estimates)}">{_label(path[:1])}</th></tr>'
            )
        above = path[0]
        cells = "".join(map(_cell, estimates))
        lines.append(f"<tr{_strong(path)}><td>{_label(path[1:] or path)}</td>{cells}</tr>")
    return "".join(lines)


def _cell(score: Estimate | None) -> str:
    if score is None:
        return "<td>–</td>"
    value = "not measured" if score.value is None else f"{score.value:.3f}"
    has_ends = score.low is not None and score.high is not None
    ends = f"{score.low:.3f} to {score.high:.3f}, " if has_ends else ""
    return f'<td>{value}<br><span class="ends">{ends}n {score.n}</span></td>'


def _plots(runs: Named) -> Iterator[str]:
    """Yield a plot for each part: of its shares together, and of each score on another scale."""
    parts: dict[str, list[tuple[Path, list[Estimate | None]]]] = {}
    for path, estimates in _scores(runs).items():
        parts.setdefault(path[0], []).append((path, estimates))
    for part, members in parts.items():
        lines = [Row(_spoken(path[1:] or path), tuple(e), _is_overall(path)) for path, e in members]
        together = [row for row in lines if _is_share(row)]
        drawn = [plot(together, part)] if together else []
        drawn += [plot([row], row.label) for row in lines if not _is_share(row)]
        if any(drawn):
            yield f"<h3>{_label((part,))}</h3>{''.join(drawn)}"


def _is_share(row: Row) -> bool:
    """Tell whether a row fits the axis of shares, or of their differences."""
    return all(-1 <= end <= 1 for end in row.ends())


def _run(name: str, result: Result) -> str:
    """Return what belongs to one run alone: recipe, words, images and all of its scores."""
    parts = [
        f'<section class="run"><h3>{_text(name)}</h3>',
        f'<p class="recipe">{_text(recipe_line(result.recipe))}</p>',
        _words(result),
        _images(result),
        _details("all scores", _every_score(result)),
        _details("recipe", _pairs(result.recipe)),
    ]
    parts += [
        _details(name, _pairs(value))
        for name, value in result.more.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join(part for part in parts if part) + "</section>"


def _words(result: Result) -> str:
    """Return the sentences of a comparison or of votes."""
    words = result.more.get("words")
    return "".join(f"<p>{_text(str(one))}</p>" for one in words) if isinstance(words, list) else ""


def _every_score(result: Result) -> str:
    lines = _lines((path, [score]) for path, score in rows(result.scores))
    told = f'<p class="n">{len(result.predictions)} predictions in {_text(result.path.name)}</p>'
    return f'{told}<div class="wide"><table>{lines}</table></div>'


def _pairs(values: Mapping[str, Any]) -> str:
    """Return names and values as a list; nested ones by names with dots, nothing cut."""
    lines = "".join(
        f"<dt>{_text(name)}</dt><dd>{_text(str(value))}</dd>" for name, value in _flat(values)
    )
    return f"<dl>{lines}</dl>"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _images(result: Result) -> str:
    """Return the contact sheets of a run, or where there are none the images that were drawn."""
    if sheets := sheets_beside(result):
        return "".join(map(_sheet, sheets))
    folders = drawn_beside(result)
    if len(folders) > 1:
        names = ", ".join(one.name for one in folders)
        return (
            f"<p>{_text(f'Images of several folders fit: {names}. With one, they stand here.')}</p>"
        )
    return _tiles(tiles_of(result, folders[0])) if folders else ""


def _sheet(sheet: Sheet) -> str:
    width, height = sheet.size
    image = f'<img alt="contact sheet" width="{width}" height="{height}" src="{_data(sheet.png)}">'
    caption = f"<figcaption>{_text(sheet.name)}</figcaption>"
    return f'<figure><div class="wide">{image}</div>{caption}</figure>'


def _tiles(tiles: Sequence[Tile]) -> str:
    return f'<div class="tiles">{"".join(map(_tile, tiles))}</div>' if tiles else ""


def _tile(tile: Tile) -> str:
    mark = {True: "right", False: "wrong", None: ""}[tile.right]
    colour = {True: "good", False: "bad", None: ""}[tile.right]
    verdict = ": ".join(text for text in (mark, tile.verdict) if text)
    small = ' class="small"' if tile.is_small else ""
    return (
        f'<figure><img{small} alt="{_text(tile.words)}" src="{_data(tile.png)}">'
        f"<figcaption>{_text(tile.words)}<br>"
        f'<span class="{colour}">{_text(verdict)}</span></figcaption></figure>'
    )


def _details(title: str, content: str) -> str:
    return f"<details><summary>{_text(title)}</summary>{content}</details>"


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _label(path: Path) -> str:
    """Return the names of a path as text of HTML."""
    return _text(_spoken(path))


def _spoken(path: Path) -> str:
    return " / ".join(name.replace("_", " ") for name in path)


def _is_overall(path: Path) -> bool:
    return path[-1] == "overall"


def _strong(path: Path) -> str:
    return ' class="strong"' if _is_overall(path) else ""


def _text(words: str) -> str:
    return escape(words, quote=True)
