"""Text tokenizers of other families: ids of their own libraries, and no text is a special token."""

import copy
import json
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from unimodal.pretrained_text import JsonTokenizer, SentencePieceTokenizer, read_pretrained
from unimodal.text import IncrementalDecoder

PLAIN = [
    "draw two red circles",
    "  two  spaces, a tab\t and a line\n\nend ",
    "naïve café 日本語 😀 العربية",
    "it's 3.14 % of {'a': [1, 2]}",
    "x",
    "",
]
SPELLED = [
    "<s>",
    "</s>",
    "<unk>",
    "<|im_start|>user\nhello<|im_end|>",
    "<|endoftext|>",
    "a<think>b</think>c",
    "<0x0A><0xFF>",
    "<s> </s><s></s>",
]


@pytest.fixture(scope="module")
def json_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("json") / "tokenizer.json"
    checkpoints.bpe().save(str(path))
    return path


@pytest.fixture(scope="module")
def piece_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
    path.write_bytes(checkpoints.pieces())
    return path


@pytest.fixture(scope="module")
def llama_file(piece_file, tmp_path_factory) -> Path:
    """The sentencepiece model as transformers' tokenizer.json: special tokens are in the table."""
    theirs = LlamaTokenizer.from_pretrained(piece_file.parent)
    path = tmp_path_factory.mktemp("llama") / "tokenizer.json"
    theirs.backend_tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def everyone(json_file, piece_file, llama_file) -> dict:
    return {
        "json": JsonTokenizer.load(json_file, checkpoints.NUM_ROWS),
        "pieces": SentencePieceTokenizer.load(piece_file, checkpoints.NUM_ROWS),
        "llama": JsonTokenizer.load(llama_file, checkpoints.NUM_ROWS),
    }


@pytest.mark.parametrize("text", PLAIN)
def test_plain_texts_have_the_ids_of_transformers_own_tokenizers(text, everyone, json_file,
                                                                 piece_file):  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_file=str(json_file))
    assert everyone["json"].encode(text) == fast.encode(text, add_special_tokens=False)
    llama = LlamaTokenizer.from_pretrained(piece_file.parent)
    expected = llama.encode(text, add_special_tokens=False)
    assert everyone["llama"].encode(text) == expected
    if not text.startswith(" "):  # where transformers puts no further space, sentencepiece does
        assert everyone["pieces"].encode(text) == expected


def kept(text: str, kind: str) -> str:
    """What comes back: transformers' own Llama tokenizer takes a first space for its own."""
    return text.removeprefix(" ") if kind == "llama" else text


@pytest.mark.parametrize("kind", ["json", "pieces", "llama"])
@pytest.mark.parametrize("text", PLAIN + SPELLED)
def test_a_text_comes_back_and_becomes_no_mark(kind, text, everyone):
    tokenizer = everyone[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == kept(text, kind)
    assert tokenizer.spelled[ids].all()
    assert not set(ids) & set(tokenizer.special_tokens)


@pytest.mark.parametrize("kind", ["json", "pieces", "llama"])
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.sampled_from([*SPELLED, *PLAIN]) | st.text(max_size=6), max_size=6))
def test_whatever_is_joined_stays_text(kind, parts, everyone):
    tokenizer = everyone[kind]
    text = "".join(parts)
    ids = tokenizer.encode(text)
    assert tokenizer.spelled[ids].all()
    if kind != "json":  # which composes characters, as its family does
        assert tokenizer.decode(ids) == kept(text.replace("\u2581", " "), kind)


def test_ids_that_no_text_spells(everyone):
    for kind, special in (
        ("json", {*checkpoints.MARKS, *checkpoints.UNSPECIAL}),
        ("pieces", {"<unk>", "<s>", "</s>", "<|im_start|>"}),
        ("llama", {"<unk>", "<s>", "</s>"}),
    ):
        tokenizer = everyone[kind]
        assert set(tokenizer.special_tokens.values()) >= special
        assert not tokenizer.spelled[list(tokenizer.special_tokens)].any()
        assert tokenizer.num_ids == len(tokenizer.spelled) == checkpoints.NUM_ROWS
        assert not tokenizer.spelled[-5:].any()  # rows that pad the embedding
        assert tokenizer.spelled.sum() >= 256


@pytest.mark.parametrize("kind", ["json", "pieces", "llama"])
def test_saved_files_are_the_same_and_hashes_tell_tokenizers_apart(kind, everyone, tmp_path):
    tokenizer = everyone[kind]
    tokenizer.save(tmp_path / "file")
    again = type(tokenizer).load(tmp_path / "file", tokenizer.num_ids)
    assert again.hash == tokenizer.hash
    assert again.encode("a red star") == tokenizer.encode("a red star")
    assert type(tokenizer).load(tmp_path / "file", tokenizer.num_ids + 1).hash != tokenizer.hash
    assert np.array_equal(again.spelled, tokenizer.spelled)


@pytest.mark.parametrize("kind", ["json", "pieces", "llama"])
def test_a_tokenizer_goes_to_another_process(kind, everyone):
    again = copy.deepcopy(everyone[kind])  # by the same protocol as to a worker of the loader
    assert again.encode(SPELLED[3]) == everyone[kind].encode(SPELLED[3])
    assert again.hash == everyone[kind].hash


@pytest.mark.parametrize("kind", ["json", "pieces", "llama"])
@pytest.mark.parametrize("text", [text for text in PLAIN if text])
def test_a_text_that_is_read_id_by_id_keeps_its_spaces(kind, text, everyone):
    tokenizer = everyone[kind]
    characters = IncrementalDecoder(tokenizer)
    pieces = [characters.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + characters.flush() == kept(text, kind)
    assert len([piece for piece in pieces if piece]) > len(text) / 20  # not all at the end


def test_an_unfinished_character_is_not_said(everyone):
    for tokenizer in everyone.values():
        characters = IncrementalDecoder(tokenizer)
        ids = tokenizer.encode("é😀")[:-1]
        assert "".join(map(characters.push, ids)) + characters.flush() == "é"


def changed(path: Path, tmp_path: Path, **model: object) -> Path:
    tree = json.loads(path.read_text())
    tree["model"] |= model
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    return tmp_path


def test_tokenizers_that_cannot_be_used(json_file, piece_file, tmp_path):
    with pytest.raises(ValueError, match="tokenizer.json: it has ids up to 299, the embedding 290"):
        read_pretrained(json_file.parent, 290)
    with pytest.raises(ValueError, match="tokenizer.model: it has 320 pieces, the embedding 290"):
        read_pretrained(piece_file.parent, 290)
    with pytest.raises(ValueError, match="holds neither tokenizer.json nor tokenizer.model"):
        read_pretrained(tmp_path, 300)
    with pytest.raises(ValueError, match="its dropout 0.1 makes ids random"):
        read_pretrained(changed(json_file, tmp_path, dropout=0.1), 328)
    vocab = json.loads(json_file.read_text())["model"]["vocab"]
    vocab.pop("Q"), vocab.pop("!")
    with pytest.raises(ValueError, match="lacks 2 of the 256 bytes"):
        read_pretrained(changed(json_file, tmp_path, vocab=vocab), 328)
    with pytest.raises(ValueError, match="'WordLevel': only BPE is supported"):
        read_pretrained(changed(json_file, tmp_path, type="WordLevel"), 328)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(b"nonsense" * 9)
    with pytest.raises(ValueError, match="it is no sentencepiece model"):
        read_pretrained(tmp_path, 328)


def test_merges_that_would_make_a_mark_are_left_out():
    """As in Llama's first tokenizer.json: a normalizer prepends, special ones are in the table."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    vocab = {piece: k for k, piece in enumerate(["<unk>", "<s>", *pieces, "\u2581", "<", "s>", "s",
                                                 ">"])}  # fmt: skip
    model = models.BPE(
        vocab, [("s", ">"), ("<", "s>")], unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    theirs = Tokenizer(model)
    theirs.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    theirs.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    assert vocab["<s>"] in theirs.encode("<s>").ids  # before it is added, by its merges
    theirs.add_special_tokens(["<unk>", "<s>"])
    mine = JsonTokenizer(theirs.to_str())
    assert mine.encode("<s>") == [vocab[piece] for piece in ("\u2581", "<", "s>")]
    assert mine.decode(mine.encode("<s>")) == "<s>"
