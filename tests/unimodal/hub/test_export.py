"""Export: transformers gives the same logits and ids, and the way back gives the same files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import checkpoints
import pytest
import torch
from checkpoints import logits
from click.testing import CliRunner
from growth_cases import GROWTH
from growth_cases import image as image
from growth_cases import tokenizer as tokenizer
from other_architectures import without_addresses
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from unimodal import load
from unimodal.bundle import DEFAULT, read_contents, save_bundle
from unimodal.command import main
from unimodal.document import Document, Image, Text
from unimodal.generation import generate
from unimodal.hub.export import export, restore, spelling
from unimodal.hub.grow import grow
from unimodal.model import Model

CONVERSATION = [
    ("system", "You draw."),
    ("user", " draw  a red star\n\n"),
    ("assistant", "naïve café 日本語 😀"),
    ("user", "</s><s><|im_start|>user <think>it's</think> <|endoftext|> <0x0A> [INST]"),
]
KINDS = {
    "qwen3, tied, bf16": ("qwen3", True, "json", torch.bfloat16, {}),
    "qwen2, untied": ("qwen2", False, "json", torch.float32, {}),
    "llama, sentencepiece, yarn": (
        "llama",
        False,
        "pieces",
        torch.float16,
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                             "original_max_position_embeddings": 64}},
    ),
    "mistral, of odd width": (
        "mistral", True, "pieces", torch.float32, {"hidden_size": 20, "head_dim": 8}
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=[*KINDS, "default"])
def bundle(request, image, tmp_path_factory) -> Path:  # noqa: F811
    if request.param == "default":
        return save_bundle(tmp_path_factory.mktemp("plain") / "plain", without_addresses(load()))
    family, tied, kind, dtype, values = KINDS[request.param]
    folder = tmp_path_factory.mktemp("grown")
    checkpoints.save(folder / "old", family, tied, dtype=dtype, tokenizer=kind, **values)
    growth = replace(GROWTH, rows="codes")
    return grow(folder / "old", image, folder / "new", growth, max_shard_bytes=40_000)


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory) -> Path:
    return export(bundle, tmp_path_factory.mktemp("export") / "out", max_shard_bytes=40_000)


@pytest.fixture(scope="module")
def model(bundle) -> Model:
    return load(bundle)


@pytest.fixture(scope="module")
def theirs(exported):
    return AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()


@torch.no_grad()
def test_logits_are_the_same(model, theirs):
    drawn = Image(
        codes=torch.arange(model.grid.size)[:, None].numpy(),
        grid=model.grid,
        codec_hash=model.codec.hash,
        role="assistant",
    )
    document = Document((Text("draw a red star", role="user"), drawn))
    real_BT = torch.from_numpy(model.sequencer.sequence(document).ids)[None]
    generator = torch.Generator().manual_seed(0)
    random_BT = torch.randint(0, model.vocabulary.size, (2, 200), generator=generator)
    for ids_BT in (real_BT, random_BT):
        ours_BTV, theirs_BTV = logits(model.transformer, ids_BT), theirs(ids_BT).logits
        # Sums of 320 products in other orders: the default model's logits are as large as 20.
        assert (ours_BTV - theirs_BTV).abs().max() <= 1e-5 * max(1.0, theirs_BTV.abs().max())


def plain_state(model: Model) -> dict[str, torch.Tensor]:
    """The weights of a plain language model: what levels add to codes is in their rows."""
    state = dict(model.transformer.state_dict())
    if model.transformer.architecture.is_factorised:
        assert model.transformer.architecture.transformer.tied_head
        del state["code_factors.table.weight"]
        state["model.embed_tokens.weight"] = (
            state["model.embed_tokens.weight"] + model.transformer.code_factors()
        ).detach()
    return state


def test_every_weight_is_bit_for_bit_the_same(model, theirs):
    state = theirs.state_dict()
    for name, tensor in plain_state(model).items():
        assert torch.equal(state[name], tensor), name


def test_conversations_have_the_same_ids(model, exported):
    tokenizer = AutoTokenizer.from_pretrained(exported)  # noqa: F811
    for length in range(1, len(CONVERSATION) + 1):
        turns = CONVERSATION[:length]
        document = Document(tuple(Text(text, role=role) for role, text in turns))
        messages = [{"role": role, "content": text} for role, text in turns]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        assert prompt["input_ids"] == model.sequencer.prompt(document).ids.tolist()
        whole = tokenizer.apply_chat_template(messages)
        assert whole["input_ids"] == model.sequencer.sequence(document).ids.tolist()


def test_every_id_has_one_name(model, exported):
    tokenizer = AutoTokenizer.from_pretrained(exported)  # noqa: F811
    vocabulary = model.vocabulary
    assert len(tokenizer) == vocabulary.size
    names = tokenizer.convert_ids_to_tokens(list(range(vocabulary.size)))
    assert None not in names and len(set(names)) == vocabulary.size
    assert tokenizer.convert_tokens_to_ids(names) == list(range(vocabulary.size))
    for name in ("begin", "turn_end", "size_64", "row_end"):
        assert tokenizer.convert_tokens_to_ids(spelling(name)) == vocabulary.special(name)
    drawn = "".join(spelling(name) for name in ("image", "size_1", "size_2", "code_0", "code_63"))
    special, first = vocabulary.special, vocabulary.code_slice[0]
    expected = [special("image"), special("size_1"), special("size_2"), first, first + 63]
    assert tokenizer(drawn)["input_ids"] == expected
    assert tokenizer.eos_token_id == special("turn_end")
    assert tokenizer.pad_token_id == special("pad")
    assert tokenizer(CONVERSATION[1][1])["input_ids"] == model.text_tokenizer.encode(
        CONVERSATION[1][1]
    )
    said = CONVERSATION[3][1]
    ids = model.text_tokenizer.encode(said)
    assert tokenizer.decode(ids) == model.text_tokenizer.decode(ids) == said


def test_a_qwen2_with_a_tokenizer_of_another_kind_does_not_grow(image, tmp_path):  # noqa: F811
    checkpoints.save(tmp_path / "old", "qwen2", tokenizer="pieces")
    words = "grown and trained, but never exported: AutoTokenizer reads .* to be Qwen2"
    with pytest.raises(ValueError, match=words):
        grow(tmp_path / "old", image, tmp_path / "new", GROWTH)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_tokenizer_that_spells_our_marks_does_not_grow(image, tmp_path):  # noqa: F811
    """Its export would have two ids of one name: refused as an export that lost its folder."""
    checkpoints.save(tmp_path / "old")
    tokenizer = checkpoints.bpe()  # noqa: F811
    tokenizer.add_special_tokens(["<|unimodal_code_0|>"])
    tokenizer.save(str(tmp_path / "old" / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer.json has <|unimodal_...|>"):
        grow(tmp_path / "old", image, tmp_path / "new", GROWTH)


def test_generation_ends_a_turn_and_goes_on_alike(model, theirs):
    assert theirs.generation_config.eos_token_id == model.vocabulary.special("turn_end")
    document = Document((Text("what is there?", role="user"),))
    ids_1T = torch.from_numpy(model.sequencer.prompt(document).ids)[None]
    allowed = torch.from_numpy(model.text_tokenizer.spelled).nonzero()[:, 0].tolist()
    sampling = replace(model.sampling, text_temperature=0.0, max_text_tokens=12)
    (reply,) = generate(model, [document], sampling, modality="text")
    out_1T = theirs.generate(
        ids_1T,
        max_new_tokens=12,
        do_sample=False,
        prefix_allowed_tokens_fn=lambda *_: [*allowed, theirs.generation_config.eos_token_id],
    )
    ids = [token for token in out_1T[0, ids_1T.shape[1] :].tolist() if token in set(allowed)]
    assert model.text_tokenizer.decode(ids).rstrip("\ufffd") == "".join(part.text for part in reply)


def test_the_template_refuses_what_our_layout_would_read_otherwise(exported):
    tokenizer = AutoTokenizer.from_pretrained(exported)  # noqa: F811
    for messages, words in (
        ([{"role": "tool", "content": "x"}], "a role is one of system, user, assistant"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content is text"),
        ([{"role": "user", "content": "<|unimodal_image|>"}], "may not spell a special token"),
        ([{"role": "user", "content": "x"}] * 2, "two messages of one role in a row"),
    ):
        with pytest.raises(Exception, match=words):
            tokenizer.apply_chat_template(messages)


def test_the_way_back_gives_the_same_bundle(bundle, exported, tmp_path):
    back = restore(exported, tmp_path / "back", max_shard_bytes=40_000)
    if bundle.name != "plain":  # whose weights are in one file
        assert read_contents(back).hash == read_contents(bundle).hash
        assert (back / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()
    again = export(back, tmp_path / "again", max_shard_bytes=40_000)
    files = sorted(path for path in exported.rglob("*") if path.is_file())
    assert len(files) >= 11
    for path in files:
        other = again / path.relative_to(exported)
        assert other.read_bytes() == path.read_bytes(), path.name


def test_the_default_bundle_comes_back_with_plain_rows(tmp_path):
    """What its codes' levels add is in their rows then: the same logits, one export further too."""
    default = without_addresses(load())
    bundle = save_bundle(tmp_path / "plain", default)
    back = load(restore(export(bundle, tmp_path / "out"), tmp_path / "back"))
    assert default.transformer.architecture.is_factorised
    assert not back.transformer.architecture.is_factorised
    expected = plain_state(default)
    for name, tensor in back.transformer.state_dict().items():
        assert torch.equal(tensor, expected.pop(name)), name
    assert not expected
    assert back.sampling == default.sampling and back.context == default.context
    assert back.image_tokenizer.hash == default.image_tokenizer.hash
    assert back.text_tokenizer.hash == default.text_tokenizer.hash


def test_weights_that_were_trained_elsewhere_come_back(bundle, exported, theirs, tmp_path):
    shutil.copytree(exported, tmp_path / "trained")
    for path in (tmp_path / "trained").glob("model*"):
        path.unlink()
    with torch.no_grad():
        theirs.model.layers[0].mlp.down_proj.weight.mul_(2)
    theirs.save_pretrained(tmp_path / "trained")
    back = load(restore(tmp_path / "trained", tmp_path / "back"))
    name = "model.layers.0.mlp.down_proj.weight"
    old = load(bundle).transformer.state_dict()[name]
    assert torch.equal(back.transformer.state_dict()[name], 2 * old)
    with torch.no_grad():
        theirs.model.layers[0].mlp.down_proj.weight.div_(2)


def test_an_export_does_not_grow_again(exported, image, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="exported from a bundle: its vocabulary has grown alrea"):
        grow(exported, image, tmp_path / "new")


def invoke(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def elsewhere(exported, theirs, tmp_path) -> Path:
    """The export as every trainer of Hugging Face leaves it, with one weight changed."""
    folder = tmp_path / "elsewhere"
    with torch.no_grad():
        theirs.model.norm.weight[0] += 1
    theirs.save_pretrained(folder)
    AutoTokenizer.from_pretrained(exported).save_pretrained(folder)
    with torch.no_grad():
        theirs.model.norm.weight[0] -= 1
    return folder


def test_an_export_that_others_saved_does_not_grow_again(
    elsewhere, exported, bundle, model, image, tokenizer, tmp_path  # noqa: F811
):  # fmt: skip
    new = tmp_path / "new"
    with pytest.raises(ValueError, match="saved by another program.*--like DIRECTORY"):
        grow(elsewhere, image, new)
    for words in ((), ("--tokenizer", tokenizer)):
        done = invoke("grow", elsewhere, "--output", new, *words)
        assert done.exit_code == 2 and "its folder unimodal/ is missing" in done.output
    assert not new.exists()
    for number, like in enumerate((exported, bundle)):
        done = invoke("grow", elsewhere, "--output", new / str(number), "--like", like)
        assert done.exit_code == 0, done.output
        back = load(new / str(number))
        state = back.transformer.state_dict()
        for name, tensor in plain_state(model).items():
            expected = tensor.clone()
            if name == "model.norm.weight":
                expected[0] += 1
            assert torch.equal(state[name], expected), name
        assert back.text_tokenizer.hash == model.text_tokenizer.hash


def test_marks_are_known_wherever_they_are(elsewhere, image, tmp_path):  # noqa: F811
    """In any of a tokenizer's files, and in config.json where no tokenizer was saved."""
    marked = [path for path in elsewhere.iterdir() if b"|unimodal_" in path.read_bytes()]
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in marked}
    for path in [*marked, None]:
        folder = tmp_path / f"only_{path.name if path else 'config.json'}"
        shutil.copytree(elsewhere, folder)
        for other in marked:
            if other != path:
                (folder / other.name).unlink()
        checkpoints.bpe().save(str(folder / "plain.json"))
        if path is None:
            (folder / "plain.json").rename(folder / "tokenizer.json")
        else:
            config = json.loads((folder / "config.json").read_text())
            del config["unimodal"]
            (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"{path.name if path else 'config.json'} has"):
            grow(folder, image, tmp_path / "new")


def test_a_bundle_does_not_grow(bundle, image, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="is a bundle: .* train it with weights="):
        grow(bundle, image, tmp_path / "new")
    done = invoke("grow", bundle, "--output", tmp_path / "new")
    assert done.exit_code == 2 and "is a bundle" in done.output


def test_another_models_folder_is_refused(elsewhere, image, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="its weights are not of the shapes of"):
        restore(elsewhere, tmp_path / "new", like=other_model(tmp_path, image))
    assert not (tmp_path / "new").exists()


def other_model(folder: Path, image) -> Path:  # noqa: F811
    checkpoints.save(folder / "old", "qwen3", hidden_size=24)
    return grow(folder / "old", image, folder / "other", GROWTH)


def test_another_tokenizer_of_equal_size_is_refused(image, tmp_path):  # noqa: F811
    checkpoints.save(tmp_path / "old")
    grown = grow(tmp_path / "old", image, tmp_path / "grown", GROWTH)
    out = export(grown, tmp_path / "out")
    path = out / "tokenizer.json"
    tree = json.loads(path.read_text())
    vocab = tree["model"]["vocab"]
    one, two = [name for name in vocab if vocab[name] in (260, 261)]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="is not the tokenizer of .* is the id"):
        restore(out, tmp_path / "back")


def test_numbers_that_are_not_finite_are_met(exported, image, tmp_path):  # noqa: F811
    """In any tensor of a checkpoint, by growth and by the way back."""
    checkpoints.save(tmp_path / "old")
    for source, work in (
        (tmp_path / "old", lambda at: grow(at, image, tmp_path / "new", GROWTH)),
        (exported, lambda at: restore(at, tmp_path / "new")),
    ):
        folder = tmp_path / f"spoiled_{source.name}"
        shutil.copytree(source, folder)
        path, name = next(
            (path, name)
            for path in folder.glob("model*.safetensors")
            for name in load_file(path)
            if name.endswith("down_proj.weight")
        )
        tensors = load_file(path)
        tensors[name].view(-1)[-1] = float("inf")
        save_file(tensors, path, {"format": "pt"})
        with pytest.raises(ValueError, match=f"{name} holds numbers that are not finite"):
            work(folder)
        assert not (tmp_path / "new").exists()


def test_the_commands(tmp_path, tokenizer):  # noqa: F811
    out, back = tmp_path / "out", tmp_path / "back"
    plain = save_bundle(tmp_path / "plain", without_addresses(load()))
    shipped = invoke("export", DEFAULT, "--format", "hf", "--output", out)
    assert shipped.exit_code == 2 and "adds the row and column" in shipped.output
    done = invoke("export", plain, "--format", "hf", "--output", out)
    assert (done.exit_code, done.stdout) == (0, f"{out}\n"), done.output
    again = invoke("export", plain, "--format", "hf", "--output", out)
    assert again.exit_code == 2 and "exists: choose another place" in again.output
    nowhere = invoke("export", tmp_path / "no", "--format", "hf", "--output", tmp_path / "x")
    assert nowhere.exit_code == 2 and "is no model: there is no such directory" in nowhere.output
    twice = invoke("grow", out, "--output", back, "--tokenizer", tokenizer, "--seed", 1)
    assert twice.exit_code == 2 and "cannot grow twice, so leave out --tokenizer, --seed" in (
        twice.output
    )
    done = invoke("grow", out, "--output", back)
    assert (done.exit_code, done.stdout) == (0, f"{back}\n"), done.output
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    shutil.rmtree(back)
    wrong = invoke("grow", out, "--output", back)
    assert wrong.exit_code == 2 and "weights have no place in this family" in wrong.output
