"""Which optional parts of our transformer each family of Hugging Face has, by `model_type`.

In: a config.json as transformers parses it. Out: the fields of a TransformerConfig that differ from
Llama's; and the other way. Beside these: matrices that a family keeps as one and we as several, and
the nearest family of one that we do not have.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, pairwise
from typing import Any

from ..mlp import ExpertsConfig
from ..tensors import PlannedTensor, StoredTensor
from ..transformer_config import TransformerConfig

Values = dict[str, Any]
OPTIONAL = (
    "qk_norm", "attention_bias", "head_norms", "post_norm", "residual_lambdas", "value_embeddings",
    "joint_qk_norm", "norm_places", "centred_norms", "scaled_embedding", "activation",
    "rope_layers", "rotary_width", "score_width", "query_beta", "experts", "joined_export",
)  # fmt: skip
LOCAL = "sliding_attention"  # of layer_types
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True)
class Family:
    """A Family says what its models have that Llama has not."""

    parts: Mapping[str, Any] = field(default_factory=dict)
    """Fields of TransformerConfig, and their values in this family."""
    read: Callable[[Any], Values] = lambda theirs: {}
    """Returns fields whose values the configuration says, as transformers parses it."""
    own: tuple[str, ...] = ()
    """The names of the optional fields among those."""
    write: Callable[[TransformerConfig], Values] = lambda config: {}
    """Returns the keys of config.json that Llama has not."""
    may: tuple[str, ...] = ()
    """The names of optional fields that some of its models have."""


def _phi3(theirs: Any) -> Values:
    width = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    share = theirs.rope_parameters.get("partial_rotary_factor", 1.0)
    return {} if share == 1 else {"rotary_width": int(width * share)}


def _phi3_json(config: TransformerConfig) -> Values:
    share = (config.rotary_width or config.head_width) / config.head_width
    original = config.max_positions if config.rope is None else config.rope.original_positions
    return {
        "sliding_window": None,
        "partial_rotary_factor": share,
        "original_max_position_embeddings": original,
    }


def _smollm3(theirs: Any) -> Values:
    flags = theirs.no_rope_layers[: theirs.num_hidden_layers]
    return {"rope_layers": tuple("full" if is_rotated else "none" for is_rotated in flags)}


def _smollm3_json(config: TransformerConfig) -> Values:
    return {
        "no_rope_layers": [int(kind == "full") for kind in config.rope_layers],
        "use_sliding_window": False,
        "attention_bias": False,
        "mlp_bias": False,
    }


def _ministral3(theirs: Any) -> Values:
    return {"query_beta": theirs.rope_parameters.get("llama_4_scaling_beta")}


def _experts(theirs: Any) -> Values:
    step, dense = theirs.decoder_sparse_step, theirs.mlp_only_layers
    layers = range(theirs.num_hidden_layers)
    experts = ExpertsConfig(
        theirs.num_experts,
        theirs.num_experts_per_tok,
        theirs.moe_intermediate_size,
        theirs.norm_topk_prob,
        tuple(number for number in layers if number in dense or (number + 1) % step),
    )
    return {"experts": experts}


def _experts_json(config: TransformerConfig) -> Values:
    experts = config.experts
    assert experts is not None, "a family with experts has them"
    return {
        "num_experts": experts.number,
        "num_experts_per_tok": experts.chosen,
        "moe_intermediate_size": experts.mlp_width,
        "norm_topk_prob": experts.normalised,
        "mlp_only_layers": list(experts.dense_layers),
        "decoder_sparse_step": 1,
        "attention_bias": False,
        "use_sliding_window": False,
    }


def _gemma3(theirs: Any) -> Values:
    kinds = theirs.layer_types
    positions = theirs.max_position_embeddings
    if LOCAL in kinds:  # where all sequences fit into the window, it hides nothing
        positions = min(positions, theirs.sliding_window)
    return {
        "rope_layers": tuple("local" if kind == LOCAL else "full" for kind in kinds),
        "local_rope_theta": float(theirs.rope_parameters[LOCAL]["rope_theta"]),
        "score_width": theirs.query_pre_attn_scalar,
        "max_positions": positions,
    }


def _gemma3_json(config: TransformerConfig) -> Values:
    kinds = {"local": LOCAL, "full": "full_attention"}
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": config.score_width,
        "layer_types": [kinds[kind] for kind in config.rope_layers],
        "sliding_window": config.max_positions,
        "rope_local_base_freq": config.local_rope_theta,
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": False,
    }


NO_BIASES: Values = {"attention_bias": False, "mlp_bias": False}
GEMMA = {"centred_norms": True, "scaled_embedding": True, "activation": "gelu_tanh"}
FAMILIES = {
    "llama": Family(write=lambda _: NO_BIASES),
    "mistral": Family(write=lambda _: {"sliding_window": None}),
    "qwen2": Family({"attention_bias": True}, write=lambda _: {"use_sliding_window": False}),
    "qwen3": Family(
        {"qk_norm": True}, write=lambda _: {"attention_bias": False, "use_sliding_window": False}
    ),
    "qwen3_moe": Family({"qk_norm": True}, _experts, ("experts",), _experts_json),
    "phi3": Family({"joined_export": True}, _phi3, (), _phi3_json, may=("rotary_width",)),
    "olmo2": Family(
        {"joint_qk_norm": True, "norm_places": "behind"}, write=lambda _: {"attention_bias": False}
    ),
    "smollm3": Family({}, _smollm3, ("rope_layers",), _smollm3_json),
    "ministral3": Family(
        {}, _ministral3, ("query_beta",), lambda _: {"sliding_window": None}
    ),
    "gemma": Family(
        GEMMA, write=lambda _: {"hidden_act": "gelu_pytorch_tanh", "attention_bias": False}
    ),
    "gemma3_text": Family(
        {"qk_norm": True, "norm_places": "around", **GEMMA}, _gemma3,
        ("rope_layers", "score_width"), _gemma3_json,
    ),
}  # fmt: skip
# Whole models that see by a vision tower, and the family of their language models where it is not
# named.
WHOLES = {"gemma3": "gemma3_text", "mistral3": "mistral"}
OF_WHOLE = re.compile(r"(?:model\.)?language_model\.(?:model\.)?")  # a prefix of weights
CLASSES = {
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}  # the others are spelled as the family


def family_of(config: TransformerConfig) -> str:
    """Return the family whose transformer has exactly these parts.

    Raise ValueError where there is none.
    """
    has = {
        name: getattr(config, name)
        for name in OPTIONAL
        if getattr(config, name) != getattr(TransformerConfig, name)
    }
    for name, family in FAMILIES.items():
        if (
            has.keys() - {*family.may} == {*family.parts, *family.own}
            and family.parts.items() <= has.items()
        ):
            # Llama's configuration requires that num_heads divides the width; Mistral's is equal
            # but for that.
            return "mistral" if name == "llama" and config.width % config.num_heads else name
    raise ValueError(f"no family of Hugging Face has {' and '.join(has)}, and nothing else")


# --- language models of whole models -------------------------------------------------------------


def is_whole(raw: Values) -> bool:
    """Return whether a config.json is of a model of which the language model is a part."""
    return raw.get("model_type") in WHOLES and isinstance(raw.get("text_config"), dict)


def language_model(raw: Values) -> Values:
    """Return what a config.json says of the language model: all of it, or a section."""
    if not is_whole(raw):
        return raw
    kept = {key: raw[key] for key in ("quantization_config",) if key in raw}
    return {"model_type": WHOLES[raw["model_type"]], **raw["text_config"], **kept}


def language_weights(weights: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the weights of a whole model's language model by the names that it has alone."""
    found = {}
    for name, place in weights.items():
        own = OF_WHOLE.sub("", name, count=1) if OF_WHOLE.match(name) else name
        if own == "lm_head.weight":
            found[own] = place
        elif own != name:
            found[f"model.{own}"] = place
    return found


# --- matrices that a family keeps as one ---------------------------------------------------------


def parted(
    weights: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, StoredTensor]:
    """Return stored weights where joined matrices are those of our names and shapes: the same bytes
    of the same files, for parts are runs of rows.
    """
    found: dict[str, StoredTensor] = {}
    for name, place in weights.items():
        parts = {one: shapes[one][0] for one in parts_of(name) if one in shapes}
        if not parts or sum(parts.values()) != place.shape[0]:
            found[name] = place  # of no use, and named so by who checks shapes
            continue
        rows = pairwise(accumulate(parts.values(), initial=0))
        row_bytes = (place.stop - place.start) // place.shape[0]
        for part, (first, last) in zip(parts, rows, strict=True):
            start, stop = (place.start + row * row_bytes for row in (first, last))
            shape = (last - first, *place.shape[1:])
            found[part] = replace(place, shape=shape, start=start, stop=stop)
    return found


def joined(planned: list[PlannedTensor]) -> Iterator[PlannedTensor]:
    """Yield tensors to write, where those that a family keeps as one are joined by rows."""
    by_name = {one.name: one for one in planned}
    for one in planned:
        whole = whole_of(one.name)
        if whole is None:
            yield one
        elif one.name == (names := parts_of(whole))[0]:
            yield _join(whole, [by_name[name] for name in names])


def _join(name: str, parts: list[PlannedTensor]) -> PlannedTensor:
    height = sum(part.shape[0] for part in parts)

    def chunks() -> Iterator[Any]:
        return chain.from_iterable(part.chunks() for part in parts)

    return PlannedTensor(name, parts[0].dtype, (height, *parts[0].shape[1:]), chunks)


def parts_of(name: str) -> list[str]:
    """Return our names of the parts of a joined matrix of a layer; none of another weight."""
    match = re.fullmatch(rf"(.*\.)({'|'.join(JOINED)})(\..*)", name)
    return [] if match is None else [f"{match[1]}{part}{match[3]}" for part in JOINED[match[2]]]


def whole_of(name: str) -> str | None:
    """Return the name of the joined matrix that a weight of ours is a part of."""
    for whole, parts in JOINED.items():
        if match := re.fullmatch(rf"(.*\.)({'|'.join(parts)})(\..*)", name):
            return f"{match[1]}{whole}{match[3]}"
    return None


# --- families that we do not have ----------------------------------------------------------------

NEAREST = {
    "gemma": "gemma3_text", "phi": "phi3", "olmo": "olmo2", "smol": "smollm3",
    "ministral": "ministral3", "mistral3": "ministral3", "mistral": "mistral", "qwen2": "qwen2",
    "qwen": "qwen3",
}  # fmt: skip
SIGNS = {
    "linear_attention": "layers of linear attention",
    "linear_": "layers of linear attention",
    "mamba": "state-space layers",
    "kv_lora": "latent attention",
    "softcapping": "soft-capped scores",
    "shared_expert": "shared experts",
    "text_config": "a language model beside other parts",
}


def nearest(raw: Values) -> str:
    """Return the family that is most like one that is not supported, and what parts them."""
    text = raw.get("text_config") or raw
    keys = {*raw, *text, *(text.get("layer_types") or ())}
    kind = str(raw.get("model_type"))
    has_experts = "moe" in kind or any("expert" in key for key in keys)
    near = next((NEAREST[one] for one in NEAREST if kind.startswith(one)), "llama")
    reasons = {
        what
        for sign, what in SIGNS.items()
        if any(sign in key and (key not in text or text[key]) for key in keys)
    }
    why = f" (it has {' and '.join(sorted(reasons))})" if reasons else ""
    return f"{'qwen3_moe' if has_experts else near}{why}"
