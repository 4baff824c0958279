"""What is wrong in a file of a published model is said with that file's name."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import published_models as made
import pytest
import torch
from safetensors.torch import load_file, save_file

import unimodal
from unimodal import manifest
from unimodal.bundle import BundleError, read_contents
from unimodal.families import janus, published
from unimodal.families.bundled import as_bundle
from unimodal.tensors import INDEX, SINGLE

Tree = dict[str, Any]
TOKENIZER = "tokenizer.json"
FIFTH = made.chameleon_code(5)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    made.save_janus(folder / "janus", made.janus_model())
    made.save_anole(folder / "anole", made.chameleon_model())
    made.save_emu3(folder / "chat", made.emu3_model(131072))
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def copied(directories: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """What copies a model that a test may damage."""
    return lambda name: Path(shutil.copytree(directories[name], tmp_path / name))


def rewrite(path: Path, change: Callable[[Tree], object]) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


# --- tokenizer.json -----------------------------------------------------------------------------


def with_id(spelling: str, token: object) -> Callable[[Tree], None]:
    """What gives a spelling another id."""

    def change(tree: Tree) -> None:
        for one in tree["added_tokens"]:
            if one["content"] == spelling:
                one["id"] = token
        if spelling in tree["model"]["vocab"]:
            tree["model"]["vocab"][spelling] = token

    return change


def with_model(**values: object) -> Callable[[Tree], object]:
    return lambda tree: tree["model"].update(values)


def twice(tree: Tree) -> None:
    more = {**tree["added_tokens"][0], "content": "IMGIMGAFZ", "id": 423}
    tree["added_tokens"].append(more)


@pytest.mark.parametrize(
    "name, change, said",
    [
        (
            "anole",
            with_id(FIFTH, 100_000),
            "the id of IMGIMGFZ is 100000, config.json says 424 ids",
        ),
        ("anole", with_id(FIFTH, -5), "the id of 'IMGIMGFZ' is -5, no whole number"),
        ("anole", with_id(FIFTH, 1.5), "the id of 'IMGIMGFZ' is 1.5, no whole number"),
        ("anole", with_id(FIFTH, None), "the id of 'IMGIMGFZ' is None, no whole number"),
        ("anole", with_id(FIFTH, "x"), "the id of 'IMGIMGFZ' is 'x', no whole number"),
        ("anole", with_id(FIFTH, 0), "special tokens and codes share ids"),
        ("anole", twice, "it spells 97 image codes, 96 of them different; config.json says 96"),
        ("janus", with_id(janus.IMAGE_BEGIN.name, 328), "is 328, config.json says 328 ids"),
        ("janus", with_id(janus.PLACE.name, 10**6), "is 1000000, config.json says 328 ids"),
        ("janus", with_model(merges=[3]), "model.merges are no list of pairs"),
        ("janus", with_model(merges=["a b c"]), "model.merges are no list of pairs"),
        ("janus", with_model(merges=None), "model.merges are no list of pairs"),
        ("janus", with_model(vocab=[]), "only BPE is supported"),
        ("janus", lambda tree: tree.update(added_tokens=[3]), "its added_tokens are no list"),
        ("janus", lambda tree: tree.update(pre_tokenizer={"type": "X"}), "tokenizers does not"),
    ],
)
def test_ids_that_disagree(
    copied: Callable[[str], Path], name: str, change: Callable[[Tree], object], said: str
):
    directory = copied(name)
    rewrite(directory / TOKENIZER, change)
    with pytest.raises(BundleError, match=f"{TOKENIZER}: .*{said}"):
        unimodal.load(directory)


@pytest.mark.parametrize("made_by", ["ignore_merges", "merges"])
def test_no_text_spells_a_code_that_is_no_added_token(
    copied: Callable[[str], Path], made_by: str, tmp_path: Path
):
    """Where codes are among the words of tokenizer.json, and merges or whole words make them."""
    directory = copied("anole")

    def change(tree: Tree) -> None:
        kept = ("<s>", "</s>", "<pad>", "<unk>")
        tree["added_tokens"] = [one for one in tree["added_tokens"] if one["content"] in kept]
        if made_by == "ignore_merges":
            tree["model"]["ignore_merges"] = True
            return
        vocab, merges = tree["model"]["vocab"], tree["model"]["merges"]
        pairs = [["I", "M"], ["IM", "G"], ["IMG", "IMG"], ["IMGIMG", "F"], ["IMGIMGF", "Z"]]
        for pair in pairs[:-1]:  # what they make takes the places of the last words
            vocab["".join(pair)] = vocab.pop("".join(merges.pop()))
        merges += pairs

    rewrite(directory / TOKENIZER, change)
    model = unimodal.load(directory)
    text = f"{FIFTH} <racm3:break> a"
    ids = np.array(model.text_tokenizer.encode(text))
    assert model.vocabulary.is_text(ids).all() and model.text_tokenizer.decode(ids) == text
    model.text_tokenizer.save(tmp_path / "saved.json")
    again = type(model.text_tokenizer).load(tmp_path / "saved.json", model.vocabulary.num_text)
    assert again.encode(text) == ids.tolist()


# --- weights ------------------------------------------------------------------------------------


def split(directory: Path, change: Callable[[Tree], object]) -> None:
    """Put the weights into a file of another name, with a changed index."""
    (directory / SINGLE).rename(directory / "all.safetensors")
    index = {
        "weight_map": dict.fromkeys(load_file(directory / "all.safetensors"), "all.safetensors")
    }
    index |= {"metadata": {"total_size": 5e9}}
    change(index)
    (directory / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "metadata", [None, [], {"total_size": "many"}, {"total_size": None}, {"total_size": -1}]
)
def test_an_index_without_a_size(copied: Callable[[str], Path], metadata: object):
    directory = copied("janus")
    split(directory, lambda index: index.update(metadata=metadata))
    with pytest.raises(BundleError, match=f"{INDEX}: metadata.total_size is no number of bytes"):
        unimodal.load(directory)


@pytest.mark.parametrize("file", ["../janus/all.safetensors", "/etc/passwd", "..", ""])
def test_an_index_that_names_files_elsewhere(copied: Callable[[str], Path], file: str):
    directory = copied("janus")
    split(directory, lambda index: index["weight_map"].update({"lm_head.weight": file}))
    with pytest.raises(BundleError, match=f"{INDEX} does not say which file holds which tensor"):
        unimodal.load(directory)


def test_an_index_says_how_large_the_weights_are(copied: Callable[[str], Path]):
    directory = copied("janus")
    split(directory, lambda index: None)
    assert str(published.look_at(str(directory))[1]) == "5.0 GB of weights, licence: mit"
    rewrite(directory / INDEX, lambda index: index.pop("metadata"))
    assert str(published.look_at(str(directory))[1]) == "size not said, licence: mit"
    assert unimodal.load(directory).replies == ("text", "image")


EVIL = b"cposix\nsystem\n(S'touch evil'\ntR."  # writes a file, were it unpickled


@pytest.mark.parametrize("file", [SINGLE, TOKENIZER, "config.json"])
def test_a_pickle_in_place_of_a_file(
    copied: Callable[[str], Path], file: str, monkeypatch: pytest.MonkeyPatch
):
    directory = copied("janus")
    monkeypatch.chdir(directory)
    (directory / file).write_bytes(EVIL)
    with pytest.raises(BundleError, match=file):
        unimodal.load(directory)
    assert not (directory / "evil").exists()


@pytest.mark.parametrize(
    "tensor, found, said",
    [
        ("lm_head.weight", torch.ones(3, 32), r"lm_head.weight in model.safetensors has shape \(3"),
        (
            "lm_head.weight",
            torch.ones(328, 32).double(),
            "lm_head.weight in model.safetensors is F",
        ),
        (
            "model.vqmodel.quant_conv.bias",
            torch.ones(3),
            "model.safetensors: its image tokenizer: ",
        ),
        ("model.vqmodel.more", torch.ones(3), "model.safetensors: its image tokenizer: "),
    ],
)
def test_a_tensor_that_does_not_fit(
    copied: Callable[[str], Path], tensor: str, found: torch.Tensor, said: str
):
    directory = copied("janus")
    tensors = load_file(directory / SINGLE) | {tensor: found}
    save_file(tensors, directory / SINGLE)
    with pytest.raises(BundleError, match=said):
        unimodal.load(directory)


# --- sizes --------------------------------------------------------------------------------------


def with_size(keys: str, size: float) -> Callable[[Tree], None]:
    """What says another size of one part: `keys` with dots between."""
    *sections, name = keys.split(".")

    def change(tree: Tree) -> None:
        for one in sections:
            tree = tree[one]
        assert name in tree
        tree[name] = size

    return change


PUBLISHED_SIZES = [
    ("anole", "num_hidden_layers", 10**9),
    *((name, f"text_config.{key}", size) for name in ("janus", "chat") for key, size in (
        ("num_hidden_layers", 10**9), ("vocab_size", 10**12), ("hidden_size", 10**9),
        ("intermediate_size", 10**18), ("num_attention_heads", 2**40),
    )),
    ("janus", "vision_config.num_hidden_layers", 10**9),
    ("janus", "vision_config.hidden_size", 1e12),
    ("janus", "vq_config.num_embeddings", 10**12),
    ("janus", "vq_config.embed_dim", 10**15),
    ("chat", "vq_config.base_channels", 32 * 10**12),
    ("anole", "vq_config.num_res_blocks", 10**9),
    pytest.param("anole", "vocab_size", 10**400, id="anole-beyond floats"),
]  # fmt: skip


@pytest.mark.parametrize("name, keys, size", PUBLISHED_SIZES)
def test_a_published_size_that_the_weights_cannot_have(
    copied: Callable[[str], Path], name: str, keys: str, size: float, tmp_path: Path
):
    """It is refused at once, also where the weights are yet to be fetched, and by `grow`."""
    directory = copied(name)
    rewrite(directory / "config.json", with_size(keys, size))
    section, _, key = keys.rpartition(".")
    said = f"config.json: {section}.*{key} .*bytes of weights or more, and its weights have "
    began = time.process_time()
    with pytest.raises(BundleError, match=rf"{said}\d,\d+,\d+: one"):
        unimodal.load(directory)
    with pytest.raises(ValueError, match=said):
        as_bundle(str(directory), tmp_path / "bundle")
    split(directory, lambda index: None)  # which says 5 GB
    (directory / "all.safetensors").unlink()
    with pytest.raises(BundleError, match=f"{said}5,000,000,000: one of the two"):
        unimodal.load(directory)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "keys, size, said",
    [
        ("transformer.num_layers", 10**9, "num_layers 1,000,000,000 x width 32 takes 512,000"),
        ("transformer.num_ids", 10**12, "num_ids 1,000,000,000,000 x width"),
        ("transformer.width", 10**9, "x width 1,000,000,000 takes"),
        ("transformer.mlp_width", 10**18, "mlp_width"),
        ("image.code_width", 10**12, "code_width"),
        ("image.tower.network.num_layers", 10**9, "image.tower.network.num_layers"),
        ("vocabulary.num_text", 10**12, "a table of 1,000,000,000,000 ids takes 8,000,000"),
        ("vocabulary.special_tokens.pad", 10**13, "ids takes 80,000,000"),
        ("vocabulary.code_runs", [[400, 10**12]], "ids takes 8,000,000"),
    ],
)
def test_a_size_of_a_bundle_that_its_weights_cannot_have(
    directories: dict[str, Path], keys: str, size: Any, said: str, tmp_path: Path
):
    """Whose manifest is in order."""
    bundle = as_bundle(str(directories["janus"]), tmp_path / "bundle")
    rewrite(bundle / "config.json", with_size(keys, size))
    manifest.write(bundle)
    began = time.process_time()
    for read in (unimodal.load, read_contents):
        with pytest.raises(BundleError, match=f"config.json: .*{said}"):
            read(bundle)
    assert time.process_time() - began < 2


# --- other files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, said",
    [
        ({"min_pixels": "x"}, "images of 'x' to 1048576 pixels"),
        ({"min_pixels": 10**9}, "images of 1000000000 to 1048576 pixels"),
        ({"max_pixels": None}, "images of 262144 to None pixels"),
        ({"min_pixels": 0}, "images of 0 to 1048576 pixels"),
    ],
)
def test_bounds_of_images_that_are_none(
    copied: Callable[[str], Path], values: dict[str, object], said: str
):
    directory = copied("chat")
    (directory / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=f"preprocessor_config.json: {said}"):
        unimodal.load(directory)


def test_a_processor_that_is_no_configuration(copied: Callable[[str], Path]):
    directory = copied("chat")
    rewrite(directory / "processor_config.json", lambda tree: tree.update(image_processor=[1]))
    with pytest.raises(BundleError, match="processor_config.json: image_processor is no config"):
        unimodal.load(directory)


def test_a_readme_that_is_not_utf_8_keeps_nobody_from_the_model(copied: Callable[[str], Path]):
    directory = copied("janus")
    (directory / "README.md").write_bytes(b"---\nlicense: mit\n---\nJos\xe9\n")
    assert published.look_at(str(directory))[1].licence == "mit"


@pytest.mark.parametrize("name", ["janus", "owner/name"])
def test_a_recipe_is_told_how_a_bundle_is_made(directories: dict[str, Path], name: str):
    directory = directories.get(name, Path(name))
    with pytest.raises(BundleError, match=f"`unimodal grow {directory} --output BUNDLE` makes one"):
        read_contents(directory)


def test_a_directory_without_config_says_so(copied: Callable[[str], Path]):
    directory = copied("janus")
    (directory / "config.json").unlink()
    with pytest.raises(BundleError, match="no manifest.json, nor the config.json of a published"):
        unimodal.load(directory)
