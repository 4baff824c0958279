"""Tables and contact sheets: every number with its interval, every image with its verdict."""

import numpy as np
from PIL import Image
from rich.console import Console

from unimodal.eval.intervals import Estimate, mean, proportion
from unimodal.eval.report import (
    GREEN,
    RED,
    Cell,
    contact_sheet,
    markdown,
    recipe_line,
    rows,
    terminal_table,
    with_scores,
)
from unimodal.eval.results.shown import show

SCORES = {
    "drawing": {
        "overall": proportion(1, 4),
        "by_words": {"overall": proportion(1, 1), "seen": proportion(1, 1)},
    },
    "nothing": Estimate(None, None, None, 0),
    "one": mean([3.0]),
}
RECIPE = {"seed": 5, "guidance": 2.0, "model": "a" * 64, "versions": {"torch": "2"}, "commit": None}
LINE = "seed 5, guidance 2, model aaaaaaaaaaaa, versions (torch 2), commit none"


def image(value: int) -> np.ndarray:
    """A colour that antialiased letters do not have."""
    return np.full((64, 64, 3), (value, 0, 200), dtype=np.uint8)


def test_rows_are_every_estimate_with_its_path():
    assert [path for path, _ in rows(SCORES)] == [
        ("drawing", "overall"),
        ("drawing", "by_words", "overall"),
        ("drawing", "by_words", "seen"),
        ("nothing",),
        ("one",),
    ]


def test_markdown_is_a_table_and_a_recipe():
    text = markdown(SCORES, RECIPE)
    assert "| **drawing / overall** | **0.250** | **0.046 to 0.699** | **4** |" in text
    assert "| **drawing / by words / overall** | **1.000** | **0.207 to 1.000** | **1** |" in text
    assert "seen" not in text, "kinds of what is only compared stand in the JSON file alone"
    assert "| nothing | not measured |  | 0 |" in text
    assert "| one | 3.000 |  | 1 |" in text
    assert text.endswith(f"\n{LINE}\n")


def test_names_and_prompts_are_told_as_they_are(capsys):
    prompt = "[/b] {question}\n[red]Answer with the letter of the right option.[/red]"
    report = {"scores": {"[/x]": proportion(1, 4)}, "recipe": {"template": prompt}}
    show("[/y]", report, None, None)
    told = " ".join(capsys.readouterr().out.split())
    assert "[/x]" in told and "[/y]" in told
    assert "template " + prompt.replace("\n", "\\n") in told
    assert recipe_line({"commit": "a" * 40 + "+"}) == "commit aaaaaaaaaaaa+"


def test_terminal_table_shows_the_same():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))
    console.print(terminal_table(SCORES, "scores"))
    text = console.export_text()
    assert "drawing / overall" in text and "0.046 to 0.699" in text


def test_recipe_line_cuts_hashes_alone():
    fit = "PadFit(side=24, background=127, least=14, kind='pad')"
    assert recipe_line({"fit": fit}) == f"fit {fit}"
    assert recipe_line(RECIPE) == LINE
    assert recipe_line({"a": RECIPE, "b": RECIPE, "level": 0.05}) == "level 0.05"


def pixels_of(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=2).sum())


def test_the_frame_and_the_words_tell_the_verdict():
    right = contact_sheet([Cell((image(90),), "a red circle", "", True)])
    wrong = contact_sheet([Cell((image(90),), "a red circle", "2 of 1 circle", False)])
    assert pixels_of(right, GREEN) > 500 and pixels_of(right, RED) == 0
    assert pixels_of(wrong, RED) > 500 and pixels_of(wrong, GREEN) == 0
    assert wrong.height > 64 * 2 + 30  # words and verdict have lines of their own


def test_images_are_enlarged_and_whole():
    sheet = contact_sheet([Cell((image(90),), "words", "", True)], scale=3)
    assert pixels_of(sheet, (90, 0, 200)) == (3 * 64) ** 2


def test_before_and_after_stand_side_by_side():
    sheet = contact_sheet([Cell((image(90), image(125)), "make it blue", "", False)])
    assert pixels_of(sheet, (90, 0, 200)) == pixels_of(sheet, (125, 0, 200)) == 128**2


def test_the_sheet_has_its_columns_and_loses_no_cell():
    cells = [Cell((image(90),), f"cell {k}", "", True) for k in range(10)]
    sheet = contact_sheet(cells, columns=4)
    one = contact_sheet(cells[:1])
    assert sheet.width == 4 * one.width and sheet.height == 3 * one.height
    assert pixels_of(sheet, (90, 0, 200)) == 10 * 128**2


def test_long_words_are_wrapped_inside_the_cell():
    words = "a very small purple triangle to the left of a very large yellow star, please"
    short, long = (contact_sheet([Cell((image(90),), w, "", True)]) for w in ("star", words))
    assert long.width == short.width and long.height > short.height + 40


def test_the_card_tells_what_the_table_does():
    half, none = Estimate(0.5, 0.4, 0.6, 10), Estimate(None, None, None, 0)
    scores = {
        "questions": {
            "overall": half, "count": half, "blind": {"overall": half, "count": half},
            "by_words": {"held_out": {"overall": half, "count": half}, "seen": {"overall": none}},
        },
        "tokenizer": {"right": half},
    }  # fmt: skip
    report = {"scores": scores, "recipe": {"evaluation": "scenes", "seed": 3}}
    before = {"questions.size": {"value": 1.0}, "free.overall": {"value": 0.1}}
    card = with_scores({"hours": 2, "scores": before, "scores_recipe": "old"}, report, ["new"])
    told = card["scores"]
    assert list(told) == [
        "free.overall",
        "questions.overall",
        "questions.count",
        "questions.blind.overall",
        "questions.by_words.held_out.overall",
        "tokenizer.right",
    ]
    assert told["tokenizer.right"] == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    assert (card["hours"], card["scores_recipe"]) == (2, "old") and "seed 3" in card["new"]
    things = with_scores(card, report, ["things_scores_recipe"], before="things.")["scores"]
    assert set(things) == {*told, *(f"things.{name}" for name in told if name != "free.overall")}
