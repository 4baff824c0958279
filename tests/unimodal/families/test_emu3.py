"""Emu3 against `transformers`' own class on small random weights."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_models as made
import published_tokenizers
import pytest
import torch
import transformers
from PIL import Image as PILImage
from safetensors.torch import load_file, save_file

import unimodal
from unimodal.attention import DenseAttention
from unimodal.branches import BranchInput
from unimodal.document import Document, Image, Text
from unimodal.events import ReplyDone
from unimodal.families import emu3
from unimodal.families.fits import AreaFit
from unimodal.generation import generate, stream
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid

GRID = Grid(2, 3)


@pytest.fixture(scope="module")
def theirs() -> transformers.Emu3ForConditionalGeneration:
    return made.emu3_model()


@pytest.fixture(scope="module")
def directory(theirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_emu3(tmp_path_factory.mktemp("emu3"), theirs)


@pytest.fixture(scope="module")
def gen(directory: Path) -> Model:
    """Gen, drawing images of 8 x 12 pixels."""
    return replace(unimodal.load(directory), grid=GRID, context=1024)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return unimodal.load(made.save_emu3(tmp_path_factory.mktemp("chat"), made.emu3_model(131072)))


def logits_of(model: Model, ids: list[int]) -> torch.Tensor:
    ids_1T = torch.tensor([ids])
    tokens = BranchInput(ids_1T, torch.zeros(1, len(ids), 2, dtype=torch.int64), [()])
    attend = DenseAttention(torch.ones(len(ids), len(ids), dtype=torch.bool).tril()[None])
    positions_1T = torch.arange(len(ids))[None]
    with torch.inference_mode():
        hidden_1TD = model.transformer.hidden_states(tokens, positions_1T, attend)
        return model.transformer.logits(hidden_1TD)[0]


def user(text: str, *images: Image) -> Document:
    return Document((*images, Text(text, role="user")))


def test_logits(gen: Model, theirs):
    generator = torch.Generator().manual_seed(1)
    ids_n = torch.randint(gen.vocabulary.size, (40,), generator=generator)
    with torch.inference_mode():
        expected_nV = theirs(input_ids=ids_n[None]).logits[0]
    assert expected_nV.std() > 1
    torch.testing.assert_close(logits_of(gen, ids_n.tolist()), expected_nV, atol=1e-5, rtol=1e-5)


def test_codes_and_pixels_of_unequal_sides(gen: Model, theirs):
    images_23HW = published_tokenizers.images(16, 24)
    codes_Bn1, grid = gen.image_tokenizer.encode(images_23HW)
    assert grid == Grid(4, 6)
    with torch.inference_mode():
        sizes = torch.tensor([[16, 24]] * 2)
        expected = theirs.model.vqmodel.encode(images_23HW, sizes).image_tokens
        expected_Bhw = torch.stack(list(expected))
        pixels = theirs.model.vqmodel.decode(expected_Bhw)
    assert torch.equal(codes_Bn1.view(2, 4, 6), expected_Bhw)
    assert len(codes_Bn1.unique()) > 10
    decoded = gen.image_tokenizer.decode(codes_Bn1, grid)
    torch.testing.assert_close(decoded, pixels.clamp(-1, 1), atol=1e-5, rtol=0)


def test_a_question_is_laid_out_as_the_processor_does(chat: Model, theirs):
    rng = np.random.default_rng(2)
    shown = PILImage.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
    processor = made.emu3_processor()
    words = f"You are a helpful assistant. USER: {made.EMU3_PLACE}what is this?. ASSISTANT:"
    expected = processor(images=[shown], text=[words], return_tensors="pt")
    pixels, _ = chat.fitted(shown)
    assert list(pixels.shape[:2]) == expected["image_sizes"][0].tolist()
    (image,) = chat.codec.encode([Image(pixels, role="user")])
    ids = chat.sequencer.prompt(user("what is this?", image)).ids
    ids_n = expected["input_ids"][0]
    is_place = ids_n == theirs.model.vocabulary_mapping.image_token_id
    with torch.inference_mode():
        ids_n[is_place] = theirs.model.get_image_tokens(
            expected["pixel_values"], expected["image_sizes"]
        ).long()
    assert is_place.sum() == image.grid.height * (image.grid.width + 1)
    assert ids.tolist() == ids_n.tolist()


def test_a_question_of_words_alone(chat: Model):
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made.tokenizer(made.EMU3_SPELLINGS)
    )
    asked = "You are a helpful assistant. USER: a dog?. ASSISTANT:"
    expected = words.encode(emu3.BEGIN.name + asked, add_special_tokens=False)
    assert chat.sequencer.prompt(user("a dog?")).ids.tolist() == expected


def test_drawn_codes_are_those_of_generate(gen: Model, theirs):
    """At guidance 3, with the authors' words and negative prompt, of 2 x 3 codes."""
    processor = made.emu3_processor()
    opening = f"<|image start|>{GRID.height}*{GRID.width}<|image token|>"
    asked, negative = (
        processor(text=[words + opening], return_tensors="pt")["input_ids"]
        for words in ("a dog" + emu3.PRAISE, emu3.NEGATIVE)
    )
    codes = gen.vocabulary.code_ids.tolist()
    special = gen.vocabulary.special

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        at = len(ids) - asked.shape[1]
        row_ends = at % (GRID.width + 1) == GRID.width
        return [special("<|extra_200|>")] if row_ends else codes

    length = GRID.height * (GRID.width + 1)
    with torch.inference_mode():
        drawn = theirs.generate(
            asked, do_sample=False, max_new_tokens=length, prefix_allowed_tokens_fn=allowed,
            guidance_scale=3.0, negative_prompt_ids=negative, eos_token_id=None,
            attention_mask=torch.ones_like(asked),
            negative_prompt_attention_mask=torch.ones_like(negative),
        )[0, asked.shape[1] :]  # fmt: skip
    sampling = replace(gen.sampling, image_temperature=0.0)
    (reply,) = [e for e in stream(gen, [user("a dog")], sampling) if isinstance(e, ReplyDone)]
    opened = gen.sequencer.layout.opening(GRID)
    closed = [special("<|extra_201|>"), special("<|image end|>")]
    assert list(reply.ids) == [*opened, *drawn.tolist(), *closed]
    assert gen.drawer.sequencer.prompt(user("a dog")).ids.tolist() + opened == asked[0].tolist()
    (unguided,) = [
        e for e in stream(gen, [user("a dog")], replace(sampling, guidance=None))
        if isinstance(e, ReplyDone)
    ]  # fmt: skip
    assert reply.ids != unguided.ids  # or guidance would not have been seen


def test_negative_words_take_the_place_of_the_authors(gen: Model):
    sequencer, special = gen.drawer.sequencer, gen.vocabulary.special
    own = sequencer.prompt(user("a dog"), drop="text").ids.tolist()
    assert own == [special(emu3.BEGIN.name), *gen.text_tokenizer.encode(emu3.NEGATIVE)]
    found = sequencer.negative(user("a dog"), "rain").ids.tolist()
    assert found == [special(emu3.BEGIN.name), *gen.text_tokenizer.encode("rain")]
    sampling = replace(gen.sampling, image_temperature=0.0)
    codes = [
        generate(gen, [user("a dog")], replace(sampling, negative=words), "image")[0][0].codes
        for words in (None, emu3.NEGATIVE, "rain")
    ]
    assert np.array_equal(codes[0], codes[1]) and not np.array_equal(codes[0], codes[2])
    # The longer of the two prompts has to have room in the context.
    short = replace(gen, context=len(own) + 10)
    with pytest.raises(ValueError, match="leads away from would take .* shorten the negative"):
        generate(short, [user("a dog")], sampling, "image")


def test_it_talks_and_draws_in_a_conversation(gen: Model, chat: Model, tmp_path: Path):
    drawn = unimodal.Chat(gen, seed=3)("a dog")
    (image,) = drawn.images
    assert image.size == (12, 8) and drawn.text == ""
    (wide,) = unimodal.Chat(gen, size=(20, 4))("a dog").images
    assert wide.size == (20, 4)
    with pytest.raises(ValueError, match="both sides must be multiples of 4"):
        unimodal.Chat(gen, size=(21, 4))
    assert unimodal.Chat(gen, seed=3)("a dog").images[0].tobytes() == image.tobytes()
    talk = unimodal.Chat(chat, max_text_tokens=5)
    reply = talk("what is this?", images=[image.resize((40, 30))])
    assert not reply.images and talk("and now?").text
    with pytest.raises(ValueError, match="answers in words alone"):
        talk("a dog", modality="image")
    with pytest.raises(ValueError, match="draws from words alone"):
        unimodal.Chat(gen)("make it blue", images=[image.resize((40, 30))])


def test_both_spellings_of_stored_names_are_read(
    directory: Path, gen: Model, theirs, tmp_path: Path
):
    """`save_pretrained` writes the names of older files; the module itself has others."""
    stored = load_file(directory / "model.safetensors")
    assert {name.partition(".")[0] for name in stored} == {"text_model", "vqmodel"}
    present = tmp_path / "present"
    shutil.copytree(directory, present)
    save_file(dict(theirs.state_dict()), present / "model.safetensors")
    read = unimodal.load(present)
    one, other = read.transformer.state_dict(), gen.transformer.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert read.image_tokenizer.hash == gen.image_tokenizer.hash


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (300, 100), (700, 1900), (1024, 1024)])
def test_sizes_are_those_of_the_processor(size: tuple[int, int]):
    from transformers.models.emu3.image_processing_emu3 import smart_resize

    fit = AreaFit(512 * 512, 1024 * 1024, 8, 5.0)
    width, height = size
    expected = smart_resize(height, width, 8, 512 * 512, 1024 * 1024)
    assert fit.size_of(width, height) == expected[::-1]


def test_a_long_image_is_refused():
    with pytest.raises(ValueError, match="600 x 100 pixels is too long"):
        AreaFit(512 * 512, 1024 * 1024, 8, 5.0).size_of(600, 100)
