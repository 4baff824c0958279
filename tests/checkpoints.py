"""Small checkpoints of other families, made with their own libraries: what the tests grow."""

import io
import json
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from unimodal.attention import PackedAttention
from unimodal.branches import BranchInput
from unimodal.transformer import Transformer
from unimodal.unified import UnifiedModel

CARD = {
    "config": "tiny",
    "commit": "0" * 40,
    "data_seeds": [0],
    "hardware": "cpu",
    "hours": 0.0,
    "scores": {},
}
FAMILIES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}
KIN = {  # Llama with small differences
    "phi3": (transformers.Phi3Config, transformers.Phi3ForCausalLM),
    "olmo2": (transformers.Olmo2Config, transformers.Olmo2ForCausalLM),
    "smollm3": (transformers.SmolLM3Config, transformers.SmolLM3ForCausalLM),
    "ministral3": (transformers.Ministral3Config, transformers.Ministral3ForCausalLM),
    "qwen3_moe": (transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM),
    "gemma": (transformers.GemmaConfig, transformers.GemmaForCausalLM),
    "gemma3_text": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
}
SPECIAL = {
    "mistral": {"sliding_window": None},
    "phi3": {"pad_token_id": 0},
    "smollm3": {"no_rope_layers": [1, 0], "pad_token_id": 0},
    "ministral3": {
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "mscale": 1.0,
            "original_max_position_embeddings": 64, "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.3,
        },
    },
    "qwen3_moe": {
        "head_dim": 16, "moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 2,
        "norm_topk_prob": True,
    },
    "gemma": {"head_dim": 16},
    "gemma3_text": {
        "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
        },
    },
}  # fmt: skip
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # special
UNSPECIAL = ["<think>", "</think>"]  # added, and yet not special
NUM_ROWS = 328  # of the embedding; the last ones are padding that no tokenizer knows
TEXTS = [
    "draw two red circles and a blue star",
    "how many stars are there? there are three",
    "it's the end of the line, and the start of another one\n",
    "def f(x):\n    return {'a': [1, 2], 'b': x}",
]


def save(
    directory: Path,
    family: str = "qwen3",
    tied: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
    tokenizer: str = "json",
    **values: object,
) -> transformers.PreTrainedModel:
    """Write a checkpoint, every parameter random, and return the model it holds."""
    make_config, make_model = (FAMILIES | KIN)[family]
    extra = SPECIAL.get(family, {})
    shape = dict(
        vocab_size=NUM_ROWS,
        hidden_size=48 if family == "qwen3" else 32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        max_position_embeddings=256,
    )
    shape |= {"head_dim": 16} if family == "qwen3" else {}
    model = make_model(make_config(**(shape | extra | values)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            is_norm = name.endswith("norm.weight") and not family.startswith("gemma")  # 1 + weight
            parameter.copy_(1 + noise if is_norm else noise)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    if tokenizer == "json":
        bpe().save(str(directory / "tokenizer.json"))
    else:
        (directory / "tokenizer.model").write_bytes(pieces())
    return model.eval()


def bpe() -> Tokenizer:
    """A byte-level BPE of 300 ids with special tokens behind them, as Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, spelled])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(MARKS)
    tokenizer.add_tokens(UNSPECIAL)
    return tokenizer


def pieces() -> bytes:
    """A sentencepiece model of 320 pieces as Llama's: BPE, bytes, a space before the first word."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        user_defined_symbols=["<|im_start|>"],
        minloglevel=2,
    )
    return model.getvalue()


def change(directory: Path, **values: object) -> None:
    """Change values of a checkpoint's config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def logits(model: Transformer, ids_BT: Tensor, doc_BT: Tensor | None = None) -> Tensor:
    """Logits of causal rows, each one document unless doc_BT says otherwise."""
    doc_BT = torch.zeros_like(ids_BT) if doc_BT is None else doc_BT
    none_BT = torch.zeros_like(ids_BT)
    positions_BT = torch.arange(ids_BT.shape[1]).expand_as(ids_BT)
    attend = PackedAttention(doc_BT, none_BT, none_BT)
    if not isinstance(model, UnifiedModel):
        return model.logits(model(model.embed(ids_BT), positions_BT, attend))
    tokens = BranchInput(ids_BT, torch.empty(0), [()] * len(ids_BT))
    return F.linear(model.hidden_states(tokens, positions_BT, attend), model.output_table())
