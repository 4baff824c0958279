"""Load the real weights of a published model, check what no test here can know, draw and read.

    python tests/real_weights.py deepseek-community/Janus-Pro-1B --photo photo.jpg
    python tests/real_weights.py facebook/chameleon-30b --photo photo.jpg \
        --device cuda:0,cuda:1 --dtype bfloat16 --weights int4

By hand, with a connection: 4 to 70 GB are downloaded. It prints a report in JSON: which facts hold
that were read in code and never in the files, how well an image survives the image tokenizer, what
the model says of it, and where its drawing is. Exit status 1 where a fact does not hold.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
from PIL import Image as PILImage

import unimodal
from unimodal.document import Image
from unimodal.families import chameleon, emu3, janus, liquid, lumina
from unimodal.families.fits import BucketFit
from unimodal.families.published import look_at
from unimodal.model import Model, Weights
from unimodal.tokenizer.pixels import open_image
from unimodal.tokenizer.vqgan import Vqgan

QWEN_PATTERN = r"\p{N}"  # one digit a piece; GPT-2's is " ?\p{N}+"
LEAST_PSNR = 18.0  # dB, far below what the authors' tokenizers reach, far above noise
PATH = click.Path(path_type=Path)
Facts = Iterator[tuple[str, bool]]


def of_emu3(model: Model, directory: Path) -> Facts:
    """Ids, and how text is cut into pieces before it is encoded."""
    vocabulary, encode = model.vocabulary, model.text_tokenizer.encode
    yield "codes are the ids from 151854 on", vocabulary.code_runs == ((151854, 32768),)
    yield "a row ends with 151846", vocabulary.special("<|extra_200|>") == 151846
    yield "bos is 151849", vocabulary.special(emu3.BEGIN.name) == 151849
    yield "digits are single ids", len(encode("90")) == 2 and len(encode("90*90")) == 5
    split = json.loads((directory / "tokenizer.json").read_text())["pre_tokenizer"]
    pattern = json.dumps(split)
    yield "text is cut by Qwen's pattern", QWEN_PATTERN in pattern and "?\\\\p{N}+" not in pattern


def of_janus(model: Model, _: Path) -> Facts:
    """Ids and sizes."""
    special, config = model.vocabulary.special, model.transformer.config
    yield "an image begins with 100016", special(janus.IMAGE_BEGIN.name) == 100016
    yield "a place is 100581", special(janus.PLACE.name) == 100581
    yield "eos is 100001", special(janus.END.name) == 100001
    yield "the head is not tied", not config.tied_head
    sizes = config.num_layers, config.width, config.num_heads
    yield f"sizes {sizes}", sizes in ((24, 2048, 16), (30, 4096, 32))


def of_chameleon(model: Model, _: Path) -> Facts:
    """Ids of codes and marks."""
    special = model.vocabulary.special
    yield "id = code + 4", model.vocabulary.code_runs == ((4, 8192),)
    yield "a picture begins with 8197", special("<racm3:break>") == 8197
    yield "a turn ends with 8710", special(chameleon.TURN_END.name) == 8710
    yield "<s> is 0", special(chameleon.BEGIN.name) == 0
    if isinstance(model.fit, BucketFit):  # Lumina-mGPT
        yield "a row ends with 8803", special("<reserved08799>") == 8803
        yield "a side of one step is 8805", special(f"{lumina.SIZE}1") == 8805


def of_liquid(model: Model, _: Path) -> Facts:
    """Ids of codes and marks."""
    special = model.vocabulary.special
    yield "codes are the ids from 256000 on", model.vocabulary.code_runs == ((256000, 8192),)
    marks = liquid.IMAGE_BEGIN.name, liquid.IMAGE_END.name, "<unconditional>"
    yield "its marks are 7, 8 and 9", [special(one) for one in marks] == [7, 8, 9]
    yield "a line ends with one id", len(model.text_tokenizer.encode("\n")) == 1


FACTS: dict[str, Callable[[Model, Path], Facts]] = {
    "emu3": of_emu3, "janus": of_janus, "chameleon": of_chameleon,
    "gemma": of_liquid,
}  # fmt: skip


def by_pixels(model: Model, image: PILImage.Image) -> tuple[float | None, dict[str, bool]]:
    """Return how well an image survives its codes, in dB, and what that says of the rule by which
    they are found; None where there is no decoder.
    """
    tokenizer = model.image_tokenizer
    if not tokenizer.decodes:
        return None, {}
    pixels, _ = model.fitted(image)
    (encoded,) = model.codec.encode([Image(pixels)])
    survived = psnr(model, pixels, encoded)
    facts = {f"an image survives its codes with {LEAST_PSNR} dB": survived >= LEAST_PSNR}
    if isinstance(tokenizer, Vqgan) and tokenizer.config.is_normalised:
        tokenizer.quantize.is_normalised = False  # the rule of the class of transformers
        (plainly,) = model.codec.encode([Image(pixels)])
        tokenizer.quantize.is_normalised = True
        facts["an image survives codes of the smallest angle better than of the least distance"] = (
            survived > psnr(model, pixels, plainly)
        )
    return survived, facts


def psnr(model: Model, pixels: np.ndarray, encoded: Image) -> float:
    """Return how near to an image its codes are when they are decoded, in dB."""
    plain = Image(codes=encoded.codes, grid=encoded.grid, codec_hash=encoded.codec_hash)
    (decoded,) = model.codec.decode([plain])
    assert decoded.pixels is not None, "it was decoded"
    error = np.square(pixels.astype(float) - decoded.pixels).mean()
    return float(10 * np.log10(255**2 / error))


def examined(
    source: str, device: str, dtype: str | None, weights: Weights, photo: Path, output: Path
) -> dict:
    """Return the report on a model; its drawing is written to the folder `output`."""
    directory, said = look_at(source)
    model = unimodal.load(source, device, weights, dtype)
    facts = dict(FACTS[model.card["model_type"]](model, directory))
    image = open_image(photo).image
    survived, more = by_pixels(model, image)
    facts |= more
    report: dict[str, Any] = {
        "source": source, "hash": model.hash, "weights": str(said), "torch": torch.__version__,
        "device": device, "layers": Counter(map(str, model.transformer.layer_devices)),
        "dtype": str(model.transformer.lm_head_weight.dtype), "weights_as": model.weights,
        "psnr": survived,
        "context": model.context, "facts": facts,
    }  # fmt: skip
    replies = model.replies
    chat = unimodal.Chat(model, max_text_tokens=64)
    if "text" in replies:
        report["says"] = chat("What is shown here?", images=[image], modality="text").text
        chat.reset()
    if "image" in replies:
        output.mkdir(parents=True, exist_ok=True)
        path = output / f"{source.rpartition('/')[2]}.png"
        chat("a red fox in the snow", modality="image").images[0].save(path)
        report["drew"] = str(path)
    return report


@click.command()
@click.argument("source")
@click.option("--photo", type=PATH, required=True, help="An image to ask about.")
@click.option("--output", type=PATH, default=Path("real"), help="Where drawings go.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu")
@click.option("--dtype", default=None)
@click.option("--weights", type=click.Choice(get_args(Weights)), default="fp32")
def main(
    source: str, photo: Path, output: Path, device: str, dtype: str | None, weights: Weights
) -> None:
    """Examine a published model: a directory, or an id of the hub."""
    report = examined(source, device, dtype, weights, photo, output)
    print(json.dumps(report, indent=2, ensure_ascii=False))
    sys.exit(0 if all(report["facts"].values()) else 1)


if __name__ == "__main__":
    main()
