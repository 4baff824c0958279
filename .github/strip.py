"""Draw strip.png, the image in the README: what the default model draws and says.

    python .github/strip.py

Above, requests chosen by hand and the first drawing of each, with the shipped settings and seed 0.
Then the first scenes of a seed that training never used, each with a question: nothing is chosen
among answers. Marks are by the rules of `unimodal eval scenes`. Below, one conversation as a new
user types it, as it came: nobody marks it.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import unimodal
from unimodal.data.scenes.questions import ask
from unimodal.data.scenes.requests import Request
from unimodal.data.scenes.wording import Claim
from unimodal.data.scenes.world import SMALL, generator, render, scene
from unimodal.eval.answer import Answer
from unimodal.eval.verdicts import judge_caption, judge_drawing, judge_question

SEED = 1_000_003  # of the scenes that are shown; the evaluation's
DRAWN = (
    ("draw two red circles", "counting", (Claim(2, None, "red", "circle"),), None),
    ("draw a blue heart", "colours", (Claim(1, None, "blue", "heart"),), None),
    ("draw four orange diamonds", "counting", (Claim(4, None, "orange", "diamond"),), None),
    ("draw a star and a heart", "two objects",
     (Claim(1, None, None, "star"), Claim(1, None, None, "heart")), None),
    ("draw a red square to the left of a blue circle", "position",
     (Claim(1, None, "red", "square"), Claim(1, None, "blue", "circle")), "left of"),
)  # fmt: skip
TYPED = (
    "draw a cat", "two pizzas and a red heart", "make the heart blue", "what do you see?",
    "draw my boss",
)  # fmt: skip
ASKED = ("caption", "colour", "size", "count", "caption")  # of scene 0, 1, ...
CELL, SIDE, GAP, LINE, FONT = 348, 256, 20, 32, 26  # pixels
PAPER, WORDS, USER, MODEL = (255, 255, 255), (31, 35, 40), (221, 244, 255), (240, 242, 245)
GREEN, RED = (26, 127, 55), (207, 34, 46)

Cell = tuple[str, np.ndarray | None, str, bool | None]
"""What was asked, the image that was drawn or shown, what was said, and whether it is right."""


def drawings(model: unimodal.Model) -> list[Cell]:
    """Ask for each drawing, in a conversation of its own."""
    cells = []
    for text, task, claims, relation in DRAWN:
        reply = unimodal.Chat(model, seed=0)(text)
        (image,) = map(np.asarray, reply.images)
        wanted = Request(task, claims, relation, None, text, 0)
        verdict = judge_drawing(wanted, Answer(reply.text, (image,)))
        cells.append((text, image, "", not verdict.reason))
    return cells


def answers(model: unimodal.Model) -> list[Cell]:
    """Ask about each scene, in a conversation of its own."""
    cells = []
    for index, kind in enumerate(ASKED):
        shown = scene(SEED, index, SMALL)
        pixels = render(shown, 64)
        asked = None if kind == "caption" else ask(shown, kind, generator(SEED, index, 2))
        prompt = asked.text if asked else "describe this picture"
        said = unimodal.Chat(model, seed=0)(prompt, [Image.fromarray(pixels)]).text
        verdict = (
            judge_question(asked, Answer(said)) if asked else judge_caption(shown, Answer(said))
        )
        cells.append((prompt, pixels, said, not verdict.reason))
    return cells


def conversation(model: unimodal.Model) -> list[Cell]:
    """Say what is typed, turn by turn, in one conversation."""
    chat = unimodal.Chat(model, seed=0)
    replies = [(text, chat(text)) for text in TYPED]
    return [
        (text, np.asarray(reply.images[0]) if reply.images else None, reply.text, None)
        for text, reply in replies
    ]


def wrapped(text: str) -> list[str]:
    """Return the text in lines of a bubble's width."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font().getlength(longer) <= CELL - 3 * GAP:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the one font of the strip."""
    return ImageFont.load_default(FONT)


def bubble(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: tuple) -> None:
    """Draw words on a ground of this colour."""
    lines, (left, top) = wrapped(text), at
    width = max(font().getlength(line) for line in lines) + 2 * GAP
    box = (left, top, left + width, top + LINE * len(lines) + GAP)
    draw.rounded_rectangle(box, 14, colour)
    for number, line in enumerate(lines):
        draw.text((left + GAP, top + GAP // 2 + LINE * number - 1), line, WORDS, font())


def mark(draw: ImageDraw.ImageDraw, x: int, y: int, right: bool) -> None:
    """Draw a tick or a cross in a disc around (x, y)."""
    draw.ellipse((x - 17, y - 17, x + 17, y + 17), GREEN if right else RED, PAPER, 3)
    strokes = [(-8, 0, -2, 7), (-2, 7, 8, -6)] if right else [(-6, -6, 6, 6), (-6, 6, 6, -6)]
    for a, b, c, d in strokes:
        draw.line((x + a, y + b, x + c, y + d), PAPER, 4)


def frame(
    pixels: np.ndarray, at: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """Return the image enlarged, its place, and the mask of its round corners."""
    shown = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    rounded = Image.new("L", shown.size, 0)
    ImageDraw.Draw(rounded).rounded_rectangle((0, 0, SIDE - 1, SIDE - 1), 14, 255)
    return shown, at, rounded


def row(cells: list[Cell]) -> Image.Image:
    """Draw cells side by side, their images at one height."""
    beneath = [cell[2] for cell in cells if cell[2] and cell[1] is not None]
    height = [
        LINE * max((len(wrapped(text)) for text in texts), default=0) + GAP
        for texts in ([cell[0] for cell in cells], beneath)
    ]
    above, below = height[0] + GAP, (height[1] + GAP if beneath else 0)
    page = Image.new("RGB", (CELL * len(cells) + GAP, above + SIDE + below + GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for number, (asked, pixels, said, right) in enumerate(cells):
        left = GAP + CELL * number
        bubble(draw, (left, height[0] - LINE * len(wrapped(asked)) - GAP), asked, USER)
        if pixels is not None:
            page.paste(*frame(pixels, (left, above)))
        if said:
            bubble(draw, (left, above + (0 if pixels is None else SIDE + GAP)), said, MODEL)
        if right is not None:
            mark(draw, left + SIDE, above + SIDE, right)
    return page


def main() -> None:
    """Draw the strip beside this file, or at the path given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a bundle's directory; default: the one that ships")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".png"))
    given = parser.parse_args()
    model = unimodal.load(given.model) if given.model else unimodal.load()
    rows = [row(drawings(model)), row(answers(model)), row(conversation(model))]
    page = Image.new("RGB", (rows[0].width, sum(one.height + GAP for one in rows)), PAPER)
    top = GAP
    for one in rows:
        page.paste(one, (0, top))
        top += one.height + GAP
    page.quantize(255).save(given.output, optimize=True)


if __name__ == "__main__":
    main()
