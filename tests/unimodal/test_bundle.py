"""A bundle comes back as it went, and every damage is named."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import CARD
from safetensors.torch import load_file

from unimodal import bundle, vocabulary
from unimodal.architecture import ImageConfig
from unimodal.bundle import BundleError, load, save_bundle
from unimodal.card import read_card
from unimodal.chat import Chat
from unimodal.document import Document, Text
from unimodal.manifest import FILES
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.unified import UnifiedModel


@pytest.fixture
def saved(tiny_model, tmp_path) -> Path:
    return save_bundle(tmp_path / "model", tiny_model)


def snapshot(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_a_bundle_comes_back_rounded_to_bfloat16_and_otherwise_equal(tiny_model, saved):
    found = load(saved)
    for name, tensor in tiny_model.transformer.state_dict().items():
        torch.testing.assert_close(
            found.transformer.state_dict()[name], tensor.bfloat16().float(), rtol=0, atol=0
        )
        assert load_file(saved / "model.safetensors")[name].dtype == torch.bfloat16
    assert found.transformer.config == tiny_model.transformer.config
    assert not found.transformer.training
    for field in ("vocabulary", "grid", "sampling", "context", "card", "canvas"):
        assert getattr(found, field) == getattr(tiny_model, field), field
    assert found.image_tokenizer.hash == tiny_model.image_tokenizer.hash
    assert found.text_tokenizer.encode("draw two") == tiny_model.text_tokenizer.encode("draw two")
    prompt = Document((Text("make it blue", role="user"),))
    ids = tiny_model.sequencer.prompt(prompt).ids
    assert (found.sequencer.prompt(prompt).ids == ids).all()


def test_a_second_round_trip_changes_no_byte(saved, tmp_path):
    again = save_bundle(tmp_path / "again", load(saved))
    assert snapshot(again) == snapshot(saved)


def test_untied_heads_come_back(drawing_model, tmp_path):
    found = load(save_bundle(tmp_path / "model", drawing_model))
    head = found.transformer.state_dict()["lm_head.weight"]
    torch.testing.assert_close(head, drawing_model.transformer.lm_head.weight, rtol=0, atol=0)


def test_manifest_holds_the_sha256_of_every_file(saved):
    files = json.loads((saved / "manifest.json").read_text())["files"]
    assert set(files) == {path.name for path in saved.iterdir()} - {"manifest.json"}
    for name, listed in files.items():
        data = (saved / name).read_bytes()
        assert listed == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("name", FILES)
def test_each_missing_cut_or_altered_file_is_named(saved, name):
    path = saved / name
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing.*again"):
        load(saved)
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=f"{name} has {len(whole) - 1} bytes instead of"):
        load(saved)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"{name} is not the file saved here"):
        load(saved)


def test_a_foreign_file_is_named_and_a_hidden_one_ignored(saved):
    (saved / ".DS_Store").touch()
    load(saved)
    (saved / "model.pkl").touch()
    with pytest.raises(BundleError, match="model.pkl is foreign"):
        load(saved)


def test_paths_that_are_no_bundle(tmp_path, monkeypatch):
    with pytest.raises(BundleError, match="nowhere is no model: there is no such directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="it has no manifest.json"):
        load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="give the directory"):
        load(tmp_path / "file")
    monkeypatch.setattr(bundle, "DEFAULT", tmp_path / "default")
    with pytest.raises(BundleError, match="no default model is installed"):
        load()


@pytest.mark.skipif(not bundle.DEFAULT.is_dir(), reason="no default model in this checkout")
def test_the_default_model_is_whole_small_and_says_where_it_comes_from():
    model = load()
    assert sum(path.stat().st_size for path in bundle.DEFAULT.iterdir()) <= 25_000_000
    assert (model.context, model.usable_context) == (2048, 1152)
    for name in ("config", "commit", "data_seeds", "hardware", "hours", "scores"):
        assert model.card.get(name) is not None, name


def reseal(directory: Path, name: str, data: bytes) -> None:
    """Replace a file as a careful forger would: with the manifest to match."""
    (directory / name).write_bytes(data)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def test_another_image_tokenizer_is_refused(saved, tiny_model, tmp_path):
    ImageTokenizer(tiny_model.image_tokenizer.config, seed=9).save(tmp_path)
    reseal(saved, "tokenizer.safetensors", (tmp_path / "tokenizer.safetensors").read_bytes())
    with pytest.raises(BundleError, match="tokenizer.safetensors is another image tokenizer"):
        load(saved)


def test_files_that_do_not_fit_each_other_are_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    shape, sizes = config["transformer"], config["vocabulary"]
    changes = {
        "width": ({**config, "transformer": {**shape, "width": 16}}, "do not fit"),
        "text": ({**config, "vocabulary": {**sizes, "num_text": 256}}, "text.json has"),
        "codes": (
            {**config, "vocabulary": {**sizes, "code_runs": [[sizes["code_runs"][0][0], 9]]}},
            "tokenizer.json has",
        ),
        "overlap": (
            {**config, "vocabulary": {**sizes, "special_tokens": {"pad": 300, "end": 300}}},
            "special tokens and codes share ids",
        ),
        "head": ({**config, "image": {"head": "nobody:Head"}}, "import nobody first, if you trust"),
        "unknown": ({**config, "contxt": 1}, "did you mean 'context'"),
        "format": ({**config, "format": 99}, "format 2: update"),
        "heads": ({**config, "transformer": {**shape, "num_heads": 3}}, "divide"),
    }
    for values, words in changes.values():
        reseal(saved, "config.json", json.dumps(values).encode())
        with pytest.raises(BundleError, match=words):
            load(saved)
    reseal(saved, "config.json", json.dumps(config).encode())
    for name in ("text.json", "model.safetensors", "tokenizer.json", "config.json"):
        whole = (saved / name).read_bytes()
        reseal(saved, name, b"nonsense")
        with pytest.raises(BundleError):
            load(saved)
        reseal(saved, name, whole)
    load(saved)


def of_format_1(directory: Path) -> dict:
    """The config.json that a bundle had before special tokens had a table of their own."""
    config = json.loads((directory / "config.json").read_text())
    table, sampling = config["vocabulary"], config["sampling"]
    ((_, num_codes),) = table["code_runs"]
    sampling["max_pictures"] = sampling.pop("max_images")
    del config["image"]
    vocabulary = {"num_text": table["num_text"], "num_codes": num_codes}
    return {**config, "vocabulary": vocabulary, "format": 1}


def test_a_bundle_of_format_1_is_read_with_the_same_ids(tiny_model, saved):
    old, new = of_format_1(saved), load(saved)
    reseal(saved, "config.json", json.dumps(old).encode())
    found = load(saved)
    assert found.vocabulary == new.vocabulary == tiny_model.vocabulary
    # Codes came 75 ids after the text, the first special token at once behind it.
    num_text = tiny_model.text_tokenizer.num_ids
    assert found.vocabulary.code_slice == (num_text + 75, num_text + 75 + 64)
    assert found.vocabulary.special("pad") == num_text
    assert found.vocabulary.special("size_64") == num_text + 74
    assert found.sampling == new.sampling and found.grid == new.grid
    for name, tensor in new.transformer.state_dict().items():
        assert torch.equal(found.transformer.state_dict()[name], tensor)
    reseal(saved, "config.json", json.dumps({**old, "vocabulary": {"num_text": 5}}).encode())
    with pytest.raises(BundleError, match=r"config\.json is damaged \(KeyError\('num_codes'\)\)"):
        load(saved)


def test_a_stored_table_is_not_shifted_by_tokens_that_join_later(tiny_model, saved, monkeypatch):
    before = load(saved)
    names = (*vocabulary.SPECIAL_TOKENS[:5], "video", *vocabulary.SPECIAL_TOKENS[5:])
    monkeypatch.setattr(vocabulary, "SPECIAL_TOKENS", names)
    old = of_format_1(saved)
    grown = vocabulary.Vocabulary.new(tiny_model.text_tokenizer.num_ids, 64)
    assert grown.special("image") == tiny_model.vocabulary.special("image") + 1
    after = load(saved)
    assert after.vocabulary == before.vocabulary == tiny_model.vocabulary
    with pytest.raises(ValueError, match="no special token 'video': grow it anew"):
        after.vocabulary.special("video")
    asked = Document((Text("make it blue", role="user"),))
    assert (after.sequencer.prompt(asked).ids == tiny_model.sequencer.prompt(asked).ids).all()
    reseal(saved, "config.json", json.dumps(old).encode())
    assert load(saved).vocabulary == before.vocabulary


def test_a_head_of_somebody_else_is_loaded_where_it_was_imported(tiny_model, tmp_path, monkeypatch):
    """A bundle's files import nothing by themselves."""
    (tmp_path / "their_head.py").write_text(THEIR_HEAD)
    monkeypatch.syspath_prepend(tmp_path)
    shape = dataclasses.replace(
        tiny_model.transformer.architecture, image=ImageConfig("their_head:Head")
    )
    transformer = UnifiedModel(shape, trusted=True).eval()
    model = dataclasses.replace(tiny_model, transformer=transformer)
    path = save_bundle(tmp_path / "model", model)
    head = load(path).transformer.head
    assert type(head) is sys.modules["their_head"].Head
    assert torch.equal(head.scale, transformer.head.scale.bfloat16().float())
    monkeypatch.delitem(sys.modules, "their_head")
    with pytest.raises(BundleError, match="import their_head first, if you trust it"):
        load(path)
    assert "their_head" not in sys.modules


THEIR_HEAD = """
import torch
from unimodal.heads.next_code import NextCode

class Head(NextCode):
    def __init__(self, shape):
        super().__init__(shape)
        self.scale = torch.nn.Parameter(torch.ones(3))
"""


def test_damaged_manifests_are_refused(saved):
    for files in (3, {"../../etc/passwd": {}}, dict.fromkeys(FILES, 3)):
        (saved / "manifest.json").write_text(json.dumps({"files": files}))
        with pytest.raises(BundleError, match="manifest.json does not list"):
            load(saved)
    for text in ("", "[]", "{}"):
        (saved / "manifest.json").write_text(text)
        with pytest.raises(BundleError, match="manifest.json"):
            load(saved)


def test_the_hash_covers_the_model_and_not_its_card(saved, drawing_model, tmp_path):
    before = load(saved)
    scores = {"drawing": {"overall": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 100}}}
    save_bundle(saved, dataclasses.replace(before, card={**CARD, "scores": scores}))
    assert load(saved).hash == before.hash
    assert load(saved).card["scores"] == scores
    assert "| drawing.overall | 0.500 (0.400 to 0.600) |" in (saved / "README.md").read_text()
    sampling = dataclasses.replace(before.sampling, guidance=2.0)
    assert (
        load(save_bundle(saved, dataclasses.replace(before, sampling=sampling))).hash != before.hash
    )
    assert load(save_bundle(tmp_path / "other", drawing_model)).hash != before.hash


def test_a_card_may_say_that_replies_hold_for_fewer_tokens(drawing_model, tmp_path):
    """A chat is cut there, and the hash is that of the model all the same."""
    save_bundle(tmp_path / "all", dataclasses.replace(drawing_model, card=CARD))
    few = dataclasses.replace(drawing_model, card=CARD | {"usable_context": 200})
    save_bundle(tmp_path / "few", few)
    whole, cut = load(tmp_path / "all"), load(tmp_path / "few")
    assert whole.hash == cut.hash and whole.context == cut.context
    assert (whole.usable_context, cut.usable_context) == (drawing_model.context, 200)
    assert dataclasses.replace(few, card=CARD | {"usable_context": 10**6}).usable_context == 512
    for model, fits in ((whole, True), (cut, False)):
        chat = Chat(model, max_text_tokens=4)
        if fits:
            assert chat("word " * 40).text == "ok"
        else:
            with pytest.raises(ValueError, match="of the model's 200 tokens"):
                chat("word " * 40)
    for wrong in (0, -5, "many", True, 1.5, None):
        card = CARD | {"usable_context": wrong}
        reseal(tmp_path / "few", "card.json", json.dumps(card).encode())
        with pytest.raises(BundleError, match=f"usable_context {wrong!r} is no number of tokens"):
            load(tmp_path / "few")


def test_an_incomplete_card_is_refused(tiny_model, tmp_path):
    card = {key: value for key, value in CARD.items() if key not in ("commit", "hours")}
    with pytest.raises(ValueError, match="the card lacks commit, hours"):
        save_bundle(tmp_path / "model", dataclasses.replace(tiny_model, card=card))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_card_is_named(content, tmp_path):
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(BundleError, match=r"card\.json .*fetch the bundle again"):
        read_card(tmp_path)


def test_saving_replaces_a_bundle_but_nothing_else(tiny_model, drawing_model, saved, tmp_path):
    first = load(saved).hash
    save_bundle(saved, drawing_model)
    assert load(saved).hash != first
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(BundleError, match="holds something that is no bundle"):
        save_bundle(tmp_path / "thesis", tiny_model)
    with pytest.raises(BundleError, match="is a file"):
        save_bundle(tmp_path / "thesis" / "chapter", tiny_model)
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_a_failed_write_leaves_the_old_bundle(tiny_model, saved, monkeypatch):
    before = snapshot(saved.parent)

    def full(path, *_):
        (path / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_write_weights", full)
    with pytest.raises(BundleError, match="No space left on device.*; nothing was changed"):
        save_bundle(saved, tiny_model)
    assert snapshot(saved.parent) == before


def test_a_full_disk_is_said_and_leaves_nothing_behind(tiny_model, small_disk):
    with pytest.raises(BundleError, match="[Nn]o space left.*choose another place"):
        save_bundle(small_disk / "model", tiny_model)
    assert list(small_disk.iterdir()) == []
