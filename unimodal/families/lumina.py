"""Lumina-mGPT: a Chameleon that draws images of many sizes (Liu et al., arXiv:2408.02657).

Its files say `model_type` chameleon, and are told apart by the class that they name. An image says
its height and width in steps of 32 pixels, and its rows end; a request says the size in words, as
the authors' demos do (repository Alpha-VLLM/Lumina-mGPT). Guidance leads away from the image alone,
without even the first token of a document.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture
from ..heads.next_code import NextCode, NextCodeInputs
from ..hub.checkpoint import CheckpointError
from ..layout import ImageLayout, Layout, Side, Size, Special, Turn, Unconditional
from ..sampling import Sampling
from ..vocabulary import MAX_SIDE
from .fits import BucketFit, bucket_sizes
from .plan import Plan
from .spellings import Spellings

CLASS = re.compile(r"ChameleonXLLMX")
BEGIN, END, TURN_END = Special("<s>"), Special("</s>"), Special("<reserved08706>")
STEP = 2  # codes in a step of a side, each of PATCH x PATCH pixels
PATCH = 16
SIZE = "size_"
ASKED = "Generate an image of {width}x{height} according to the following prompt:\n"
DRAWING = Layout(
    begin=(BEGIN,),
    end=(),
    turns={
        "user": Turn((Size(ASKED, PATCH),), (TURN_END,)),
        "assistant": Turn((), (TURN_END,)),
    },
    reply=(),
    stops=(TURN_END, END),
    image=ImageLayout(
        opening=(Special("<racm3:break>"), Side("height", SIZE, STEP), Side("width", SIZE, STEP)),
        row_end=Special("<reserved08799>"),
        closing=(Special("<eoss>"),),
    ),
    unconditional=Unconditional("prompt"),
    joined=True,
    replies=("image",),
)
READING = replace(
    DRAWING,
    turns={role: Turn((), (TURN_END,)) for role in ("user", "assistant")},
    replies=("image", "text"),
    drawing=DRAWING,
)
TARGETS = (768, 512)
"""Sides of squares, in pixels, of whose area images are: the first that the context has room for.
The authors' third, 1024, is asked for as a size: files do not say for which they were trained."""
ROOM = 512  # tokens of a request
SAMPLING = Sampling(image_top_k=2000, guidance=4.0, max_text_tokens=512, max_images=1)


class LuminaCodes(NextCode):
    """LuminaCodes are codes in the layout of Lumina-mGPT."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.inputs = NextCodeInputs(READING)


def is_lumina(raw: dict[str, Any]) -> bool:
    """Return whether a config.json of a chameleon is that of a Lumina-mGPT."""
    return any(CLASS.match(str(one)) for one in raw.get("architectures") or ())


def plan(directory: Path, chameleon: Plan, patch: int) -> Plan:
    """Return the plan of a Lumina-mGPT, whose files are read as those of a Chameleon.

    patch: the pixels of a code in each direction. Raise CheckpointError with all problems.
    """
    if patch != PATCH:
        problem = f"a code of {patch} x {patch} pixels: requests say sizes for {PATCH} x {PATCH}"
        raise CheckpointError(directory / "config.json", [problem])
    architecture = chameleon.architecture
    spellings = Spellings.read(directory, architecture.transformer.num_ids)
    target = target_of(architecture.transformer.max_positions)
    special = spellings.special_tokens((READING, DRAWING), "<pad>") | dict(_sizes(spellings))
    sides = {side // (STEP * PATCH) for size in bucket_sizes(target, STEP * PATCH) for side in size}
    if missing := sorted(side for side in sides if f"{SIZE}{side}" not in special):
        said = ", ".join(map(_spelled, missing))
        raise CheckpointError(spellings.path, [f"it lacks the special tokens {said}"])
    return replace(
        chameleon,
        architecture=replace(
            architecture,
            vocabulary=replace(architecture.vocabulary, special_tokens=special),
            image=replace(architecture.image, head=f"{__name__}:{LuminaCodes.__name__}"),
        ),
        sampling=SAMPLING,
        grid=Grid(target // PATCH, target // PATCH),
        fit=BucketFit(target, STEP * PATCH),
    )


def target_of(context: int) -> int:
    """Return the side of the square that is drawn where the context has so many tokens."""
    for target in TARGETS[:-1]:
        side = target // PATCH
        if DRAWING.image.length(Grid(side, side)) + ROOM <= context:
            return target
    return TARGETS[-1]


def _sizes(spellings: Spellings) -> Iterator[tuple[str, int]]:
    """Yield our name and the id of each token that says a side."""
    for side in range(1, MAX_SIDE + 1):
        if (spelling := _spelled(side)) in spellings.ids:
            yield f"{SIZE}{side}", spellings.id(spelling)


def _spelled(side: int) -> str:
    return f"<reserved{8800 + side:05d}>"
