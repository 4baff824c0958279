"""The small files of an exported bundle: config.json, the tokenizer, and the proof that they load.

In: a bundle's contents. Out: what `AutoConfig` and `AutoTokenizer` read. `grow` proves with them
that what it makes can be exported once it is trained.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from ..bundle import BundleContents
from ..bundle_config import BundleConfig
from ..document import ROLES
from ..heads import head_class
from ..tensors import DTYPES
from .checkpoint import BUNDLE_FOLDER, MARK
from .config_json import config_json

CHAT_ROLES = [role for role in ROLES if role is not None]

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


def export_files(contents: BundleContents, dtype: str) -> dict[str, Any]:
    """Return the contents of all JSON files of an export by name; dtype: 'BF16' and its like.

    ValueError where no family of transformers, or no file of the library tokenizers, is the same.
    """
    return {
        "config.json": _config(contents, dtype),
        "generation_config.json": _generation(contents),
        "tokenizer.json": tokenizer_json(contents),
        "tokenizer_config.json": _tokenizer_config(contents),
    }


def write_files(directory: Path, files: dict[str, Any]) -> None:
    """Write JSON files by name."""
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")


def prove(contents: BundleContents, dtype: str) -> None:
    """Raise ValueError where a bundle of these contents could not be exported."""
    with TemporaryDirectory() as folder:
        write_files(Path(folder), export_files(contents, dtype))
        check_loaded(Path(folder), contents)


def check_exports(directory: Path, config: BundleConfig) -> None:
    """Raise ValueError where no plain language model computes what this one does."""
    if config.fit is not None:
        raise ValueError(
            f"{directory} is a published model's, and is exported in that model's own form: name it"
            " by --like"
        )
    if not head_class(config.image.head).exports:
        raise ValueError(
            f"{directory} draws by the image head {config.image.head}, which no model of"
            " transformers has: only next_code has an export"
        )
    if config.image.tower is not None:
        raise ValueError(
            f"{directory} is given images by a vision tower, which a plain language model lacks: "
            "only one trained without `tower` has an export"
        )
    if config.image.two_way:
        raise ValueError(
            f"{directory} reads a user's turn both ways, which no plain language model does: only"
            " one trained without model.two_way has an export"
        )
    if config.image.addresses:
        raise ValueError(
            f"{directory} adds the row and column of image tokens to their embeddings, which no"
            " model of transformers does: only one trained without model.addresses has an export"
        )


def spelling(name: str) -> str:
    """Return the spelling of the special token `name` in the export."""
    return f"{MARK}{name}|>"


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
            f" {vocabulary.num_text} ids, some of them twice or spelled as ours ({MARK}...|>):"
            " it has no tokenizer.json"
        )
    _check_spelling(contents, tree)
    model = tree["model"] | {"vocab": spelled | new}
    return tree | {"model": model, "added_tokens": [_added(*one) for one in special.items()]}


def names(tree: dict[str, Any]) -> dict[str, int]:
    """Return the ids of a tokenizer.json by name."""
    added = {one["content"]: one["id"] for one in tree.get("added_tokens") or []}
    return tree["model"]["vocab"] | added


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


def check_loaded(directory: Path, contents: BundleContents) -> None:
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
    # save_pretrained keeps this key, by which check_grows knows an export.
    mark = {BUNDLE_FOLDER: {"num_text": contents.config.vocabulary.num_text}}
    return config_json(contents.config.transformer, name, _special_ids(contents)) | mark


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
