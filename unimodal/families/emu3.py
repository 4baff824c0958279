"""Emu3: a Llama whose vocabulary holds 32,768 image codes (Wang et al., arXiv:2409.18869).

Chat answers questions about images; Gen draws. Both have one `model_type`, and are told apart by
their context: Chat has 131,072 positions, Gen 9,216. Prompts are those of the authors' processor
(processing_emu3.py), not of the hub's chat template, which lacks the full stop before ASSISTANT.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture, ImageConfig
from ..heads.next_code import NextCode, NextCodeInputs
from ..hub.checkpoint import CheckpointError, raw_config, transformer_config, understood
from ..hub.image_checkpoint import read_image_config
from ..layout import ImageLayout, Layout, Side, Special, Turn, Unconditional
from ..sampling import Sampling
from .fits import AreaFit
from .plan import Plan, section
from .spellings import Spellings, code_runs

BEGIN, END = Special("<|extra_203|>"), Special("<|extra_204|>")
PAD = "<|endoftext|>"
CODE = re.compile(r"<\|visual token (\d+)\|>")
# The authors' own words around a request to draw, and those that guidance leads away from
# (inference.py of the repository baaivision/Emu3).
PRAISE = " masterpiece, film grained, best quality."
NEGATIVE = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, "
    "cropped, worst quality, low quality, normal quality, jpeg artifacts, signature, watermark, "
    "username, blurry."
)
IMAGE = ImageLayout(
    opening=(
        Special("<|image start|>"), Side("height"), "*", Side("width"), Special("<|image token|>")
    ),
    row_end=Special("<|extra_200|>"),
    closing=(Special("<|extra_201|>"), Special("<|image end|>")),
    ends_reply=True,
)  # fmt: skip
CHAT = Layout(
    begin=(BEGIN, "You are a helpful assistant."),
    end=(),
    turns={
        "user": Turn((" USER: ",), (". ",)),
        "assistant": Turn(("ASSISTANT:",), (END,)),
    },
    reply=("ASSISTANT:",),
    stops=(END,),
    image=IMAGE,
    unconditional=Unconditional("null"),
    joined=True,
    replies=("text",),
)
DRAWING = replace(
    CHAT,
    begin=(BEGIN,),
    turns={"user": Turn((), (PRAISE,)), "assistant": Turn((), (END,))},
    reply=(),
    unconditional=Unconditional("prompt", (BEGIN, NEGATIVE)),
    replies=("image",),
)
GEN = replace(CHAT, replies=("image", "text"), drawing=DRAWING)
"""Of Gen and Stage1: they draw; words alone, which Gen was not trained on, must be asked for."""
MOST_DRAWING_POSITIONS = 9216
DRAWN = Grid(90, 90)  # of 720 x 720 pixels, the authors' default
SAMPLING = Sampling(image_top_k=2048, guidance=3.0, max_text_tokens=1024, max_images=1)
WIDEST = 5.0
PREFIXES = (
    ("model.vqmodel.", None),
    ("vqmodel.", None),
    ("model.text_model.", "model."),
    ("text_model.model.", "model."),  # in older files
    ("text_model.lm_head.", "lm_head."),
)


class ChatCodes(NextCode):
    """ChatCodes are codes in the layout of Emu3-Chat."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.inputs = NextCodeInputs(CHAT)


class GenCodes(NextCode):
    """GenCodes are codes in the layout of Emu3-Gen."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.inputs = NextCodeInputs(GEN)


def plan(directory: Path) -> Plan:
    """Return the plan of an Emu3 in a directory; raise CheckpointError with all problems."""
    path = directory / "config.json"
    raw = raw_config(path)
    theirs = understood(path, raw).text_config
    text = section(path, raw, "text_config")
    transformer = transformer_config(path, raw | text, theirs)
    image = read_image_config(directory).config
    spellings = Spellings.read(directory, transformer.num_ids)
    codes = code_runs(spellings.codes(CODE, image.num_codes))
    vocabulary = spellings.vocabulary((CHAT, DRAWING), PAD, codes)
    head = GenCodes if transformer.max_positions <= MOST_DRAWING_POSITIONS else ChatCodes
    return Plan(
        architecture=Architecture(
            replace(transformer, tied_head=False),
            vocabulary,
            ImageConfig(head=f"{__name__}:{head.__name__}"),
        ),
        prefixes=PREFIXES,
        sampling=SAMPLING,
        grid=DRAWN,
        fit=_fit(directory, image.patch),
    )


def _fit(directory: Path, patch: int) -> AreaFit:
    """Return the rule of the image processor's file; the authors' own where there is none."""
    path, said = directory / "preprocessor_config.json", {}
    if path.is_file():
        said = raw_config(path)
    elif (directory / "processor_config.json").is_file():  # as newer versions write it
        path = directory / "processor_config.json"
        said = section(path, {"image_processor": {}} | raw_config(path), "image_processor")
    fit = AreaFit(
        said.get("min_pixels", 512 * 512), said.get("max_pixels", 1024 * 1024), patch, WIDEST
    )
    if problems := [*_pixel_problems(said), *fit.problems()]:
        raise CheckpointError(path, problems)
    return fit


def _pixel_problems(said: dict[str, Any]) -> Iterator[str]:
    """Yield where pixels would not come to lie in [-1, 1], as the authors' tokenizer has them."""
    for name in ("image_mean", "image_std"):
        if said.get(name, [0.5] * 3) != [0.5] * 3:
            yield f"{name} {said[name]}: the authors' is [0.5, 0.5, 0.5]; set it so in the file"
