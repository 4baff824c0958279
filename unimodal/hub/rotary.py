"""Read and write the rotary settings of a config.json."""

from collections.abc import Iterator
from typing import Any

from ..rope import KINDS, RopeScaling, attention_factor
from ..transformer_config import TransformerConfig
from .parts import LOCAL

ROPE_KEYS = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    },
    "yarn": {
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "truncate",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
    },
    "longrope": {
        "factor",
        "original_max_position_embeddings",
        "short_factor",
        "long_factor",
        "attention_factor",
    },
}


def ropes(theirs: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the rotary settings of full layers, and those of local ones where they differ."""
    rope = theirs.rope_parameters
    return (rope["full_attention"], rope[LOCAL]) if "full_attention" in rope else (rope, None)


def rope_problems(theirs: Any) -> Iterator[str]:
    """Yield what of the rotary settings is not supported, one sentence each."""
    rope, local = ropes(theirs)
    if local is not None and local.get("rope_type", "default") != "default":
        yield f"rope_scaling of kind {local['rope_type']!r} in {LOCAL}: only default is supported"
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_KEYS:
        supported = ", ".join(("default", *KINDS))
        yield f"rope_scaling of kind {kind!r} is not supported: one of {supported}"
        return
    if rope.get("partial_rotary_factor", 1.0) != 1.0 and theirs.model_type != "phi3":
        yield f"partial_rotary_factor {rope['partial_rotary_factor']}: only 1 is supported"
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"} | ROPE_KEYS[kind]
    # `linear` and the default do not use it, but some files contain it.
    known |= {"original_max_position_embeddings"}
    if theirs.model_type == "ministral3":
        known |= {"llama_4_scaling_beta", "max_position_embeddings"}
    if unknown := sorted(set(rope) - known):
        yield f"rope_scaling of kind {kind!r} with {', '.join(unknown)} is not supported"
    needed = {"factor"} & ROPE_KEYS[kind] if kind != "longrope" else {"short_factor"}
    yield from (f"rope_scaling: {name} is missing" for name in needed if rope.get(name) is None)


def positions(theirs: Any) -> int:
    """Return how many positions a model is meant for here: with longrope those of its original
    context, beyond which its frequencies depend on the length of what it reads.
    """
    most, (rope, _) = theirs.max_position_embeddings, ropes(theirs)
    if rope.get("rope_type") == "longrope":
        return min(most, rope.get("original_max_position_embeddings") or most)
    return most


def read_rope(rope: dict[str, Any], max_positions: int) -> RopeScaling | None:
    """Return rotary settings in our form, of a model of so many positions; None: not scaled."""
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    original = int(rope.get("original_max_position_embeddings", max_positions))
    factor = rope.get("factor")
    values: dict[str, Any] = {
        "factor": float(factor if factor is not None else max_positions / original),
        "original_positions": original,
    }
    if kind == "longrope":
        values |= {"factors": tuple(map(float, rope["short_factor"]))}
        values |= {"attention_factor": rope.get("attention_factor")}
    names = {"low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"} & ROPE_KEYS[kind]
    values |= {name: float(rope[name]) for name in names if rope.get(name) is not None}
    if kind == "yarn":
        values |= {"truncate": rope.get("truncate", True), "attention_factor": _mscale(rope)}
    return RopeScaling(kind=kind, **values)


def _mscale(rope: dict[str, Any]) -> float | None:
    """Return yarn's attention factor, which DeepSeek's two `mscale` give as a ratio.

    None: the default of RopeScaling. The formula is that of transformers' yarn.
    """
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    above, below = rope.get("mscale"), rope.get("mscale_all_dim")
    if not above or not below:
        return None
    plain = RopeScaling("yarn", float(rope["factor"]), 1)
    grown = attention_factor(plain) - 1.0  # 0.1 ln(factor)
    return (grown * above + 1.0) / (grown * below + 1.0)


def rope_json(config: TransformerConfig, family: str) -> dict[str, Any]:
    """Return the rotary settings in the form of transformers 5, and in that of older versions."""
    rope = config.rope
    values: dict[str, Any] = {"rope_type": "default"}
    if rope is not None:
        given = {
            "factor": rope.factor,
            "original_max_position_embeddings": rope.original_positions,
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "truncate": rope.truncate,
            "attention_factor": rope.attention_factor,
            "short_factor": list(rope.factors),
            "long_factor": list(rope.factors),  # of no use within max_positions
        }
        values = {"rope_type": rope.kind} | {
            name: value
            for name, value in given.items()
            if name in ROPE_KEYS[rope.kind] and value is not None
        }
    if config.query_beta is not None:
        values["llama_4_scaling_beta"] = config.query_beta
    parameters = values | {"rope_theta": config.rope_theta}
    local = {"rope_type": "default", "rope_theta": config.local_rope_theta}
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": None if rope is None else values,
        "rope_parameters": {"full_attention": parameters, LOCAL: local}
        if family == "gemma3_text"
        else parameters,
    }
