"""Janus-Pro and Janus: a Llama that sees by SigLIP and draws codes of a space of their own.

Chen et al., "Janus-Pro" (arXiv:2501.17811); Wu et al., "Janus" (arXiv:2410.13848). An image that is
given enters as soft vectors of its vision tower, one that is drawn as codes, by their own
embedding; codes are scored by a head of their own. Prompts are those of the authors'
conversation.py and generation_inference.py; roles are Janus-Pro's (Janus-1.3B says "User" without a
mark).

Letters: B rows, T tokens, N tokens of all rows, D width, M targets, C codes, R requests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..architecture import Architecture, ImageConfig
from ..code_levels import codes_of
from ..embedder import ImageEmbedder, ModelInput
from ..heads.head import Draw, Drawing, ImageHead, guided, targets_of
from ..heads.next_code import NextCodeInputs, draw_in_order
from ..hub.checkpoint import CheckpointError, raw_config, transformer_config, understood
from ..hub.image_checkpoint import read_image_config
from ..layout import ImageLayout, Layout, SoftLayout, Special, Turn, Unconditional
from ..products import Linear
from ..sampling import Sampling, log_probability, pick
from ..sequence import IMAGE, Batch
from ..tower import PROJECTOR, Tower, TowerNetwork
from ..tower_embedder import Projector
from .fits import PadFit
from .plan import Plan, fixed, section
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
    soft=SoftLayout((IMAGE_BEGIN,), PLACE, (IMAGE_END, "\n")),
    replies=("text", "image"),
    drawing=DRAWING,
)
SAMPLING = Sampling(guidance=5.0, max_text_tokens=512, max_images=1)
VISION = "model.vision_model."
PREFIXES = (
    ("model.vqmodel.", None),
    ("model.language_model.", "model."),
    ("model.aligner.fc1.", f"{PROJECTOR}first."),
    ("model.aligner.hidden_layers.0.", f"{PROJECTOR}second."),
    ("model.generation_embeddings.", "embedder.codes."),
    ("model.generation_aligner.fc1.", "embedder.projector.first."),
    ("model.generation_aligner.hidden_layers.0.", "embedder.projector.second."),
    ("model.generation_head.", "head."),
)


class JanusEmbedder(ImageEmbedder):
    """A JanusEmbedder gives codes the vectors of a table of their own, through a projector."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        code_width, vocabulary = architecture.image.code_width, architecture.vocabulary
        if code_width < 1:
            raise ValueError("image head janus: image.code_width, at least 1, is missing")
        self.runs = vocabulary.code_runs
        self.codes = nn.Embedding(vocabulary.num_codes, code_width)
        self.projector = Projector(code_width, architecture.transformer.width)

    def products(self, tokens: ModelInput) -> int:
        """Return how many multiplications `forward` takes: it projects a vector for each token."""
        return tokens.ids.numel() * sum(
            one.weight.numel() for one in (self.projector.first, self.projector.second)
        )

    def forward(self, x_BTD: Tensor, tokens: ModelInput) -> Tensor:
        """Return x_BTD with the vectors of codes in their places."""
        codes_BT = codes_of(tokens.ids, self.runs)
        is_code_BT = codes_BT >= 0
        codes_BTD = self.projector(self.codes(codes_BT.masked_fill(~is_code_BT, 0)))
        return torch.where(is_code_BT[..., None], codes_BTD.to(x_BTD.dtype), x_BTD)


class JanusHead(ImageHead):
    """A JanusHead scores codes by two layers of its own, each from the codes before it."""

    code_rows = False
    follows = (*ImageHead.follows, "guidance_interval")

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        width, vocabulary = architecture.transformer.width, architecture.vocabulary
        self.inputs = NextCodeInputs(READING)
        self.runs, self.num_targets = vocabulary.code_runs, vocabulary.num_codes + width
        self.proj_out = Linear(width, width)
        self.vision_head = Linear(width, vocabulary.num_codes)

    @classmethod
    def embedder(cls, architecture: Architecture) -> ImageEmbedder:
        """Return the embedder of codes."""
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
        return draw_in_order(drawing, pick_codes, 1)


def pick_codes(
    head: JanusHead,
    table_VD: Tensor,
    hidden: Sequence[Tensor],
    settings: tuple[float, int | None, float | None],
    args: Sequence[tuple[list[float], float | None]],
) -> list[int]:
    """Sample the next code of each request; the `look` of an Ask, as that of next_code."""
    last_BD = torch.cat([branch_R1D[:, -1] for branch_R1D in hidden])
    logits_RC = guided(head.logits(last_BD), len(hidden), args)
    uniform_R = torch.tensor([u for (u,), _ in args], dtype=torch.float64, device=logits_RC.device)
    return pick(logits_RC, uniform_R, *settings).tolist()


def plan(directory: Path) -> Plan:
    """Return the plan of a Janus in a directory; raise CheckpointError with all problems."""
    path = directory / "config.json"
    raw = raw_config(path)
    theirs = understood(path, raw)
    text = section(path, raw, "text_config")
    transformer = transformer_config(path, raw | text, theirs.text_config)
    image = read_image_config(directory).config
    tower = _tower(theirs.vision_config)
    problems = [*_problems(theirs, transformer.width), *tower.network.problems()]
    if problems := [*problems, *tower.problems()]:
        raise CheckpointError(path, problems)
    # Codes are no ids of Janus: they get those behind all of its text.
    codes = ((transformer.num_ids, image.num_codes),)
    spellings = Spellings.read(directory, transformer.num_ids)
    vocabulary = spellings.vocabulary((READING, DRAWING), PAD, codes)
    return Plan(
        architecture=Architecture(
            replace(transformer, tied_head=False),
            vocabulary,
            ImageConfig(
                head=f"{__name__}:{JanusHead.__name__}",
                code_rows=False,
                code_width=theirs.vq_config.embed_dim,
                tower=tower,
            ),
        ),
        prefixes=PREFIXES,
        sampling=SAMPLING,
        grid=image.grid_of(tower.side, tower.side),
        fit=PadFit(tower.side),
        tower=VISION,
    )


def _tower(vision: Any) -> Tower:
    """Return the SigLIP that it sees with, whose pixels lie in [-1, 1]."""
    network = TowerNetwork(
        kind="siglip",
        width=vision.hidden_size,
        patch=vision.patch_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_width=int(vision.hidden_size * vision.mlp_ratio),
        stored_side=vision.image_size // vision.patch_size,
        activation=vision.hidden_act,
        norm_eps=vision.layer_norm_eps,
    )
    return Tower(network, vision.image_size, mean=(0.5,) * 3, std=(0.5,) * 3)


def _problems(theirs: Any, width: int) -> Iterator[str]:
    """Yield what our parts cannot be, one sentence each."""
    vision = {
        "attention_bias": True, "use_qk_norm": False, "num_channels": 3, "projection_dim": width,
        "depth": 2,
    }  # fmt: skip
    codes = {
        "hidden_act": "gelu", "projection_dim": width, "image_token_embed_dim": width,
        "num_hidden_layers": 2,
    }  # fmt: skip
    yield from fixed(theirs.vision_config, vision, "vision_config")
    yield from fixed(theirs.vq_config, codes, "vq_config")
