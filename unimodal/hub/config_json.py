"""Write the config.json of a plain language model of Hugging Face.

In: a configuration in our form. Out: that of the family whose transformer has exactly these parts,
or one ValueError. checkpoint.py goes the other way.
"""

from typing import Any

from ..transformer import TransformerConfig
from .checkpoint import ROPE_KEYS
from .parts import CLASSES, FAMILIES, LOCAL, family_of


def config_json(config: TransformerConfig, dtype: str, ids: dict[str, int]) -> dict[str, Any]:
    """Return the config.json of a configuration.

    dtype: the weights' dtype, such as 'bfloat16'. ids: those of bos, eos and pad. Raise ValueError
    where no family has such a configuration.
    """
    if config.head_norms or config.post_norm:
        raise ValueError(
            "no plain language model of Hugging Face has the norms of Chameleon (head_norms,"
            " post_norm)"
        )
    if config.residual_lambdas:
        raise ValueError(
            "no plain language model of Hugging Face mixes embeddings into its layers: only one"
            " trained without model.residual_lambdas has an export"
        )
    family = family_of(config)
    if config.joined_export and config.rope is not None:
        raise ValueError("the family phi3 of Hugging Face has no rotary scaling of our kinds")
    return {
        "architectures": [CLASSES.get(family, f"{family.capitalize()}ForCausalLM")],
        "model_type": family,
        "vocab_size": config.num_ids,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
        **_rope_json(config, family),
        **FAMILIES[family].write(config),
        "attention_dropout": 0.0,
        "use_cache": True,
        "dtype": dtype,
        **{f"{name}_token_id": token for name, token in ids.items()},
    }


def _rope_json(config: TransformerConfig, family: str) -> dict[str, Any]:
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
