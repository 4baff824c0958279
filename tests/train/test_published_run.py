"""A published image tokenizer goes the whole way: encode a shard, train, bundle, load, draw."""

import json
from dataclasses import replace
from pathlib import Path

import checkpoints
import numpy as np
import published_tokenizers as made
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as PILImage
from tiny_runs import metrics, recipe, write_conversations

import unimodal
from unimodal.command import main
from unimodal.data import codes_member
from unimodal.data.shards import Shard, find_shards
from unimodal.image_tokenizers import load_tokenizer
from unimodal.tokenizer.grid import Grid
from unimodal.tokenizer.saved import read_kind
from unimodal.tokenizer.vqgan import Vqgan, VqganConfig
from unimodal.train import lm


def run(*words: object) -> str:
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_conversations(tmp_path_factory.mktemp("shards"), 8, 8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Janus' tokenizer as its checkpoint holds it: 8 x 8 pixels a code, canvas of 48 pixels."""
    folder = tmp_path_factory.mktemp("janus")
    made.janus(channel_multiplier=[1, 1, 1, 1]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def codes(shards: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    run("data", "encode", shards, folder, "--tokenizer", checkpoint)
    return folder


def test_from_image_shards_to_a_drawing(codes: Path, checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    (shard,) = map(Shard, find_shards(codes))
    stored = next(c for n, c in shard.sample(0).files.items() if codes_member.is_codes(n))
    assert codes_member.from_bytes(stored).codec_hash == tokenizer.hash

    bundle = lm.train(recipe(tmp_path / "run", codes, checkpoint, 2))
    assert len(metrics(tmp_path / "run")) == 2
    assert read_kind(bundle)[0] is Vqgan
    model = unimodal.load(bundle)
    assert model.image_tokenizer.hash == tokenizer.hash == load_tokenizer(bundle).hash
    assert model.grid == Grid(8, 8) and model.vocabulary.num_codes == 96

    reply = unimodal.Chat(model, seed=1)("draw a red circle", modality="image")
    (drawn,) = reply.images
    (part,) = [part for part in reply.parts if isinstance(part, unimodal.Image)]
    pixels = tokenizer.decode(torch.from_numpy(part.codes)[None], part.grid)
    wanted = ((pixels[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8)
    assert np.array_equal(np.asarray(drawn), wanted.numpy()) and drawn.size == (64, 64)

    again = unimodal.save_bundle(tmp_path / "again", model)
    assert unimodal.load(again).image_tokenizer.hash == tokenizer.hash
    damaged = bundle / "tokenizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    with pytest.raises(ValueError, match=r"tokenizer\.safetensors is not the file saved here"):
        unimodal.load(bundle)


def test_a_run_may_encode_as_it_reads(shards: Path, checkpoint: Path, codes: Path, tmp_path: Path):
    """Losses are those of the codes that were made beforehand."""
    for name, source in (("pixels", shards), ("codes", codes)):
        lm.train(recipe(tmp_path / name, source, checkpoint, 1))
    losses = [metrics(tmp_path / name)[0]["loss"] for name in ("pixels", "codes")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_codes_without_levels_are_not_factorised(shards: Path, checkpoint: Path, tmp_path: Path):
    config = recipe(tmp_path / "run", shards, checkpoint, 1)
    assert config.model is not None
    config = replace(config, model=replace(config.model, factorised=True))
    with pytest.raises(ValueError, match=r"model\.factorised: the image tokenizer's codes are not"):
        lm.train(config)


def test_a_model_whose_tokenizer_has_no_decoder_answers_in_words(drawing_model) -> None:
    shape = VqganConfig(
        num_codes=64, code_width=4, latent_width=4, width=32, multipliers=(1, 1, 1, 1),
        num_blocks=1, canvas=(64, 64), has_decoder=False,
    )  # fmt: skip
    state = Vqgan(shape, None).state_dict()
    weights = {name: torch.zeros(tensor.shape) for name, tensor in state.items()}
    reader = replace(drawing_model, image_tokenizer=Vqgan(shape, weights))
    assert unimodal.Chat(drawing_model)("draw").images
    chat = unimodal.Chat(reader)
    with pytest.raises(ValueError, match="draws nothing: its image tokenizer has no decoder"):
        chat("draw a circle", modality="image")
    reply = chat("draw a circle", [PILImage.new("RGB", (24, 16), "red")])
    assert not reply.images and reply.text


def test_images_are_encoded_and_decoded_by_the_command(checkpoint: Path, tmp_path: Path) -> None:
    PILImage.new("RGB", (100, 60), "red").save(tmp_path / "a.png")
    file = tmp_path / "codes.json"
    run("encode", tmp_path / "a.png", "--model", checkpoint, "--output", file)
    (table,) = json.loads(file.read_text())["images"].values()
    assert np.shape(table) == (6, 6)  # the canvas of its config
    run("decode", file, "--model", checkpoint, "--output", tmp_path / "out")
    assert PILImage.open(tmp_path / "out" / "a.png").size == (48, 48)
    wide = ("encode", tmp_path / "a.png", "--model", checkpoint, "--size", 32, 16, "--output", file)
    run(*wide)
    assert np.shape([*json.loads(file.read_text())["images"].values()][0]) == (2, 4)


def test_it_is_measured_as_any_other(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    run("eval", "tokenizer", checkpoint, "--samples", 2, "--json", file)
    assert json.loads(file.read_text())["recipe"]["tokenizer"] == load_tokenizer(checkpoint).hash


def test_a_language_model_grows_by_its_codes(checkpoint: Path, tmp_path: Path) -> None:
    """And comes back from an export as the bundle that it was."""
    checkpoints.save(tmp_path / "old")
    grown, more = tmp_path / "grown", ("--rows", "codes", "--context", 128)
    run("grow", tmp_path / "old", "--tokenizer", checkpoint, "--output", grown, *more)
    model = unimodal.load(grown)
    assert model.canvas == (48, 48) and model.vocabulary.num_codes == 96  # the config's own
    rows = model.transformer.model.embed_tokens.weight.detach()[model.vocabulary.code_ids]
    vectors = model.image_tokenizer.code_vectors(torch.arange(96)[:, None])
    near = [torch.cdist(one, one).fill_diagonal_(99) for one in (rows, vectors)]
    agree = near[0].argmin(1) == near[1].argmin(1)
    assert agree.float().mean() > 0.5  # like codes have like rows
    run("export", grown, "--format", "hf", "--output", tmp_path / "exported")
    run("grow", tmp_path / "exported", "--output", tmp_path / "back")
    assert unimodal.load(tmp_path / "back").hash == model.hash
