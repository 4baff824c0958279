"""Liquid: ids by hand, logits and codes against `transformers`' Gemma."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_models as made
import published_tokenizers
import pytest
import torch
import transformers
from click.testing import CliRunner
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file

import unimodal
from unimodal.attention import DenseAttention
from unimodal.branches import BranchInput
from unimodal.bundle import BundleError
from unimodal.command import main
from unimodal.document import Document, Image, Text
from unimodal.families.fits import SquareFit
from unimodal.families.published import draws_already
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.tensors import SINGLE
from unimodal.tokenizer.pixels import ImageError

IDS = made.liquid_ids()
FIRST = made.NUM_TEXT + len(IDS)  # the id of code 0
BOS, BOI, EOI = IDS["<bos>"], IDS["<boi>"], IDS["<eoi>"]
TURN, TURN_END = IDS["<start_of_turn>"], IDS["<end_of_turn>"]
ASKED = "a dog Generate an image based on this description."


@pytest.fixture(scope="module")
def theirs() -> transformers.GemmaForCausalLM:
    return made.liquid_model()


@pytest.fixture(scope="module")
def directory(theirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_liquid(tmp_path_factory.mktemp("liquid"), theirs)


@pytest.fixture(scope="module")
def model(directory: Path) -> Model:
    return unimodal.load(directory)


@pytest.fixture
def copied(directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(directory, tmp_path / "copy"))


def change(directory: Path, **values: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def user(text: str) -> Document:
    return Document((Text(text, role="user"),))


def shown(model: Model, role: str = "user") -> Image:
    codes = np.random.default_rng(4).integers(0, made.NUM_CODES, (model.grid.size, 1))
    codec_hash = model.image_tokenizer.hash
    return Image(codes=codes, grid=model.grid, codec_hash=codec_hash, role=role)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_logits(kv_heads: int, tmp_path: Path):
    theirs = made.liquid_model(num_key_value_heads=kv_heads)
    model = unimodal.load(made.save_liquid(tmp_path, theirs))
    size = model.vocabulary.size
    assert size == FIRST + made.NUM_CODES == theirs.config.vocab_size
    ids_1T = torch.randint(size, (1, 40), generator=torch.Generator().manual_seed(1))
    tokens = BranchInput(ids_1T, torch.zeros(1, 40, 2, dtype=torch.int64), [()])
    attend = DenseAttention(torch.ones(40, 40, dtype=torch.bool).tril()[None])
    with torch.inference_mode():
        hidden_1TD = model.transformer.hidden_states(tokens, torch.arange(40)[None], attend)
        found, expected = model.transformer.logits(hidden_1TD), theirs(input_ids=ids_1T).logits
    assert expected.std() > 1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_codes_are_those_of_chameleon(model: Model):
    images_23HW = published_tokenizers.images(32, 32)
    codes_Bn1, _ = model.image_tokenizer.encode(images_23HW)
    with torch.inference_mode():
        expected = published_tokenizers.chameleon().encode(images_23HW).image_tokens.reshape(2, -1)
    assert np.array_equal(codes_Bn1[..., 0].numpy(), expected.numpy())
    assert model.vocabulary.code_runs == ((FIRST, made.NUM_CODES),)


def test_a_conversation_in_ids(model: Model):
    """An image stands between <boi> and <eoi>, and a line ends behind it."""
    encode, image = model.text_tokenizer.encode, shown(model)
    (line,) = encode("\n")
    written = [BOI, *(FIRST + image.codes[:, 0]).tolist(), EOI, line]
    talk = Document((image, Text("what?", "user"), Text("a dog", "assistant"), Text("so", "user")))
    assert model.sequencer.prompt(talk).ids.tolist() == [
        BOS, TURN, *encode("user\n"), *written, *encode("what?"), TURN_END, line,
        TURN, *encode("model\n"), *encode("a dog"), TURN_END, line,
        TURN, *encode("user\nso"), TURN_END, line, TURN, *encode("model\n"),
    ]  # fmt: skip


def test_requests_in_ids(model: Model):
    drawer = model.drawer.sequencer
    encode = model.text_tokenizer.encode
    assert drawer.prompt(user("a dog")).ids.tolist() == [BOS, *encode(ASKED)]
    blind = [BOS, IDS["<unconditional>"]]
    assert drawer.prompt(user("a dog"), drop="text").ids.tolist() == blind
    image = shown(model, "assistant")
    written = [BOI, *(FIRST + image.codes[:, 0]).tolist(), EOI, IDS["<eos>"]]
    learned = Document((Text("a dog", "user", 0.0), image))
    assert model.sequencer.sequence(learned).ids.tolist() == [BOS, *encode(ASKED), *written]
    assert model.sequencer.sequence(learned, drop="text").ids.tolist() == [*blind, *written]


@pytest.mark.parametrize("drafts", [None, 3])
def test_the_likeliest_codes(model: Model, theirs, drafts: int | None):
    """Of their class's logits, restricted to codes: blind + 7 (asked - blind)."""
    asked = [BOS, *model.text_tokenizer.encode(ASKED), BOI]
    blind, drawn = [BOS, IDS["<unconditional>"], BOI], []
    for _ in range(model.grid.size):
        with torch.inference_mode():
            full_C, blind_C = (
                theirs(input_ids=torch.tensor([[*prompt, *drawn]])).logits[0, -1, FIRST:]
                for prompt in (asked, blind)
            )
        drawn.append(FIRST + int((blind_C + 7.0 * (full_C - blind_C)).argmax()))
    settings = model.sampling
    assert (settings.guidance, settings.image_temperature) == (7.0, 0.99)
    assert (settings.image_top_k, settings.image_top_p) == (4096, 0.96)
    sampling = replace(
        settings, image_temperature=0.0, image_top_k=None, image_top_p=None, image_drafts=drafts
    )
    ((image,),) = generate(model, [user("a dog")], sampling, "image")
    assert (FIRST + image.codes[:, 0]).tolist() == drawn and len(set(drawn)) > 8


def test_chat_answers_draws_and_sees(model: Model):
    chat = unimodal.Chat(model, max_text_tokens=4, seed=2)
    (image,) = chat("a dog", modality="image").images
    assert image.size == (32, 32)
    assert chat("what is it?").end in ("stop", "text budget")
    reply = chat("and this?", [PILImage.new("RGB", (20, 9))])
    assert reply.end in ("stop", "text budget") and not reply.images


def test_a_plain_gemma_is_none(copied: Path, tmp_path: Path):
    """Its embedding has as many rows as its tokenizer.json has ids: `grow` takes it as any other
    language model.
    """
    assert draws_already(copied)
    change(copied, vocab_size=FIRST)
    with pytest.raises(BundleError, match=f"vocab_size {FIRST}: a Liquid has 96 rows for image"):
        unimodal.load(copied)
    plain = made.liquid_model(vocab_size=FIRST)
    plain.config.vq_config = None
    plain.save_pretrained(tmp_path / "plain")
    shutil.copy(copied / "tokenizer.json", tmp_path / "plain")
    assert not draws_already(tmp_path / "plain")
    asked = ["grow", str(tmp_path / "plain"), "--output", str(tmp_path / "grown")]
    asked += ["--tokenizer", str(made.save_chameleon(tmp_path / "c", made.chameleon_model()))]
    done = CliRunner().invoke(main, [*asked, "--grid", "8x8"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert unimodal.load(tmp_path / "grown").transformer.config.centred_norms


def test_without_its_image_tokenizer_it_is_refused(copied: Path):
    """As it is published; without a decoder it answers in words alone."""
    tensors = load_file(copied / SINGLE)
    save_file({n: t for n, t in tensors.items() if ".decoder." not in n}, copied / SINGLE)
    assert unimodal.load(copied).replies == ("text",)
    save_file({n: t for n, t in tensors.items() if "vqmodel" not in n}, copied / SINGLE)
    with pytest.raises(BundleError, match="no weight begins with model.vqmodel. or vqmodel."):
        unimodal.load(copied)


def test_a_mark_that_is_missing_is_named(copied: Path):
    path = copied / "tokenizer.json"
    path.write_text(path.read_text().replace("<unconditional>", "<other>"))
    with pytest.raises(BundleError, match="it lacks the special tokens <unconditional>"):
        unimodal.load(copied)


@pytest.mark.parametrize("size", [(512, 512), (900, 300), (300, 901), (1024, 16)])
def test_images_are_padded_to_squares(size: tuple[int, int]):
    """As the authors do who pad first, but for pixels beside the border."""
    image = PILImage.linear_gradient("L").resize(size).convert("RGB")
    found = SquareFit(512)(image)
    assert found.size == (512, 512)
    square = PILImage.new("RGB", (max(size),) * 2, (122, 116, 104))
    square.paste(image, tuple((max(size) - side) // 2 for side in size))
    expected = np.asarray(square.resize((512, 512), PILImage.Resampling.LANCZOS)).astype(int)
    apart = abs(np.asarray(found).astype(int) - expected).max(-1)
    assert (apart > 3).mean() < 0.02
    if size == (512, 512):
        assert found.tobytes() == image.tobytes()
    with pytest.raises(ImageError, match="up to 64 times as long"):
        SquareFit(512)(PILImage.new("RGB", (65, 1)))
