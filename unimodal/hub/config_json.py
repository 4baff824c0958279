"""Write the config.json of a plain language model of Hugging Face.

In: a configuration in our form. Out: that of the family whose transformer has exactly these parts,
or one ValueError. checkpoint.py goes the other way.
"""

from typing import Any

from ..transformer import TransformerConfig
from .parts import CLASSES, FAMILIES, family_of
from .rotary import rope_json


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
    if config.value_embeddings:
        raise ValueError(
            "no plain language model of Hugging Face has value embeddings: only one trained without"
            " model.value_embeddings has an export"
        )
    family = family_of(config)
    if config.joined_export and config.rope is not None and config.rope.kind != "longrope":
        raise ValueError(
            f"the family phi3 of Hugging Face has no rotary scaling {config.rope.kind}"
        )
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
        **rope_json(config, family),
        **FAMILIES[family].write(config),
        "attention_dropout": 0.0,
        "use_cache": True,
        "dtype": dtype,
        **{f"{name}_token_id": token for name, token in ids.items()},
    }
