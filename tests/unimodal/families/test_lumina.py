"""Lumina-mGPT: sizes and rows by hand, codes against `transformers`' Chameleon."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_models as made
import pytest
import torch
from PIL import Image as PILImage

import unimodal
from unimodal.bundle import BundleError
from unimodal.document import Document, Image, Text
from unimodal.families import lumina
from unimodal.families.fits import BucketFit, bucket_sizes
from unimodal.generation import generate
from unimodal.model import Model
from unimodal.tokenizer.grid import Grid

GRID = Grid(2, 4)  # 32 x 64 pixels: one step and two
IDS = made.chameleon_ids(made.LUMINA_MORE)
TURN_END, ROW_END = IDS["<reserved08706>"], IDS["<reserved08799>"]
OPENING = [IDS["<racm3:break>"], IDS["<reserved08801>"], IDS["<reserved08802>"]]
ASKED = "Generate an image of 64x32 according to the following prompt:\na dog"


@pytest.fixture(scope="module")
def theirs():
    return made.lumina_model()


@pytest.fixture(scope="module")
def directory(theirs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.save_lumina(tmp_path_factory.mktemp("lumina"), theirs)


@pytest.fixture(scope="module")
def model(directory: Path) -> Model:
    return replace(unimodal.load(directory), grid=GRID)


def user(text: str) -> Document:
    return Document((Text(text, role="user"),))


def drawn(model: Model, grid: Grid, role: str = "assistant") -> Image:
    codes = np.random.default_rng(grid.size).integers(0, made.NUM_CODES, (grid.size, 1))
    return Image(codes=codes, grid=grid, codec_hash=model.image_tokenizer.hash, role=role)


def code_ids(image: Image) -> list[int]:
    return [IDS[made.chameleon_code(int(code))] for code in image.codes[:, 0]]


def test_an_image_in_ids(model: Model):
    """Height, then width, in steps of two codes; all rows end."""
    image = drawn(model, GRID)
    codes = code_ids(image)
    expected = [*OPENING, *codes[:4], ROW_END, *codes[4:], ROW_END, IDS["<eoss>"]]
    assert model.sequencer.image(image).ids.tolist() == expected


def test_requests_in_ids(model: Model):
    """A request to draw says the size in one text with the words; other turns are bare."""
    encode = model.text_tokenizer.encode
    asked = [IDS["<s>"], *encode(ASKED), TURN_END]
    assert model.drawer.sequencer.prompt(user("a dog")).ids.tolist() == asked
    assert not len(model.drawer.sequencer.prompt(user("a dog"), drop="text"))
    image = drawn(model, GRID, "user")
    shown = Document((image, Text("what?", "user")))
    ids = [IDS["<s>"], *model.sequencer.image(image).ids.tolist(), *encode("what?"), TURN_END]
    assert model.sequencer.prompt(shown).ids.tolist() == ids


def test_what_is_learned_says_the_size_of_its_own_image(model: Model):
    """Not that of the model's grid; and it is measured as it is laid out."""
    image, sequencer = drawn(model, Grid(6, 2)), model.sequencer
    document = Document((Text("a dog", "user", 0.0), image))
    words = ASKED.replace("64x32", "32x96")
    start = [IDS["<s>"], *model.text_tokenizer.encode(words), TURN_END]
    ids = [*start, *sequencer.image(image).ids.tolist(), TURN_END]
    assert sequencer.sequence(document).ids.tolist() == ids
    dropped = [*sequencer.image(image).ids.tolist(), TURN_END]
    assert sequencer.sequence(document, drop="text").ids.tolist() == dropped
    assert sequencer.measure(document)[None] == len(ids)
    assert sequencer.measure(document)["text"] == len(dropped)


def test_the_likeliest_codes(model: Model, theirs):
    """Of their class's hidden vectors through the whole head, restricted to codes and guided away
    from the image alone, which stands at the first positions.
    """
    asked = [IDS["<s>"], *model.text_tokenizer.encode(ASKED), TURN_END, *OPENING]
    codes_C = torch.from_numpy(model.vocabulary.code_ids)

    def logits_C(ids: list[int]) -> torch.Tensor:
        hidden = theirs.model(input_ids=torch.tensor([ids])).last_hidden_state
        return theirs.lm_head(hidden)[0, -1][codes_C]

    found: list[int] = []
    with torch.inference_mode():
        while len(found) < GRID.size + GRID.height:
            if len(found) % (GRID.width + 1) == GRID.width:
                found.append(ROW_END)
                continue
            blind_C = logits_C([*OPENING, *found])
            guided_C = blind_C + 4.0 * (logits_C([*asked, *found]) - blind_C)
            found.append(int(codes_C[guided_C.argmax()]))
    sampling = replace(model.sampling, image_temperature=0.0, image_top_k=None)
    assert sampling.guidance == 4.0
    ((image,),) = generate(model, [user("a dog")], sampling, "image")
    assert code_ids(image) == [one for one in found if one != ROW_END] and len(set(found)) > 4


def test_sizes_are_asked_for(model: Model):
    chat = unimodal.Chat(model, size=(32, 96), seed=1, max_text_tokens=3)
    reply = chat("a dog")
    assert [image.size for image in reply.images] == [(32, 96)] and reply.end == "stop"
    assert chat("what is it?", modality="text").images == []
    for size, said in (
        ((48, 64), "whole multiples of 2"), ((32, 32 * 65), "from 16 to 2048"), ((30, 64), "16"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            unimodal.Chat(model, size=size)


def walked(num: int) -> list[tuple[int, int]]:
    """The authors' walk down the staircase of sizes, in steps."""
    wide, high, found = num, 1, []
    while wide:
        if max(wide, high) <= 4 * min(wide, high):
            found.append((wide, high))
        if (high + 1) * wide <= num:
            high += 1
        else:
            wide -= 1
    return found


@pytest.mark.parametrize("target", [64, 512, 768, 1024])
def test_sizes_are_those_of_the_authors(target: int):
    sizes = bucket_sizes(target, 32)
    assert sizes == [(32 * w, 32 * h) for w, h in walked((target // 32) ** 2)]
    assert (target, target) in sizes and (2 * target, target // 2) in sizes


@pytest.mark.parametrize(
    "size, fitted",
    [((512, 512), (512, 512)), ((1300, 1300), (512, 512)), ((2000, 500), (1024, 256)),
     ((100, 900), (256, 1024)), ((640, 480), (576, 448))],
)  # fmt: skip
def test_images_are_cropped_to_the_nearest_shape(size: tuple[int, int], fitted: tuple[int, int]):
    image = PILImage.linear_gradient("L").resize(size).convert("RGB")
    found = BucketFit(512, 32)(image)
    assert found.size == fitted
    if size == (512, 512):
        assert found.tobytes() == image.tobytes()


def test_the_default_size_is_what_the_context_holds(directory: Path):
    assert unimodal.load(directory).grid == Grid(48, 48)
    assert lumina.target_of(4096) == 768 and lumina.target_of(2048) == 512


def changed(directory: Path, copy: Path, name: str, old: str, new: str) -> Path:
    copy.mkdir()
    for path in directory.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))
    return copy


def test_what_cannot_be_is_refused(directory: Path, tmp_path: Path):
    odd = changed(directory, tmp_path / "odd", "tokenizer.json", "<reserved08824>", "<x>")
    with pytest.raises(BundleError, match="lacks the special tokens <reserved08824>"):
        unimodal.load(odd)
    raw = json.loads((directory / "config.json").read_text())
    assert raw["vq_config"]["channel_multiplier"] == [1] * 5
    (odd / "config.json").write_text(
        json.dumps(raw | {"vq_config": raw["vq_config"] | {"channel_multiplier": [1] * 4}})
    )
    with pytest.raises(BundleError, match="a code of 8 x 8 pixels"):
        unimodal.load(odd)


def test_without_a_decoder_it_reads(theirs, directory: Path, tmp_path: Path):
    made.save_chameleon(tmp_path, theirs)
    (tmp_path / "config.json").write_bytes((directory / "config.json").read_bytes())
    model = replace(unimodal.load(tmp_path), fit=BucketFit(64, 32))
    assert model.replies == ("text",)
    chat = unimodal.Chat(model, max_text_tokens=3)
    assert chat("what?", images=[PILImage.new("RGB", (20, 9))]).end in ("stop", "text budget")
