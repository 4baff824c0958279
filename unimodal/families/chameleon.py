"""Chameleon, which reads images and answers, and Anole, which draws them too.

Chameleon Team, arXiv:2405.09818; Chern et al., "Anole", arXiv:2407.06135. Both have one
`model_type`. The published Chameleon has no decoder and was never trained to draw, so a checkpoint
without a decoder answers in words alone; with one (`model.vqmodel.decoder.*`) it draws, of its own
accord or where an image is asked for. Turns end as in Lumina-mGPT, which is made of Chameleon: what
stands between an answer and the next question is not in Chameleon's published code. Lumina-mGPT
itself has that `model_type` too (lumina.py).
"""

import re
from dataclasses import replace
from pathlib import Path

from ..architecture import Architecture, ImageConfig
from ..heads.next_code import NextCode, NextCodeInputs
from ..hub.checkpoint import CheckpointError, raw_config, transformer_config, understood
from ..hub.image_checkpoint import read_image_config
from ..layout import ImageLayout, Layout, Special, Turn, Unconditional
from ..sampling import Sampling
from . import lumina
from .fits import CropFit
from .plan import Plan
from .spellings import Spellings, code_runs

# By spelling: bos_token_id in config.json says 1, which is the id of <pad>.
BEGIN, END, PAD = Special("<s>"), Special("</s>"), "<pad>"
TURN_END = Special("<reserved08706>")
CODE = re.compile(r"IMGIMG([A-J]+)Z")
DIGITS = str.maketrans("ABCDEFGHIJ", "0123456789")
LAYOUT = Layout(
    begin=(BEGIN,),
    end=(),
    turns={role: Turn((), (TURN_END,)) for role in ("user", "assistant")},
    reply=(),
    stops=(END, TURN_END),
    image=ImageLayout(opening=(Special("<racm3:break>"),), closing=(Special("<eoss>"),)),
    unconditional=Unconditional("images", (BEGIN,)),
)
SAMPLING = Sampling(
    image_temperature=0.7, image_top_p=0.9, guidance=3.0, image_guidance=1.2, max_text_tokens=512
)
PREFIXES = (("model.vqmodel.", None), ("vqmodel.", None))


class ChameleonCodes(NextCode):
    """ChameleonCodes are codes in the layout of Chameleon, with guidance toward images too."""

    follows = (*NextCode.follows, "image_guidance")

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.inputs = NextCodeInputs(LAYOUT)


def plan(directory: Path) -> Plan:
    """Return the plan of a Chameleon, an Anole or a Lumina-mGPT.

    Raise CheckpointError with all problems.
    """
    path = directory / "config.json"
    raw = raw_config(path)
    theirs = understood(path, raw)
    transformer = transformer_config(path, raw, theirs)
    image = read_image_config(directory).config
    height, width = image.canvas
    if height != width:
        raise CheckpointError(path, [f"images of {width} x {height} pixels: only squares"])
    spellings = Spellings.read(directory, transformer.num_ids)
    codes = spellings.codes(CODE, image.num_codes, lambda letters: int(letters.translate(DIGITS)))
    found = Plan(
        architecture=Architecture(
            replace(transformer, tied_head=False, head_norms=True, post_norm=theirs.swin_norm),
            spellings.vocabulary((LAYOUT,), PAD, code_runs(codes)),
            ImageConfig(head=f"{__name__}:{ChameleonCodes.__name__}"),
        ),
        prefixes=PREFIXES,
        sampling=SAMPLING,
        grid=image.default_grid,
        fit=CropFit(height),
        per_head=re.compile(r"\.[qk]_norm\.(weight|bias)$"),
    )
    return lumina.plan(directory, found, image.patch) if lumina.is_lumina(raw) else found
