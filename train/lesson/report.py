"""What came of a lesson, for people to read and to look at.

In: the album, and the marks of before and after. Out: `report.md`, and `before_after.png`: of each
image the original, what the image tokenizer makes of it, and what was drawn from its caption before
and after, the caption below.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as PILImage

from unimodal.data.asking import plain_request
from unimodal.data.sheet import PAPER, Cell, Paragraph, Strip, sheet
from unimodal.document import Image
from unimodal.eval.captioned import DRAWING, Captioned
from unimodal.eval.intervals import Estimate
from unimodal.eval.options import EVAL_SEED
from unimodal.eval.report import FAINT, GREEN, RED, recipe_line, rows
from unimodal.eval.results.comparison import LEVEL, compare, told_p
from unimodal.eval.results.stored import Result
from unimodal.eval.score import Prediction
from unimodal.model import Model

from .album import POOR_DB, Album
from .exams import Marks
from .lesson import Lesson

SHEET, REPORT = "before_after.png", "report.md"
COLUMNS = 8  # of the sheet: two images side by side
SIDE = 128  # pixels of an image on the sheet
# Scores that stand beside those of the kinds.
BESIDE = ("over_ceiling", "words_instead", "gain_over", "count_of_", "count_is_")


def before_after(album: Album, model: Model, before: Marks, after: Marks) -> PILImage.Image:
    """Draw the sheet; the model's codec decodes what both models drew."""
    drawn = [_drawings(model, marks) for marks in (before, after)]
    cells: list[Cell] = []
    for one in album.images:
        cells += _cells(one, *(found[one.name] for found in drawn))
    width, height = model.canvas
    return sheet(cells, COLUMNS, max(SIDE, width, height))


def _cells(
    one: Captioned,
    before: tuple[np.ndarray, Prediction],
    after: tuple[np.ndarray, Prediction],
) -> Iterator[Cell]:
    """Yield the four cells of an image."""
    caption = one.captions[0] + (" (held out)" if one.is_held_out else "")
    yield [Strip((one.original,)), Paragraph(caption)]
    poor = RED if one.psnr_db < POOR_DB else FAINT
    yield [Strip((one.seen,)), Paragraph(f"tokenizer, {one.psnr_db:.1f} dB", poor)]
    for when, (image, judged) in (("before", before), ("after", after)):
        colour = GREEN if judged["right"] else RED
        yield [Strip((image,)), Paragraph(f"{when}: {_verdict(judged)}", colour)]


def _verdict(judged: Prediction) -> str:
    if judged["own_db"] is None:
        return judged["reason"]
    return f"{judged['own_db']:.1f} dB" + (f", {judged['reason']}" if judged["reason"] else "")


def _drawings(model: Model, marks: Marks) -> dict[str, tuple[np.ndarray, Prediction]]:
    """Return by name what was drawn of each image, paper where nothing was, and its verdict."""
    width, height = model.canvas
    found = {}
    for judged in (p for p in marks.predictions if p["kind"] == DRAWING):
        pixels = np.full((height, width, 3), PAPER, np.uint8)
        if judged["codes"]:
            codes = np.array(judged["codes"][0])[:, None]
            (image,) = model.codec.decode(
                [Image(codes=codes, grid=model.grid, codec_hash=model.codec.hash)]
            )
            assert image.pixels is not None, "it was decoded"
            pixels = image.pixels
        found[judged["name"]] = (pixels, judged)
    return found


def report(
    lesson: Lesson, album: Album, before: Marks, after: Marks, num_steps: int, minutes: float
) -> str:
    """Return the report in Markdown."""
    weights = "all weights" if lesson.all_weights else "adapters (LoRA)"
    replay = (
        f"{lesson.replay:.0%} of the tokens replay the world of scenes"
        if lesson.replay
        else ("nothing is replayed, so old skills may be lost")
    )
    steps = f"{num_steps} step{'s' * (num_steps > 1)}"
    lines = [
        f"# {lesson.source.resolve().name}, taught",
        "",
        f"{len(album.taught)} images taught, {len(album.images) - len(album.taught)} held out; "
        f"{steps} of {weights}, {minutes:.1f} minutes; {replay}. {SHEET} shows them all.",
        "",
        "```sh",
        *talk(lesson, album),
        "```",
        "",
        "## Your images",
        "",
        *_table(before.scores, after.scores),
        "",
        "A name is right when it is the caption; a drawing when none of the images, as the image "
        f"tokenizer shows them, is nearer to it than its own (by chance 1 in {len(album.images)}). "
        "PSNR is in dB, and a drawing may be nearest and still poor: look at the sheet.",
        "",
        *_scenes(before, after),
        "## Notes",
        "",
        *(f"- {line}" for line in (*album.warnings(), *album.bad, *album.notes)),
        *(f"- {when}: {recipe_line(one)}" for when, one in _recipes(before, after)),
    ]
    return "\n".join(lines) + "\n"


def talk(lesson: Lesson, album: Album) -> list[str]:
    """Return the commands that talk with the finished bundle."""
    asked = plain_request(album.taught[0].captions[0])
    return [chat(lesson), f"{chat(lesson)} --prompt {shlex.quote(asked)} --output out"]


def chat(lesson: Lesson) -> str:
    """Return the command that opens a conversation with the finished bundle."""
    return f"unimodal chat --model {shlex.quote(str(lesson.output / 'bundle'))}"


def _recipes(before: Marks, after: Marks) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what the numbers depend on."""
    for when, marks in (("before", before), ("after", after)):
        yield when, marks.recipe
        if marks.answered is not None:
            yield when, marks.answered.recipe


def _scenes(before: Marks, after: Marks) -> Iterator[str]:
    """Yield the section of old skills."""
    yield "## Old skills"
    yield ""
    if not after.scenes:
        yield "The exam of scenes was left out: the bundle has not learned them, or --exam 0."
        yield ""
        return
    old, new = (_kinds(marks.scenes) for marks in (before, after))
    yield from _table(old, new)
    yield ""
    assert before.answered is not None and after.answered is not None, "both were asked"
    yield lost(before.answered, after.answered)
    yield ""


def lost(before: Result, after: Result) -> str:
    """Say which skills fell, request by request, and which seem to have."""
    fell = [
        row for row in compare(before, after, EVAL_SEED).rows
        if row.p < LEVEL and row.b < row.a
    ]  # fmt: skip
    sure, seeming = (
        [
            f"{row.label} ({row.a:.3f} to {row.b:.3f}, p {told_p(row.p_corrected)})"
            for row in fell if (row.p_corrected < LEVEL) is is_sure
        ]
        for is_sure in (True, False)
    )  # fmt: skip
    sentences = [
        f"Worse than before: {', '.join(sure)}. More --replay keeps more." if sure
        else "No fall is sure, request by request.",
        *([f"Perhaps worse: {', '.join(seeming)}."] if seeming else []),
    ]  # fmt: skip
    return " ".join([*sentences, "p is corrected for the number of rows; more samples (--exam) "
                     "would tell more."])  # fmt: skip


def _kinds(scenes: Mapping[str, Any]) -> dict[str, dict[str, Estimate]]:
    """Return of each part its overall score and its kinds, not what these are measured against."""
    return {
        part: {
            name: one
            for name, one in scores.items()
            if isinstance(one, Estimate) and not name.startswith(BESIDE)
        }
        for part, scores in scenes.items()
    }


def _table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the scores of before and after, with their intervals."""
    yield "| score | before | 95 % interval | after | 95 % interval | n |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for (path, old), (_, new) in zip(rows(before), rows(after), strict=True):
        name = " / ".join(path).replace("_", " ")
        yield f"| {name} | {' | '.join([*_cell(old), *_cell(new)])} | {new.n} |"


def _cell(score: Estimate) -> Sequence[str]:
    if score.value is None:
        return "not measured", ""
    interval = "" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
    return f"{score.value:.3f}", interval


def summary(before: Marks, after: Marks, lesson: Lesson) -> Iterator[str]:
    """Yield what the command prints at its end."""
    for (path, old), (_, new) in zip(rows(before.scores), rows(after.scores), strict=True):
        yield f"{' / '.join(path).replace('_', ' ')}: {_told(old)} -> {_told(new)} (n {new.n})"
    for part in after.scenes:
        old, new = (marks.scenes[part]["overall"] for marks in (before, after))
        yield f"scenes, {part}: {_told(old)} -> {_told(new)} (n {new.n})"
    yield recipe_line(after.recipe)
    yield f"{lesson.output / REPORT} and {lesson.output / SHEET} say and show more"
    yield f"talk with it: {chat(lesson)}"


def _told(score: Estimate) -> str:
    value, interval = _cell(score)
    return f"{value} ({interval})" if interval else value
