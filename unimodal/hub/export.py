"""Export a bundle as a plain Hugging Face checkpoint, and restore the bundle from it.

    config.json, generation_config.json     a Llama, Mistral, Qwen2 or Qwen3
    model*.safetensors                      the weights, with unchanged bytes
    tokenizer.json, tokenizer_config.json   every id by name, and the layout as a chat template
    unimodal/                               all of the bundle but its weights, to restore it

`AutoModelForCausalLM` and `AutoTokenizer` load the checkpoint, and `apply_chat_template` gives a
conversation of texts the same ids as our own layout. Images are tokens such as
`<|unimodal_code_17|>` there. Models with another image head than next_code, or with addresses, have
no export.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .. import tensors
from ..architecture import Architecture
from ..bundle import (
    CONTENT_FILES,
    DEFAULT,
    MAX_SHARD_BYTES,
    BundleConfig,
    BundleContents,
    Progress,
    byte_counter,
    check_output,
    check_space,
    copied_tensor,
    read_contents,
    read_unchecked_contents,
    write_bundle,
    write_config,
    write_directory,
)
from ..document import ROLES
from ..embedder import FactorisedCodes
from ..heads import head_class
from ..tensors import DTYPES, PlannedTensor, StoredTensor, as_bytes, find_tensors
from .checkpoint import (
    BUNDLE_FOLDER,
    CheckpointError,
    config_json,
    read_checkpoint,
    transformer_shapes,
)
from .grow import TABLES

CHAT_ROLES = [role for role in ROLES if role is not None]
SPECIAL_PREFIX = "<|unimodal_"  # the start of every special token's spelling

# The layout of Sequencer: begin (role text turn_end)*, then the assistant's role or the end. A text
# must not contain the spelling of a special token, which would become one; and two messages of one
# role would be one turn for Sequencer but two here.
CHAT_TEMPLATE = (
    "{{ '<|unimodal_begin|>' }}"
    "{% for message in messages %}"
    "{% if message.role not in ROLES %}"
    "{{ raise_exception('a role is one of ' + ROLES | join(', ')) }}"
    "{% endif %}"
    "{% if message.content is not string %}"
    "{{ raise_exception('content is text; images are for unimodal itself') }}"
    "{% endif %}"
    "{% if '<|unimodal_' in message.content %}"
    "{{ raise_exception('a text may not spell a special token, <|unimodal_...|>') }}"
    "{% endif %}"
    "{% if not loop.first and loop.previtem.role == message.role %}"
    "{{ raise_exception('two messages of one role in a row: join them') }}"
    "{% endif %}"
    "{{ '<|unimodal_' + message.role + '|>' + message.content + '<|unimodal_turn_end|>' }}"
    "{% endfor %}"
    "{{ '<|unimodal_assistant|>' if add_generation_prompt else '<|unimodal_end|>' }}"
).replace("ROLES", repr(CHAT_ROLES))

SAMPLES = (
    "draw two red circles",
    " Leading and  double  spaces\n\n\ttabs\r\n",
    "na\u00efve caf\u00e9, \u65e5\u672c\u8a9e, \U0001f600, \u0627\u0644\u0639\u0631\u0628",
    "</s><s><|im_start|>user<|endoftext|>[INST]<unk><0x0A>",
    "it's 1234567.89 % of f(x) = {'a': [1, 2]} // 100",
    "",
)


def export(
    model: Path | None,
    output: Path,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write the bundle in the directory `model` (None: the one shipped) as a checkpoint.

    Return its directory. Raise ValueError, before anything is written, where there is no export.
    """
    directory = DEFAULT if model is None else model
    check_output(output)
    contents = read_contents(directory)
    _check_exports(directory, contents.config)
    places = find_tensors(directory)
    names = list(transformer_shapes(contents.config.transformer))
    planned = [_planned(name, places, contents.config.architecture) for name in names]
    files = {
        "config.json": _config(contents, planned[0].dtype),
        "generation_config.json": _generation(contents),
        "tokenizer.json": tokenizer_json(contents),
        "tokenizer_config.json": _tokenizer_config(contents),
    }
    check_space(output, sum(tensor.num_bytes for tensor in planned))

    def fill(fresh: Path) -> None:
        count = byte_counter(planned, on_progress)
        tensors.write_tensors(fresh, planned, max_shard_bytes, {"format": "pt"}, count)
        for name, content in files.items():
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (fresh / name).write_text(text + "\n", encoding="utf-8")
        _check_loaded(fresh, contents)
        (fresh / BUNDLE_FOLDER).mkdir()
        for name in (*CONTENT_FILES, contents.text_tokenizer.FILE):
            shutil.copyfile(directory / name, fresh / BUNDLE_FOLDER / name)
        if contents.config.image.levels:  # the levels' embeddings are in the plain rows now
            plain = replace(contents.config, image=replace(contents.config.image, levels=()))
            write_config(fresh / BUNDLE_FOLDER / "config.json", plain)

    write_directory(output, fill)
    return output


def _check_exports(directory: Path, config: BundleConfig) -> None:
    """Raise ValueError where no plain language model computes what this one does."""
    if not head_class(config.image.head).exports:
        raise ValueError(
            f"{directory} draws by the image head {config.image.head}, which no model of"
            " transformers has: only next_code has an export"
        )
    if config.image.addresses:
        raise ValueError(
            f"{directory} adds the row and column of image tokens to their embeddings, which no"
            " model of transformers does: only one trained without model.addresses has an export"
        )


def _planned(
    name: str, places: Mapping[str, StoredTensor], architecture: Architecture
) -> PlannedTensor:
    """Return the plan to write a tensor: unchanged, or a table with factorised codes added to it.

    Sums are written in float32, for half precision would round them.
    """
    place = places[name]
    if not architecture.image.levels or name not in TABLES:
        return copied_tensor(name, place)

    def chunks() -> Iterator[bytes]:
        added_VD, row = _factors(name, places, architecture), 0
        for block_nD in place.row_blocks():
            summed_nD = block_nD.float() + added_VD[row : row + len(block_nD)]
            row += len(block_nD)
            yield as_bytes(summed_nD, "F32")

    return PlannedTensor(name, "F32", place.shape, chunks)


@torch.no_grad()
def _factors(name: str, places: Mapping[str, StoredTensor], architecture: Architecture) -> Tensor:
    """Return what factorised codes add to the rows of a table, float32 (V, D)."""
    factors = FactorisedCodes(
        architecture.image.levels, architecture.vocabulary, architecture.transformer.width
    )
    source = "head_factors" if name == "lm_head.weight" else "code_factors"
    rows = torch.cat(list(places[f"{source}.table.weight"].row_blocks()))
    factors.table.weight.copy_(rows)
    return factors()


def restore(
    directory: Path,
    output: Path,
    on_progress: Progress = lambda done, total: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write the bundle that a checkpoint was exported from, with the checkpoint's weights.

    Return its directory. Raise ValueError where the weights no longer fit the bundle.
    """
    check_output(output)
    contents = read_unchecked_contents(directory / BUNDLE_FOLDER)
    weights = read_checkpoint(directory).weights
    expected = transformer_shapes(contents.config.transformer)
    wrong = [name for name in expected if weights[name].shape != expected[name]]
    if wrong or len(weights) != len(expected):
        problem = f"its weights are no longer those of {directory / BUNDLE_FOLDER / 'config.json'}"
        raise CheckpointError(directory, [problem])
    planned = [copied_tensor(name, weights[name]) for name in expected]
    write_bundle(output, contents, planned, on_progress, max_shard_bytes)
    return output


# --- files --------------------------------------------------------------------------------------


def spelling(name: str) -> str:
    """Return the spelling of the special token `name` in the export."""
    return f"{SPECIAL_PREFIX}{name}|>"


def tokenizer_json(contents: BundleContents) -> dict[str, Any]:
    """Return a tokenizer.json with all ids of the vocabulary.

    The vocabulary's special tokens and codes are special tokens in it. Raise ValueError where the
    text tokenizer has no exact tokenizer.json.
    """
    text, vocabulary = contents.text_tokenizer, contents.config.vocabulary
    # Ids below num_text that no text is encoded to: special tokens of the text tokenizer, and rows
    # that pad the embedding. All need a name, for `tokenizers` allows no gaps.
    unspelled = dict(text.special_tokens)
    named = text.spelled.copy()
    named[list(unspelled)] = True
    unspelled |= {token: spelling(f"unused_{token}") for token in (~named).nonzero()[0].tolist()}
    special = {token: spelling(name) for name, token in vocabulary.special_tokens.items()}
    codes = enumerate(vocabulary.code_ids.tolist())
    special |= {token: spelling(f"code_{code}") for code, token in codes}
    tree = text.tree()
    spelled = tree["model"]["vocab"]
    new = {name: token for token, name in sorted((unspelled | special).items())}
    if len(spelled) + len(new) != vocabulary.size or spelled.keys() & new.keys():
        raise ValueError(
            f"the text tokenizer has {len(spelled)} pieces and {len(unspelled)} other tokens for"
            f" {vocabulary.num_text} ids, some of them twice or spelled as ours"
            f" ({SPECIAL_PREFIX}...|>): it has no tokenizer.json"
        )
    _check_spelling(contents, tree)
    model = tree["model"] | {"vocab": spelled | new}
    return tree | {"model": model, "added_tokens": [_added(*one) for one in special.items()]}


def _added(token: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": content, **flags, "special": True}


def _check_spelling(contents: BundleContents, tree: dict[str, Any]) -> None:
    """Raise ValueError where the exported tokenizer encodes a difficult text differently."""
    theirs = Tokenizer.from_str(json.dumps(tree))
    for sample in SAMPLES:
        found = theirs.encode(sample, add_special_tokens=False).ids
        if found != (expected := contents.text_tokenizer.encode(sample)):
            raise ValueError(
                f"the text tokenizer has no exact tokenizer.json: {sample!r} would become"
                f" {found[:8]} instead of {expected[:8]}"
            )


def _check_loaded(directory: Path, contents: BundleContents) -> None:
    """Raise ValueError where `AutoTokenizer` encodes a difficult text differently."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(directory)
    for sample in SAMPLES:
        if theirs(sample)["input_ids"] != contents.text_tokenizer.encode(sample):
            raise ValueError(
                f"AutoTokenizer reads {sample!r} otherwise than this model's text tokenizer: of a"
                " checkpoint with the biases of Qwen2 it takes the tokenizer to be Qwen2's"
            )


def _special_ids(contents: BundleContents) -> dict[str, int]:
    special = contents.config.vocabulary.special
    return {"bos": special("begin"), "eos": special("turn_end"), "pad": special("pad")}


def _config(contents: BundleContents, dtype: str) -> dict[str, Any]:
    name = str(DTYPES[dtype]).removeprefix("torch.")
    return config_json(contents.config.transformer, name, _special_ids(contents))


def _generation(contents: BundleContents) -> dict[str, Any]:
    temperature = contents.config.sampling.text_temperature
    how = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    return {f"{name}_token_id": token for name, token in _special_ids(contents).items()} | how


def _tokenizer_config(contents: BundleContents) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": spelling("begin"),
        "eos_token": spelling("turn_end"),
        "pad_token": spelling("pad"),
        "unk_token": spelling("pad"),  # unused; Qwen2's class would add its own
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": contents.config.context,
        "chat_template": CHAT_TEMPLATE,
    }
