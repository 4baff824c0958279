"""Chameleon and Anole against `transformers`' own class on small random weights."""

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
from unimodal.bundle import BundleError
from unimodal.document import Document, Image, Text
from unimodal.families.fits import BucketFit, CropFit
from unimodal.families.lumina import LuminaCodes
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Batch, Row
from unimodal.sequencer import DROPS
from unimodal.tokenizer.pixels import ImageError


@pytest.fixture(scope="module")
def theirs() -> transformers.ChameleonForConditionalGeneration:
    return made.chameleon_model()


@pytest.fixture(scope="module")
def model(theirs, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return unimodal.load(made.save_chameleon(tmp_path_factory.mktemp("chameleon"), theirs))


@pytest.fixture(scope="module")
def anole(theirs, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return unimodal.load(made.save_anole(tmp_path_factory.mktemp("anole"), theirs))


def user(text: str, *images: Image) -> Document:
    return Document((*images, Text(text, role="user")))


def logits_of(model: Model, ids_n: torch.Tensor) -> torch.Tensor:
    n = len(ids_n)
    tokens = BranchInput(ids_n[None], torch.zeros(1, n, 2, dtype=torch.int64), [()])
    attend = DenseAttention(torch.ones(n, n, dtype=torch.bool).tril()[None])
    with torch.inference_mode():
        hidden_1TD = model.transformer.hidden_states(tokens, torch.arange(n)[None], attend)
        return model.transformer.logits(hidden_1TD)[0]


def unmasked(theirs, ids_n: torch.Tensor) -> torch.Tensor:
    """Their logits, before those of codes are put out."""
    with torch.inference_mode():
        return theirs.lm_head(theirs.model(input_ids=ids_n[None]).last_hidden_state)[0]


@pytest.mark.parametrize(
    "changed", [{}, {"num_key_value_heads": 4}, {"swin_norm": True}], ids=["gqa", "mha", "swin"]
)
def test_logits(changed: dict, tmp_path: Path):
    theirs = made.chameleon_model(**changed)
    model = unimodal.load(made.save_chameleon(tmp_path, theirs))
    ids_n = torch.randint(model.vocabulary.size, (40,), generator=torch.Generator().manual_seed(1))
    expected_nV = unmasked(theirs, ids_n)
    assert expected_nV.std() > 1
    torch.testing.assert_close(logits_of(model, ids_n), expected_nV, atol=1e-5, rtol=1e-5)


def test_norms_that_several_heads_share_are_repeated(theirs, model: Model, tmp_path: Path):
    """(heads, d), (shards, d), (1, d) and (d,) give one model."""
    hashes = []
    for shape in ((4, 8), (2, 8), (1, 8), (8,)):
        directory = made.save_chameleon(tmp_path / str(shape), theirs)
        tensors = load_file(directory / "model.safetensors")
        for name in [name for name in tensors if "q_norm" in name]:
            first = tensors[name][:1].expand(4, 8)
            stored = first.reshape(4, 8)[: shape[0] if len(shape) == 2 else 1]
            tensors[name] = stored.reshape(shape).contiguous()
        save_file(tensors, directory / "model.safetensors")
        state = unimodal.load(directory).transformer.state_dict()
        hashes.append(torch.cat([state[name].flatten() for name in sorted(state)]))
    assert all(torch.equal(hashes[0], other) for other in hashes[1:])
    name = next(name for name in tensors if "q_norm" in name)
    tensors[name] = torch.zeros(3, 8)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(
        BundleError, match=r"q_norm.* has shape \(3, 8\), config.json says \(4, 8\)"
    ):
        unimodal.load(directory)


def test_codes_by_their_spelling(model: Model, theirs):
    images_23HW = published_tokenizers.images(32, 32)
    codes_Bn1, grid = model.image_tokenizer.encode(images_23HW)
    with torch.inference_mode():
        expected_Bn = theirs.model.get_image_tokens(images_23HW).reshape(2, -1)
    ids = model.vocabulary.code_to_id(codes_Bn1[..., 0].numpy())
    assert np.array_equal(ids, expected_Bn.numpy()) and len(np.unique(ids)) > 10
    assert ids.max() < made.CHAMELEON_FIRST_TEXT and len(model.vocabulary.code_runs) > 50


def test_a_conversation_in_ids(anole: Model):
    """Turns end with <reserved08706>; the beginning is <s>, whatever bos_token_id says."""
    pixels, _ = anole.fitted(PILImage.new("RGB", (50, 40), "red"))
    (image,) = anole.codec.encode([Image(pixels, role="user")])
    talk = Document(
        (image, Text("what?", "user"), Text("a dog", "assistant"), Text("and?", "user"))
    )
    ids, encode = made.chameleon_ids(), anole.text_tokenizer.encode
    end = ids["<reserved08706>"]
    codes = [ids[made.chameleon_code(int(code))] for code in image.codes[:, 0]]
    expected = [
        ids["<s>"], ids["<racm3:break>"], *codes, ids["<eoss>"], *encode("what?"), end,
        *encode("a dog"), end, *encode("and?"), end,
    ]  # fmt: skip
    assert anole.sequencer.prompt(talk).ids.tolist() == expected
    assert anole.sequencer.prompt(user("and?"), drop="text").ids.tolist() == [ids["<s>"]]


def test_chameleon_says_that_it_cannot_draw(model: Model):
    chat = unimodal.Chat(model, max_text_tokens=5)
    assert not chat("what is this?", images=[PILImage.new("RGB", (40, 40))]).images
    with pytest.raises(ValueError, match="draws nothing: its image tokenizer has no decoder"):
        chat("a dog", modality="image")
    with pytest.raises(ValueError, match="draws nothing: its image tokenizer has no decoder"):
        generate(model, [user("a dog")], modality="image")


def test_anole_draws_the_likeliest_codes(anole: Model, theirs):
    """Of their class's hidden vectors through the whole head, restricted to codes, guided."""
    ids, encode = made.chameleon_ids(), anole.text_tokenizer.encode
    opening = [ids["<racm3:break>"]]
    asked = [ids["<s>"], *encode("a dog"), ids["<reserved08706>"], *opening]
    blind, drawn = [ids["<s>"], *opening], []
    codes_C = torch.from_numpy(anole.vocabulary.code_ids)
    for _ in range(20):
        full_C, blind_C = (
            unmasked(theirs, torch.tensor([*prompt, *drawn]))[-1][codes_C]
            for prompt in (asked, blind)
        )
        drawn.append(int(codes_C[(blind_C + 3.0 * (full_C - blind_C)).argmax()]))
    sampling = replace(anole.sampling, image_temperature=0.0, image_top_p=None)
    assert sampling.guidance == 3.0
    ((image,),) = generate(anole, [user("a dog")], sampling, "image")
    found = anole.vocabulary.code_to_id(image.codes[:, 0])
    assert found[:20].tolist() == drawn and len(found) == 64 and len(set(drawn)) > 5


def shown(model: Model, role: str = "user") -> Image:
    codes = np.random.default_rng(4).integers(0, made.NUM_CODES, (model.grid.size, 1))
    codec_hash = model.image_tokenizer.hash
    return Image(codes=codes, grid=model.grid, codec_hash=codec_hash, role=role)


def image_ids(image: Image) -> list[int]:
    ids = made.chameleon_ids()
    codes = [ids[made.chameleon_code(int(code))] for code in image.codes[:, 0]]
    return [ids["<racm3:break>"], *codes, ids["<eoss>"]]


def test_without_words_images_stay(anole: Model):
    """In drawing as in learning; without words and images <s> alone is left."""
    ids, sequencer = made.chameleon_ids(), anole.sequencer
    given, drawn = shown(anole), shown(anole, "assistant")
    talk = Document((given, Text("dog", "user"), drawn, Text("now a cat", "user")))
    both = [ids["<s>"], *image_ids(given), *image_ids(drawn)]
    assert sequencer.prompt(talk, drop="text").ids.tolist() == both
    assert sequencer.prompt(talk, drop="both").ids.tolist() == [ids["<s>"]]
    learned = Document((given, Text("dog", "user"), drawn))
    whole = sequencer.sequence(learned, drop="text")
    assert whole.ids.tolist() == [*both, ids["<reserved08706>"]]
    lengths = {drop: len(sequencer.sequence(learned, drop)) for drop in DROPS}
    assert sequencer.measure(learned) == lengths and lengths["text"] > lengths["both"]


@pytest.mark.parametrize("drafts", [None, 3])
def test_three_branches_draw_the_likeliest_codes(anole: Model, theirs, drafts: int | None):
    """What is asked, its images alone, and nothing, of their class's hidden vectors: blind + 1.2
    (images - blind) + 3 (asked - images), as Chameleon's own code has it.
    """
    ids, encode = made.chameleon_ids(), anole.text_tokenizer.encode
    image, opening = shown(anole), [ids["<racm3:break>"]]
    seen = [ids["<s>"], *image_ids(image)]
    prompts = [*seen, *encode("bluer"), ids["<reserved08706>"], *opening], [*seen, *opening]
    drawn: list[int] = []
    codes_C = torch.from_numpy(anole.vocabulary.code_ids)
    for _ in range(16):
        full_C, image_C, blind_C = (
            unmasked(theirs, torch.tensor([*prompt, *drawn]))[-1][codes_C]
            for prompt in (*prompts, [ids["<s>"], *opening])
        )
        guided_C = blind_C + 1.2 * (image_C - blind_C) + 3.0 * (full_C - image_C)
        drawn.append(int(codes_C[guided_C.argmax()]))
    assert (anole.sampling.image_guidance, anole.sampling.guidance) == (1.2, 3.0)
    plain = replace(
        anole.sampling, image_temperature=0.0, image_top_p=None, image_drafts=drafts,
        max_text_tokens=1,
    )  # fmt: skip
    found = []
    for sampling in (plain, replace(plain, image_guidance=None), replace(plain, guidance=1.0)):
        asked = Document((image, Text("bluer", "user")))
        ((one,),) = generate(anole, [asked], sampling, "image")
        found.append(anole.vocabulary.code_to_id(one.codes[:, 0])[:16].tolist())
    assert found[0] == drawn and len(set(drawn)) > 4
    assert found[1] != found[0] != found[2]


def test_requests_with_and_without_images_are_drawn_together(anole: Model):
    """Three branches beside two: without images there is nothing to lead toward."""
    documents = [Document((shown(anole), Text("bluer", "user"))), user("a dog"), user("a cat")]
    samplings = [replace(anole.sampling, seed=seed) for seed in range(3)]
    samplings[2] = replace(samplings[2], guidance=1.0)
    together = generate(anole, documents, samplings, "image")
    alone = [
        generate(anole, [document], sampling, "image")[0]
        for document, sampling in zip(documents, samplings, strict=True)
    ]
    two = replace(samplings[1], image_guidance=None)
    alone[1] = generate(anole, [documents[1]], two, "image")[0]
    for (found,), (expected,) in zip(together, alone, strict=True):
        assert np.array_equal(found.codes, expected.codes)


def test_guidance_toward_images_is_refused_where_there_is_none(model: Model):
    with pytest.raises(ValueError, match="image_guidance -1: None or a number from 0"):
        replace(model.sampling, image_guidance=-1)
    lumina = Sampling(image_guidance=1.5)
    with pytest.raises(ValueError, match="has no image_guidance 1.5: leave it out"):
        lumina.check(LuminaCodes.follows, "lumina")


def test_anole_draws_of_its_own_accord(anole: Model):
    chat = unimodal.Chat(anole, text_temperature=1.0, max_text_tokens=40, max_images=1, guidance=1)
    drawn = []
    while not drawn and chat.sampling.seed < 20:
        drawn = chat("a dog").images
        chat.reset()
    assert [image.size for image in drawn] == [(32, 32)]


def test_the_loss_of_an_image_is_finite(anole: Model, theirs):
    """That of transformers is not: its class puts the logits of codes out before the loss."""
    rng = np.random.default_rng(3)
    image = Image(
        codes=rng.integers(0, made.NUM_CODES, (64, 1)), grid=anole.grid,
        codec_hash=anole.image_tokenizer.hash, role="assistant",
    )  # fmt: skip
    sequence = anole.sequencer.sequence(Document((Text("a dog", "user", 0.0), image)))
    batch = Batch.stack([Row.pack([sequence], len(sequence), anole.vocabulary.special("pad"))])
    is_code_n = torch.from_numpy(anole.vocabulary.is_code(batch.labels[0].numpy()))
    assert is_code_n.sum() == 64
    logits_64V = logits_of(anole, batch.ids[0])[is_code_n]
    losses = torch.nn.functional.cross_entropy(
        logits_64V, batch.labels[0][is_code_n], reduction="none"
    )
    assert losses.isfinite().all() and losses.mean() < 100
    with torch.inference_mode():
        assert theirs(input_ids=batch.ids, labels=batch.ids).loss > 1e30


@pytest.mark.parametrize("size", [(512, 512), (700, 600), (30, 1000), (1023, 512)])
def test_images_are_cropped_to_squares(size: tuple[int, int]):
    image = PILImage.linear_gradient("L").resize(size).convert("RGB")
    found = CropFit(512)(image)
    assert found.size == (512, 512)
    if size == (512, 512):
        assert found.tobytes() == image.tobytes()


@pytest.mark.parametrize("fit", [CropFit(512), BucketFit(512, 32)])
def test_long_thin_images_are_refused(fit):
    """To be cropped they would be resized to gigabytes."""
    assert CropFit(8)(PILImage.new("RGB", (2, 128))).size == (8, 8)
    for size in ((1, 65), (65, 1), (16_000_000, 1)):
        with pytest.raises(ImageError, match=f"{size[0]} x {size[1]} .* up to 64 times as long"):
            fit(PILImage.new("RGB", size))
