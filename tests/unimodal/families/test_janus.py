"""Janus against `transformers`' own class on small random weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import published_models as made
import published_tokenizers
import pytest
import torch
import transformers
from PIL import Image as PILImage

import unimodal
from unimodal.attention import DenseAttention
from unimodal.branches import BranchInput
from unimodal.checking import judged
from unimodal.checks import checks_of
from unimodal.document import Document, Image, Text
from unimodal.events import ReplyDone
from unimodal.families import janus
from unimodal.families.fits import PadFit
from unimodal.generation import generate, stream
from unimodal.model import Model
from unimodal.sequence import Sequence
from unimodal.tokenizer.grid import Grid


@pytest.fixture(scope="module")
def theirs() -> transformers.JanusForConditionalGeneration:
    return made.janus_model()


@pytest.fixture(scope="module")
def directory(theirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_janus(tmp_path_factory.mktemp("janus"), theirs)


@pytest.fixture(scope="module")
def model(directory: Path) -> Model:
    return unimodal.load(directory)


@pytest.fixture(scope="module")
def words() -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made.tokenizer(made.JANUS_SPELLINGS)
    )


def shown(model: Model, seed: int) -> Image:
    """An image of noise, as the chat would show it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
    fitted, _ = model.fitted(PILImage.fromarray(pixels))
    (image,) = model.codec.encode([Image(fitted, role="user")])
    return image


def user(text: str, *images: Image) -> Document:
    return Document((*images, Text(text, role="user")))


def logits_of(model: Model, prompt: Sequence) -> torch.Tensor:
    n = len(prompt.ids)
    tokens = BranchInput(
        torch.from_numpy(prompt.ids)[None], torch.zeros(1, n, 2, dtype=torch.int64), [prompt.spans]
    )
    attend = DenseAttention(torch.ones(n, n, dtype=torch.bool).tril()[None])
    with torch.inference_mode():
        hidden_1TD = model.transformer.hidden_states(tokens, torch.arange(n)[None], attend)
        return model.transformer.logits(hidden_1TD)[0]


@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_logits_of_a_question_about_images(model: Model, theirs, num_images: int):
    images = [shown(model, seed) for seed in range(num_images)]
    prompt = model.sequencer.prompt(user("what is this?", *images))
    assert (prompt.ids == theirs.config.image_token_id).sum() == 36 * num_images
    pixels = [torch.tensor(image.pixels).permute(2, 0, 1) / 127.5 - 1 for image in images]
    seen = {"pixel_values": torch.stack(pixels)} if images else {}
    with torch.inference_mode():
        expected_nV = theirs(input_ids=torch.from_numpy(prompt.ids)[None], **seen).logits[0]
    assert expected_nV.std() > 1
    torch.testing.assert_close(logits_of(model, prompt), expected_nV, atol=1e-5, rtol=1e-5)


def test_vision_encoder_and_aligner(model: Model, theirs):
    views = [shown(model, seed).pixels for seed in (5, 6)]
    images_P3HW = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = theirs.model.get_image_features(images_P3HW, return_dict=True)
        found_PND = model.transformer.tower.network(images_P3HW)
        torch.testing.assert_close(found_PND, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
        found_PND = model.transformer.tower.see(views)
        torch.testing.assert_close(found_PND, expected.pooler_output, atol=1e-5, rtol=1e-5)


def test_a_question_is_laid_out_as_the_authors_do(model: Model, words):
    seen = janus.IMAGE_BEGIN.name + janus.PLACE.name * 36 + janus.IMAGE_END.name
    asked = f"{janus.SYSTEM}\n\n<|User|>: {seen}\nwhat is this?\n\n<|Assistant|>:"
    expected = words.encode(janus.BEGIN.name + asked, add_special_tokens=False)
    found = model.sequencer.prompt(user("what is this?", shown(model, 1))).ids.tolist()
    assert found == expected


def test_a_second_question_follows_the_end_of_the_answer(model: Model, words):
    talk = Document((Text("hm", "user"), Text(" a dog", "assistant"), Text("and now?", "user")))
    asked = (
        f"{janus.BEGIN.name}{janus.SYSTEM}\n\n<|User|>: hm\n\n<|Assistant|>: a dog"
        f"{janus.END.name}<|User|>: and now?\n\n<|Assistant|>:"
    )
    expected = words.encode(asked, add_special_tokens=False)
    assert model.sequencer.prompt(talk).ids.tolist() == expected


def test_a_request_to_draw_and_what_guidance_compares_it_with(model: Model, words):
    asked = f"{janus.BEGIN.name}<|User|>: a dog\n\n<|Assistant|>:"  # without a system prompt
    expected = words.encode(asked, add_special_tokens=False)
    sequencer = model.drawer.sequencer
    assert sequencer.prompt(user("a dog")).ids.tolist() == expected
    blind = sequencer.prompt(user("a dog"), drop="text").ids.tolist()
    assert blind == [expected[0], *[model.vocabulary.special("pad")] * (len(expected) - 1)]
    assert sequencer.layout.opening(model.grid) == words.encode(
        janus.IMAGE_BEGIN.name, add_special_tokens=False
    )


def test_drawn_codes_are_those_of_generate(model: Model, theirs):
    """At guidance 5, 36 codes."""
    asked = model.drawer.sequencer.prompt(user("a dog")).ids.tolist()
    special = model.vocabulary.special
    asked = torch.tensor([[*asked, special(janus.IMAGE_BEGIN.name)]])
    config = transformers.GenerationConfig(
        do_sample=False, guidance_scale=5.0, bos_token_id=special(janus.BEGIN.name),
        pad_token_id=special("pad"), eos_token_id=special(janus.END.name), max_length=512,
        generation_kwargs={"boi_token_id": special(janus.IMAGE_BEGIN.name)},
    )  # fmt: skip
    with torch.inference_mode():
        drawn_1n = theirs.generate(
            asked, attention_mask=torch.ones_like(asked), generation_config=config,
            generation_mode="image",
        )  # fmt: skip
    sampling = replace(model.sampling, image_temperature=0.0)
    assert sampling.guidance == 5.0
    ((image,),) = generate(model, [user("a dog")], sampling, "image")
    assert image.codes[:, 0].tolist() == drawn_1n[0].tolist()
    assert len(set(drawn_1n[0].tolist())) > 10
    ((plain,),) = generate(model, [user("a dog")], replace(sampling, guidance=None), "image")
    assert plain.codes[:, 0].tolist() != drawn_1n[0].tolist()


def test_pixels_are_those_of_decode(model: Model, theirs):
    codes_2n = torch.randint(96, (2, 36), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = theirs.model.vqmodel.decode(codes_2n)
    found = model.image_tokenizer.decode(codes_2n[..., None], Grid(6, 6))
    torch.testing.assert_close(found, expected.clamp(-1, 1), atol=1e-5, rtol=0)


def test_codes_are_the_authors_and_not_those_of_transformers(model: Model, theirs):
    """Both are l2-normalised before the nearest is taken (LlamaGen), which transformers omits."""
    images_23HW, vq = published_tokenizers.images(24, 24), theirs.model.vqmodel
    with torch.inference_mode():
        latents_nD = vq.quant_conv(vq.encoder(images_23HW)).movedim(1, -1).flatten(0, -2)
        table_VD = vq.quantize.embedding.weight
        unit_nD, unit_VD = (x / x.norm(dim=-1, keepdim=True) for x in (latents_nD, table_VD))
        expected_n = torch.cdist(unit_nD, unit_VD).argmin(-1)
        foreign_n = vq.encode(images_23HW).image_tokens.flatten()
    found_n = model.image_tokenizer.encode(images_23HW)[0].flatten()
    assert torch.equal(found_n, expected_n)
    assert not torch.equal(found_n, foreign_n)


def test_a_reply_does_not_depend_on_its_neighbours(model: Model):
    sampling = replace(model.sampling, max_text_tokens=6)
    documents = [
        user("what is this?", shown(model, 1)), user("hm"), user("and this?", shown(model, 2)),
        user("draw it, please"), user("are they alike?", shown(model, 1), shown(model, 3)),
    ]  # fmt: skip
    modalities = ["text", "text", "text", "image", "text"]

    def ids(chosen: list[int]) -> list[tuple[int, ...]]:
        events = stream(
            model, [documents[k] for k in chosen], sampling, [modalities[k] for k in chosen]
        )
        return [e.ids for e in sorted(
            (e for e in events if isinstance(e, ReplyDone)), key=lambda e: e.request
        )]  # fmt: skip

    together = ids([0, 1, 2, 3, 4])
    assert together == [ids([k])[0] for k in range(5)]
    assert len(set(together)) == 5


def test_it_answers_draws_and_sees_what_it_drew(model: Model):
    chat = unimodal.Chat(model, seed=2, max_text_tokens=5)
    drawn = chat("a dog", modality="image")
    (image,) = drawn.images
    assert image.size == (24, 24) and not drawn.text
    assert chat("what is this?").end in ("stop", "text budget")
    prompt = model.sequencer.prompt(chat.document)
    assert [span.pixels is not None for span in prompt.spans] == [True]
    assert "latest message alone" in chat("a dog", modality="image").notes[0]
    with pytest.raises(ValueError, match="draws from words alone"):
        chat("make it blue", images=[image], modality="image")


def test_it_judges_what_it_drew_as_what_it_is_shown(model: Model):
    """Candidates have codes, and its vision encoder reads pixels."""
    chat = unimodal.Chat(model, seed=3, candidates=2)
    reply = chat("a dog", modality="image")
    assert "is kept, of 3 to 4" in reply.notes[0]
    drawn, checks = chat.document.parts[-1], checks_of("a dog")
    assert drawn.pixels is not None and drawn.codes is not None
    expected = judged(model, drawn, checks)
    assert judged(model, replace(drawn, pixels=None), checks) == expected


def test_what_is_stored_says_whether_the_head_is_tied(model: Model, directory: Path):
    assert '"tie_word_embeddings": true' in (directory / "config.json").read_text()
    assert not model.transformer.config.tied_head


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (384, 384), (200, 100), (1920, 1081)])
def test_images_are_padded_as_the_authors_do(size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image, longest = PILImage.fromarray(noise), max(size)
    width, height = (max(int(side / longest * 384), 14) for side in size)
    expected = np.full((384, 384, 3), 127, np.uint8)
    top, left = (384 - height) // 2, (384 - width) // 2
    expected[top : top + height, left : left + width] = np.asarray(
        image.resize((width, height), PILImage.Resampling.BICUBIC)
    )
    assert np.array_equal(np.asarray(PadFit(384)(image)), expected)


def test_grey_and_transparent_images_are_seen(model: Model):
    for mode in ("L", "RGBA", "1"):
        pixels, _ = model.fitted(PILImage.new(mode, (40, 10)))
        assert pixels.shape == (24, 24, 3) and pixels[0, 0].tolist() == [127] * 3
