"""Janus-Pro and Janus: a Llama that sees by SigLIP and draws codes of a space of their own.

Chen et al., "Janus-Pro" (arXiv:2501.17811); Wu et al., "Janus" (arXiv:2410.13848). An image that is
given enters as vectors of its vision encoder, one that is drawn as codes, by their own embedding;
codes are scored by a head of their own. Prompts are those of the authors' conversation.py and
generation_inference.py; roles are Janus-Pro's (Janus-1.3B says "User" without a mark).

Letters: B rows, T tokens, P images, N patches, D width, M targets, C codes, R requests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimodal.tokenizer.grid import Grid

from ..architecture import Architecture, ImageConfig
from ..code_levels import codes_of
from ..document import Image
from ..embedder import ImageEmbedder, ModelInput
from ..heads.head import Draw, Drawing, ImageHead, ImageTokens, guided, targets_of
from ..heads.next_code import NextCodeInputs, draw_in_order
from ..hub.checkpoint import CheckpointError, raw_config, transformer_config, understood
from ..hub.image_checkpoint import read_image_config
from ..layout import BoundLayout, ImageLayout, Layout, Special, Turn, Unconditional
from ..sampling import Sampling, log_probability, pick
from ..sequence import IMAGE, Batch, Span, placed_spans
from ..vocabulary import Vocabulary
from .fits import PadFit
from .janus_config import JanusConfig
from .plan import Plan, fixed, section
from .siglip import Aligner, VisionModel
from .spellings import Spellings

BEGIN, END = Special("<｜begin▁of▁sentence｜>"), Special("<｜end▁of▁sentence｜>")
PAD, PLACE = "<｜▁pad▁｜>", Special("<image_placeholder>")
IMAGE_BEGIN, IMAGE_END = Special("<begin_of_image>"), Special("<end_of_image>")
USER, ASSISTANT = Special("<|User|>"), Special("<|Assistant|>")
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
DRAWING = Layout(
    begin=(BEGIN,),
    end=(),
    turns={
        "user": Turn((USER, ": "), ("\n\n",)),
        "assistant": Turn((ASSISTANT, ":"), (END,)),
    },
    reply=(ASSISTANT, ":"),
    stops=(END,),
    image=ImageLayout(opening=(IMAGE_BEGIN,), ends_reply=True),
    unconditional=Unconditional("masked", (Special("pad"),)),
    joined=True,
    replies=("image",),
)
READING = replace(
    DRAWING,
    begin=(BEGIN, f"{SYSTEM}\n\n"),
    image=ImageLayout(opening=(IMAGE_BEGIN,), closing=(IMAGE_END, "\n")),
    replies=("text", "image"),
    drawing=DRAWING,
)
SAMPLING = Sampling(guidance=5.0, max_text_tokens=512, max_images=1)
PREFIXES = (
    ("model.vqmodel.", None),
    ("model.language_model.", "model."),
    ("model.vision_model.", "embedder.vision."),
    ("model.aligner.", "embedder.aligner."),
    ("model.generation_embeddings.", "embedder.codes."),
    ("model.generation_aligner.", "embedder.code_aligner."),
    ("model.generation_head.", "head."),
)


@dataclass(frozen=True)
class JanusInputs(NextCodeInputs):
    """JanusInputs lay out an image that is seen as a place for each of its vectors, and one that is
    drawn as its codes.
    """

    layout: Layout = READING

    def __call__(
        self, layout: BoundLayout, image: Image, learned: bool, key: tuple[int, ...]
    ) -> ImageTokens:
        """Return the tokens of an image; raise ValueError where one that is seen has no pixels."""
        if layout.layout.drawing is None:
            return super().__call__(layout, image, learned, key)
        if image.pixels is None:
            raise ValueError("Janus sees an image by its pixels, and these are missing: decode it")
        assert image.grid is not None, "an encoded image has a grid"
        opening, n = layout.opening(image.grid), layout.content_length(image.grid)
        ids = [*opening, *[layout.vocabulary.special(PLACE.name)] * n, *layout.closing]
        span = Span(len(opening), len(opening) + n, image.grid, pixels=image.pixels)
        return ImageTokens.causal(ids, np.zeros(len(ids)), spans=(span,))


class JanusEmbedder(ImageEmbedder):
    """A JanusEmbedder gives places of seen images their vectors, and codes theirs."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        config, width = _config_of(architecture), architecture.transformer.width
        self.runs = architecture.vocabulary.code_runs
        self.vision = VisionModel(config)
        self.aligner = Aligner(config.width, width, config.depth)
        self.codes = nn.Embedding(architecture.vocabulary.num_codes, config.code_width)
        self.code_aligner = Aligner(config.code_width, width, config.code_depth)

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD with the vectors of codes and of seen images in their places."""
        codes_BT = codes_of(tokens.ids, self.runs)
        is_code_BT = codes_BT >= 0
        codes_BTD = self.code_aligner(self.codes(codes_BT.masked_fill(~is_code_BT, 0)))
        x_BTD = torch.where(is_code_BT[..., None], codes_BTD.to(x_BTD.dtype), x_BTD)
        seen = [(row, span) for row, span in placed_spans(tokens.spans) if span.pixels is not None]
        if seen:
            pixels_PHW3 = np.stack([span.pixels for _, span in seen if span.pixels is not None])
            vectors_PND = self.see(torch.from_numpy(pixels_PHW3).to(x_BTD.device))
            for (row, span), vectors_ND in zip(seen, vectors_PND, strict=True):
                x_BTD[row, span.start : span.stop] = vectors_ND.to(x_BTD.dtype)
        return x_BTD

    def see(self, pixels_PHW3: Tensor) -> Tensor:
        """Return the vectors of images, (P, N, D), from their pixels, uint8."""
        images_P3HW = (pixels_PHW3.float() / 127.5 - 1).permute(0, 3, 1, 2)
        return self.aligner(self.vision(images_P3HW))


class JanusHead(ImageHead):
    """A JanusHead scores codes by two layers of its own, each from the codes before it."""

    code_rows = False

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        width, vocabulary = architecture.transformer.width, architecture.vocabulary
        self.inputs = JanusInputs()
        self.runs, self.num_targets = vocabulary.code_runs, vocabulary.num_codes + width
        self.proj_out = nn.Linear(width, width)
        self.vision_head = nn.Linear(width, vocabulary.num_codes)

    @classmethod
    def embedder(cls, architecture: Architecture) -> ImageEmbedder:
        """Return the embedder of seen images and of codes."""
        return JanusEmbedder(architecture)

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Return the logits of all codes, (M, C)."""
        return self.vision_head(F.gelu(self.proj_out(hidden_MD)))

    def forward(
        self, hidden_ND: Tensor, table_VD: Tensor, batch: Batch, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return the cross entropy of the codes."""
        at_M, weights_M = targets_of(batch, IMAGE)
        codes_M = codes_of(batch.labels.flatten()[at_M], self.runs)
        losses_M = F.cross_entropy(self.logits(hidden_ND[at_M]).float(), codes_M, reduction="none")
        return (scale * weights_M * losses_M).sum(), losses_M.detach()

    def log_probability(
        self, hidden_MD: Tensor, table_VD: Tensor, ids_M: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of codes; see ImageHead.log_probability."""
        return log_probability(self.logits(hidden_MD), codes_of(ids_M, self.runs))

    def draw(self, drawing: Drawing) -> Draw:
        """Draw code by code; see draw_in_order."""
        return draw_in_order(drawing, pick_codes, drawing.noise)


def pick_codes(
    head: JanusHead,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None],
    args: Sequence[tuple[float, float | None]],
) -> list[int]:
    """Sample the next code of each request; the `look` of an Ask, as that of next_code."""
    last_BD = torch.cat([branch_R1D[:, -1] for branch_R1D in hidden])
    logits_RC = guided(head.logits(last_BD), len(hidden), args)
    uniform_R = torch.tensor([u for u, _ in args], dtype=torch.float64, device=logits_RC.device)
    return pick(logits_RC, uniform_R, *settings).tolist()


def _config_of(architecture: Architecture) -> JanusConfig:
    if architecture.image.janus is None:
        raise ValueError("image head janus: image.janus, the sizes of its parts, is missing")
    return architecture.image.janus


def plan(directory: Path) -> Plan:
    """Return the plan of a Janus in a directory; raise CheckpointError with all problems."""
    path = directory / "config.json"
    raw = raw_config(path)
    theirs = understood(path, raw)
    text = section(path, raw, "text_config")
    transformer = transformer_config(path, raw | text, theirs.text_config)
    image = read_image_config(directory).config
    parts = _parts(theirs)
    grid = image.grid_of(parts.side, parts.side)
    if problems := [*_problems(theirs, transformer.width), *_grid_problems(parts, grid)]:
        raise CheckpointError(path, problems)
    special = Spellings.read(directory).special_tokens((READING, DRAWING), PAD, (PLACE.name,))
    # Codes are no ids of Janus: they get those behind all of its text.
    vocabulary = Vocabulary(transformer.num_ids, special, ((transformer.num_ids, image.num_codes),))
    return Plan(
        architecture=Architecture(
            replace(transformer, tied_head=False),
            vocabulary,
            ImageConfig(head=f"{__name__}:{JanusHead.__name__}", code_rows=False, janus=parts),
        ),
        prefixes=PREFIXES,
        sampling=SAMPLING,
        grid=grid,
        fit=PadFit(parts.side),
    )


def _parts(theirs: Any) -> JanusConfig:
    vision, codes = theirs.vision_config, theirs.vq_config
    return JanusConfig(
        side=vision.image_size,
        patch=vision.patch_size,
        width=vision.hidden_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_width=int(vision.hidden_size * vision.mlp_ratio),
        norm_eps=vision.layer_norm_eps,
        depth=vision.depth,
        code_width=codes.embed_dim,
        code_depth=codes.num_hidden_layers,
    )


def _problems(theirs: Any, width: int) -> Iterator[str]:
    """Yield what our parts cannot be, one sentence each."""
    vision = {
        "hidden_act": "gelu", "attention_bias": True, "use_qk_norm": False, "num_channels": 3,
        "projection_dim": width,
    }  # fmt: skip
    codes = {"hidden_act": "gelu", "projection_dim": width, "image_token_embed_dim": width}
    yield from fixed(theirs.vision_config, vision, "vision_config")
    yield from fixed(theirs.vq_config, codes, "vq_config")


def _grid_problems(parts: JanusConfig, grid: Grid) -> Iterator[str]:
    yield from parts.problems()
    if grid.size != parts.num_vectors:
        yield f"{parts.num_vectors} vectors of an image that is seen, {grid.size} codes of a drawn"
