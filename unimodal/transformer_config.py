"""The configuration of a transformer: its shape, and which optional parts it has."""

from dataclasses import dataclass
from typing import Literal

from .mlp import Activation, ExpertsConfig
from .rope import RopeKind, RopeScaling

BEFORE, BEHIND = "input_layernorm", "post_attention_layernorm"
# The norms of a layer by name: before attention, behind it, before the MLP, behind it.
NORMS = {
    "before": (BEFORE, None, BEHIND, None),
    "behind": (None, BEHIND, None, "post_feedforward_layernorm"),
    "around": (BEFORE, BEHIND, "pre_feedforward_layernorm", "post_feedforward_layernorm"),
}
CHAMELEON_NORMS = (None, BEFORE, None, BEHIND)  # of post_norm


@dataclass(frozen=True)
class TransformerConfig:
    """A TransformerConfig determines the parameters of a transformer and how it computes.

    Raises ValueError, naming every problem at once.
    """

    num_ids: int
    """The number of rows of the embedding: text, special tokens and image codes together."""
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """The number of key-value heads, each shared by num_heads / num_kv_heads query heads."""
    head_width: int
    mlp_width: int
    rope_theta: float = 10000.0
    """The base of RoPE: wavelengths go from 2 pi to 2 pi * rope_theta positions."""
    norm_eps: float = 1e-5
    qk_norm: bool = False
    """Whether each head's queries and keys pass an RMSNorm before the rotation (as in Qwen3)."""
    attention_bias: bool = False
    """Whether the query, key and value projections have biases (as in Qwen2)."""
    tied_head: bool = True
    """Whether the output table is the embedding table."""
    max_positions: int = 2048
    """The longest sequence that the model is meant for, in tokens."""
    rope: RopeScaling | None = None
    """How RoPE was scaled to a longer context; None: not at all."""
    head_norms: bool = False
    """Whether each head's queries and keys pass a LayerNorm of that head's own weights and biases
    before the rotation (as in Chameleon)."""
    post_norm: bool = False
    """Whether attention and MLP are normalised behind, not before, themselves (as in Chameleon-30B,
    where it is called swin norm)."""
    residual_lambdas: bool = False
    """Whether each layer reads a learned mix of the residual stream and the embeddings that it
    began as (modded-nanogpt), and projections into the stream begin at zero."""
    value_embeddings: bool = False
    """Whether every second layer, the last one among them, adds an embedding of each token's id to
    its values, from a table of its own (modded-nanogpt, nanochat)."""
    joint_qk_norm: bool = False
    """Whether the queries of all heads together, and the keys, pass an RMSNorm before the rotation
    (as in OLMo-2)."""
    norm_places: Literal["before", "behind", "around"] = "before"
    """Where attention and MLP are normalised: before themselves, behind (as in OLMo-2), or both (as
    in Gemma-3)."""
    centred_norms: bool = False
    """Whether an RMSNorm multiplies by 1 + weight (as in Gemma)."""
    scaled_embedding: bool = False
    """Whether the stream begins as the embeddings times sqrt(width) (as in Gemma)."""
    activation: Activation = "silu"
    """The activation of the MLPs' gates: silu, or gelu_tanh (as in Gemma)."""
    rope_layers: tuple[RopeKind, ...] = ()
    """The rotation of each layer: full; local, by local_rope_theta without scaling (as in Gemma-3);
    or none (as in SmolLM3). (): full in all layers."""
    local_rope_theta: float = 10000.0
    rotary_width: int | None = None
    """How many channels of a head, the first ones, are rotated (as in Phi-4-mini); None: all."""
    score_width: int | None = None
    """Scores are q k / sqrt(score_width) (as in Gemma); None: head_width."""
    query_beta: float | None = None
    """Queries at position p are multiplied by 1 + query_beta ln(1 + floor(p /
    rope.original_positions)) (as in Ministral-3); None: they are not."""
    experts: ExpertsConfig | None = None
    """The experts of the layers (as in Qwen3-MoE); None: each layer has one MLP."""
    joined_export: bool = False
    """Whether queries, keys and values, and gate and up, are one matrix each in an export (as in
    Phi-3); here they are not."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be above 0, got {value}"
            for name, value in vars(self).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0
        ]
        if self.rope is not None:
            problems += [f"rope.{problem}" for problem in self.rope.problems()]
        if self.num_kv_heads > 0 and self.num_heads % self.num_kv_heads:
            problems.append(
                f"num_kv_heads must divide num_heads, got {self.num_kv_heads} and {self.num_heads}"
            )
        if self.experts is not None:
            problems += [f"experts.{problem}" for problem in self.experts.problems()]
        if self.head_norms + self.qk_norm + self.joint_qk_norm > 1:
            problems.append("qk_norm, joint_qk_norm and head_norms: one of them")
        if self.post_norm and self.norm_places != "before":
            problems.append("post_norm and norm_places: one of them")
        if self.rope_layers and len(self.rope_layers) != self.num_layers:
            problems.append(
                f"rope_layers has {len(self.rope_layers)} entries for {self.num_layers} layers"
            )
        rotated = self.rotary_width or self.head_width
        if rotated % 2 or rotated > self.head_width:
            problems.append(f"rotary_width {rotated}: even, and at most head_width")
        if self.rope is not None and self.rope.factors and len(self.rope.factors) != rotated // 2:
            problems.append(
                f"rope.factors has {len(self.rope.factors)} numbers for {rotated // 2} pairs"
            )
        if self.query_beta is not None and self.rope is None:
            problems.append("query_beta needs rope.original_positions, and rope is null")
        if self.head_width % 2:
            problems.append(f"head_width must be even (RoPE turns pairs), got {self.head_width}")
        if problems:
            raise ValueError("transformer: " + "; ".join(problems))

    @property
    def layer_ropes(self) -> tuple[RopeKind, ...]:
        """Return the rotation of each layer."""
        full: RopeKind = "full"
        return self.rope_layers or (full,) * self.num_layers

    @property
    def value_layers(self) -> range:
        """Return the layers that have value embeddings."""
        last = self.num_layers - 1
        return range(last % 2, self.num_layers, 2) if self.value_embeddings else range(0)

    @property
    def norm_names(self) -> tuple[str | None, ...]:
        """Return the names of a layer's norms: before attention, behind it, before the MLP, behind
        it; None where there is none.
        """
        return CHAMELEON_NORMS if self.post_norm else NORMS[self.norm_places]
