"""Small published models with random weights: directories as save_pretrained writes them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import published_tokenizers as made
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer

from unimodal.families import emu3, janus, liquid
from unimodal.families.spellings import special_names
from unimodal.hub.image_checkpoint import read_image_config
from unimodal.tensors import SINGLE
from unimodal.text import TextTokenizer
from unimodal.tokenizer.vqgan import Vqgan

TEXTS = [
    "You are a helpful assistant. USER: what is this? ASSISTANT: a dog.", "a dog in the rain",
    emu3.NEGATIVE, emu3.PRAISE, janus.SYSTEM, "\n\n: draw it, please",
]  # fmt: skip
NUM_TEXT = 320
NUM_CODES = 96
LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
SPREAD = 6.0  # of logits: the likeliest id is then likelier than others by more than rounding


def tokenizer(spellings: list[str]) -> Tokenizer:
    """A byte-level BPE with added special tokens of these spellings behind its text."""
    words = TextTokenizer.train(TEXTS * 3, NUM_TEXT)
    assert words.num_ids == NUM_TEXT, "as many ids as are asked for"
    whole = Tokenizer.from_str(json.dumps(words.tree()))
    whole.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in spellings])
    return whole


def lively(model: Any) -> Any:
    """Weights at which attention is far from uniform, and logits are far apart."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "vqmodel" in name:
                continue
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                fan = weight[0].numel()
                scale = 1.0 if "embed" in name else fan**-0.5
                weight.copy_(noise * scale * (SPREAD if "head" in name else 1.0))
            else:
                weight.copy_(0.1 * noise + (1.0 if "norm" in name and "weight" in name else 0.0))
    return model.eval()


# --- Emu3 ---------------------------------------------------------------------------------------

EMU3_PLACE = "<|extra_0|>"  # what transformers puts where an image is given
EMU3_SPELLINGS = [
    emu3.PAD, EMU3_PLACE,
    *sorted(special_names(emu3.CHAT) | special_names(emu3.DRAWING)),
    *(f"<|visual token {code:06d}|>" for code in range(NUM_CODES)),
]  # fmt: skip


def emu3_model(positions: int = 9216, **changed: Any) -> transformers.PreTrainedModel:
    """An Emu3 of random weights."""
    words = tokenizer(EMU3_SPELLINGS)
    ids = {spelling: words.token_to_id(spelling) for spelling in EMU3_SPELLINGS}
    text = LLAMA | {
        "vocab_size": words.get_vocab_size(), "max_position_embeddings": positions,
        "pad_token_id": ids[emu3.PAD], "bos_token_id": ids[emu3.BEGIN.name],
        "eos_token_id": ids[emu3.END.name],
    }  # fmt: skip
    config = transformers.Emu3Config(
        text_config=text | changed,
        vq_config=made.EMU3,
        vocabulary_map=ids | {"<image>": ids[EMU3_PLACE]},
    )
    model = transformers.Emu3ForConditionalGeneration(config)
    model.model.vqmodel.load_state_dict(made.emu3().state_dict())
    return lively(model)


def emu3_processor(least: int = 16 * 16, most: int = 48 * 48) -> transformers.Emu3Processor:
    """A processor that fits images to so many pixels."""
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(EMU3_SPELLINGS),
        bos_token=emu3.BEGIN.name, eos_token=emu3.END.name, pad_token=emu3.PAD,
        extra_special_tokens={
            "image_token": EMU3_PLACE, "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>", "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
        },
    )  # fmt: skip
    images = transformers.Emu3ImageProcessor(
        image_mean=[0.5] * 3, image_std=[0.5] * 3, min_pixels=least, max_pixels=most,
        spatial_factor=4,
    )  # fmt: skip
    processor = transformers.Emu3Processor(images, words)
    processor.downsample_ratio = 4  # of the small image tokenizer
    return processor


def save_emu3(directory: Path, model: transformers.PreTrainedModel) -> Path:
    """Save an Emu3 with all its files."""
    model.save_pretrained(directory)
    emu3_processor().save_pretrained(directory)
    (directory / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A small Emu3\n")
    return directory


# --- Janus --------------------------------------------------------------------------------------

JANUS_SPELLINGS = [
    janus.PAD,
    *sorted(special_names(janus.READING) | special_names(janus.DRAWING)),
]  # fmt: skip
JANUS_VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 4,
}  # fmt: skip


def janus_model(text: dict[str, Any] | None = None, side: int = 24) -> Any:
    """A Janus of random weights, for images of `side` pixels; text: other sizes of its Llama."""
    words = tokenizer(JANUS_SPELLINGS)
    text = LLAMA | (text or {}) | {"model_type": "llama", "vocab_size": words.get_vocab_size()}
    text |= {"max_position_embeddings": 1024, "tie_word_embeddings": False}
    width = {"projection_dim": text["hidden_size"]}
    vision = {"image_size": side, "num_image_tokens": (side // 4) ** 2}
    config = transformers.JanusConfig(
        text_config=text,
        vision_config=JANUS_VISION | width | vision,
        vq_config=made.JANUS | width | {"image_token_embed_dim": text["hidden_size"]},
        image_token_id=words.token_to_id(janus.PLACE.name),
        tie_word_embeddings=False,
    )
    model = transformers.JanusForConditionalGeneration(config)
    model.model.vqmodel.load_state_dict(made.janus().state_dict())
    return lively(model)


def save_janus(directory: Path, model: transformers.PreTrainedModel) -> Path:
    """Save a Janus with all its files, whose flag says that the head is tied, as the hub's do."""
    model.save_pretrained(directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(JANUS_SPELLINGS), bos_token=janus.BEGIN.name,
        eos_token=janus.END.name, pad_token=janus.PAD,
    )  # fmt: skip
    words.save_pretrained(directory)
    (directory / "README.md").write_text("---\nlicense: mit\n---\n# A small Janus\n")
    return directory


# --- Chameleon and Anole ------------------------------------------------------------------------

CHAMELEON_FIRST_CODE = 4
CHAMELEON_FIRST_TEXT = CHAMELEON_FIRST_CODE + NUM_CODES + 2


def chameleon_code(code: int) -> str:
    """How a code is spelled: IMGIMGFDZ is 53."""
    return "IMGIMG" + "".join("ABCDEFGHIJ"[int(digit)] for digit in str(code)) + "Z"


def chameleon_ids(more: Sequence[str] = ()) -> dict[str, int]:
    """{spelling: id} of marks and codes; these lie below the text, in an order of their own, and
    `more` behind all.
    """
    order = torch.randperm(NUM_CODES, generator=torch.Generator().manual_seed(5)).tolist()
    codes = {chameleon_code(code): CHAMELEON_FIRST_CODE + at for at, code in enumerate(order)}
    last = CHAMELEON_FIRST_TEXT + NUM_TEXT
    return codes | {
        "<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<eoss>": CHAMELEON_FIRST_TEXT - 2,
        "<racm3:break>": CHAMELEON_FIRST_TEXT - 1, "<reserved08706>": last, "<image>": last + 1,
        **{spelling: last + 2 + at for at, spelling in enumerate(more)},
    }  # fmt: skip


def chameleon_tokenizer(ids: dict[str, int]) -> dict[str, Any]:
    """The content of a tokenizer.json whose text stands behind codes and marks."""
    words = TextTokenizer.train(TEXTS * 3, NUM_TEXT).tree()
    vocab = {
        piece: token + CHAMELEON_FIRST_TEXT for piece, token in words["model"]["vocab"].items()
    }
    kinds = {"special": True, "normalized": False, "lstrip": False, "rstrip": False}
    added = [
        {"id": token, "content": spelling, "single_word": False} | kinds
        for spelling, token in sorted(ids.items(), key=lambda one: one[1])
    ]
    model = words["model"] | {"vocab": vocab | ids}
    return words | {"model": model, "added_tokens": added}


def chameleon_model(**changed: Any) -> transformers.PreTrainedModel:
    """A Chameleon of random weights."""
    model = _chameleon(chameleon_ids(), made.CHAMELEON, changed)
    model.model.vqmodel.load_state_dict(made.chameleon().state_dict())
    return lively(model)


def _chameleon(
    ids: dict[str, int], vq: dict[str, Any], changed: dict[str, Any]
) -> transformers.PreTrainedModel:
    config = transformers.ChameleonConfig(
        **LLAMA | {"vocab_size": max(ids.values()) + 1, "max_position_embeddings": 512} | changed,
        vq_config=vq, vocabulary_map=ids, pad_token_id=1,
    )  # fmt: skip
    return transformers.ChameleonForConditionalGeneration(config)


def save_chameleon(directory: Path, model: transformers.PreTrainedModel) -> Path:
    """Save a Chameleon with all its files."""
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text(
        json.dumps(chameleon_tokenizer(model.config.vocabulary_map))
    )
    return directory


def save_anole(directory: Path, model: transformers.PreTrainedModel) -> Path:
    """Save a Chameleon with a decoder of random weights beside its own."""
    save_chameleon(directory, model)
    tensors = load_file(directory / SINGLE)
    save_file(tensors | decoder(directory), directory / SINGLE)
    return directory


def decoder(directory: Path) -> dict[str, torch.Tensor]:
    """A decoder of random weights for the image tokenizer that a config.json says."""
    tensors = {}
    whole = Vqgan(read_image_config(directory).config, None)
    generator = torch.Generator().manual_seed(11)
    for name, weight in whole.state_dict().items():
        if name.startswith("decoder."):
            fan = weight[0].numel() if weight.ndim > 1 else 100
            noise = torch.randn(weight.shape, generator=generator) * fan**-0.5
            is_scale = weight.ndim == 1 and "norm" in name and name.endswith("weight")
            tensors[f"model.vqmodel.{name}"] = noise + (1.0 if is_scale else 0.0)
    return tensors


# --- Lumina-mGPT --------------------------------------------------------------------------------

LUMINA_MORE = ["<reserved08799>", *(f"<reserved{8800 + side:05d}>" for side in range(1, 65))]


def lumina_model(**changed: Any) -> transformers.PreTrainedModel:
    """A Lumina-mGPT of random weights: a Chameleon of 16 pixels a code, with ids of rows, sizes."""
    levels = {"channel_multiplier": [1] * 5, "attn_resolutions": [2]}
    ids, context = chameleon_ids(LUMINA_MORE), {"max_position_embeddings": 10240}
    model = _chameleon(ids, made.CHAMELEON | levels, context | changed)
    model.model.vqmodel.load_state_dict(made.chameleon(**levels).state_dict())
    return lively(model)


def save_lumina(directory: Path, model: transformers.PreTrainedModel) -> Path:
    """Save a Lumina-mGPT with all its files, and a decoder beside its image tokenizer."""
    save_anole(directory, model)
    path = directory / "config.json"
    own = {"architectures": ["ChameleonXLLMXForConditionalGeneration"], "z_loss_weight": 1e-5}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    return directory


# --- Liquid -------------------------------------------------------------------------------------

LIQUID_MARKS = [liquid.PAD, "<eos>", "<bos>", "<unk>", "<mask>", "<boi>", "<eoi>"]
LIQUID_MARKS += ["<unconditional>", "<start_of_turn>", "<end_of_turn>"]


def liquid_ids() -> dict[str, int]:
    """{spelling: id} of the marks; the codes follow, which no tokenizer spells."""
    return {spelling: NUM_TEXT + at for at, spelling in enumerate(LIQUID_MARKS)}


def liquid_model(**changed: Any) -> transformers.PreTrainedModel:
    """A Liquid of random weights: a Gemma with rows for image codes."""
    ids = liquid_ids()
    config = transformers.GemmaConfig(
        **LLAMA | {"vocab_size": NUM_TEXT + len(ids) + NUM_CODES, "head_dim": 16} | changed,
        max_position_embeddings=512, pad_token_id=ids[liquid.PAD], bos_token_id=ids["<bos>"],
        eos_token_id=ids["<eos>"], vq_config=made.CHAMELEON,
    )  # fmt: skip
    model = lively(transformers.GemmaForCausalLM(config))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:  # which multiply by 1 + weight
                weight -= 1
        # The table of ids is that of outputs too: a layer then says more than what it read.
        model.model.embed_tokens.weight.mul_(0.1)
        model.model.norm.weight.add_(2 * SPREAD)
    return model


def save_liquid(directory: Path, model: transformers.PreTrainedModel) -> Path:
    """Save a Liquid with all its files, and Chameleon's image tokenizer and a decoder beside it."""
    model.save_pretrained(directory)
    tokenizer(LIQUID_MARKS).save(str(directory / "tokenizer.json"))
    tensors = load_file(directory / SINGLE)
    encoder = made.chameleon().state_dict()
    tensors |= {f"model.vqmodel.{name}": weight for name, weight in encoder.items()}
    save_file(tensors | decoder(directory), directory / SINGLE)
    return directory
