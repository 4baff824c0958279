"""Liquid: a Gemma whose vocabulary holds Chameleon's image codes (Wu et al., arXiv:2412.04332).

Its files say `model_type` gemma, as those of a plain Gemma do. It is told apart by rows of the
embedding behind the last id of tokenizer.json, one for each image code: so its authors number codes
too (repository FoundationVision/Liquid). Its files hold no image tokenizer: the tensors of
Chameleon's VQGAN are put beside the others once, as `model.vqmodel.*`.
"""

from dataclasses import replace
from pathlib import Path

from ..architecture import Architecture, ImageConfig
from ..heads.next_code import NextCode, NextCodeInputs
from ..hub.checkpoint import CheckpointError, raw_config, transformer_config, understood
from ..hub.image_checkpoint import read_image_config
from ..layout import ImageLayout, Layout, Special, Turn, Unconditional
from ..sampling import Sampling
from .fits import SquareFit
from .plan import Plan
from .spellings import FILE, Spellings

BEGIN, END, PAD = Special("<bos>"), Special("<eos>"), "<pad>"
TURN, TURN_END = Special("<start_of_turn>"), Special("<end_of_turn>")
IMAGE_BEGIN, IMAGE_END = Special("<boi>"), Special("<eoi>")
ASKED = " Generate an image based on this description."
DRAWING = Layout(
    begin=(BEGIN,),
    end=(),
    turns={"user": Turn((), (ASKED,)), "assistant": Turn((), (END,))},
    reply=(),
    stops=(END, TURN_END),
    image=ImageLayout(opening=(IMAGE_BEGIN,), closing=(IMAGE_END,), ends_reply=True),
    unconditional=Unconditional("prompt", (BEGIN, Special("<unconditional>"))),
    joined=True,
    replies=("image",),
)
READING = replace(
    DRAWING,
    turns={
        "user": Turn((TURN, "user\n"), (TURN_END, "\n")),
        "assistant": Turn((TURN, "model\n"), (TURN_END, "\n")),
    },
    reply=(TURN, "model\n"),
    image=replace(DRAWING.image, closing=(IMAGE_END, "\n")),
    replies=("text", "image"),
    drawing=DRAWING,
)
SAMPLING = Sampling(
    image_temperature=0.99, image_top_k=4096, image_top_p=0.96, guidance=7.0, max_text_tokens=512,
    max_images=1,
)  # fmt: skip
PREFIXES = (("model.vqmodel.", None), ("vqmodel.", None))


class LiquidCodes(NextCode):
    """LiquidCodes are codes in the layout of Liquid."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.inputs = NextCodeInputs(READING)


def is_liquid(directory: Path) -> bool:
    """Return whether a gemma in a directory has rows behind the last id of its tokenizer.json, one
    for each image code; raise CheckpointError where its small files cannot be read.
    """
    path = directory / "config.json"
    num_ids = understood(path, raw_config(path)).vocab_size
    if not (directory / FILE).is_file():  # its text tokenizer is a sentencepiece model
        return False
    num_codes = read_image_config(directory).config.num_codes
    return Spellings.read(directory, num_ids).num_spelled + num_codes == num_ids


def plan(directory: Path) -> Plan:
    """Return the plan of a Liquid in a directory; raise CheckpointError with all problems."""
    path = directory / "config.json"
    raw = raw_config(path)
    transformer = transformer_config(path, raw, understood(path, raw))
    image = read_image_config(directory).config
    height, width = image.canvas
    if height != width:
        raise CheckpointError(path, [f"images of {width} x {height} pixels: only squares"])
    spellings = Spellings.read(directory, transformer.num_ids)
    first = spellings.num_spelled
    if first + image.num_codes != transformer.num_ids:
        problem = (
            f"vocab_size {transformer.num_ids:,}: a Liquid has {image.num_codes:,} rows for image "
            f"codes behind the {first:,} ids of {FILE}; a plain gemma draws nothing before "
            "`unimodal grow`"
        )
        raise CheckpointError(path, [problem])
    return Plan(
        architecture=Architecture(
            replace(transformer, tied_head=False),
            spellings.vocabulary((READING, DRAWING), PAD, ((first, image.num_codes),)),
            ImageConfig(head=f"{__name__}:{LiquidCodes.__name__}"),
        ),
        prefixes=PREFIXES,
        sampling=SAMPLING,
        grid=image.default_grid,
        fit=SquareFit(height),
    )
