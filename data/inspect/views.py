"""What an inspection shows to the eye: a contact sheet of samples, and charts of its numbers.

In: an `Inspection`. Out: PNG files in a folder, by the names in VIEWS. A sample whose pictures turn
out to be damaged is shown with the reason in their place.
"""

from collections.abc import Iterator
from pathlib import Path
from unicodedata import combining, normalize

import numpy as np
import torch
from PIL import Image

from unimodal.document import Document, Part, Picture, Text
from unimodal.tokenizer.autoencoder import ImageTokenizer
from unimodal.tokenizer.pixels import to_images

from .. import formats as forms
from ..formats import Sample, SampleError, Stored
from ..shards import Shard
from ..sheet import sheet
from .charts import SIZE, bars, histogram, scatter
from .inspect import Inspection

VIEWS = ("samples.png", "positions.png", "text_tokens.png", "picture_sizes.png", "bad.png")
MOST_CHARACTERS = 500  # of a sample on the contact sheet
MOST_PARTS = 8  # of a sample on it
DRAWN_FORM = "caption"  # whose picture stands above its words, though they may come first


def write_views(
    found: Inspection, tokenizer: ImageTokenizer, folder: Path, samples: int
) -> list[Path]:
    """Write all of VIEWS into the folder; `samples` of them are on the contact sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = list(documents(found, tokenizer, samples))
    by_shard = {Path(shard).name: count for shard, count in found.bad_shards.items()}
    images = (
        sheet(shown) if shown else histogram([], "Samples", ""),
        histogram(found.positions_n, "Positions per document", "positions"),
        histogram(found.text_n[found.text_n > 0], "Text tokens per document with text", "tokens"),
        scatter(found.sizes, "Picture sizes"),
        _stacked(
            bars(found.reasons, "Bad samples by reason"), bars(by_shard, "Bad samples by shard")
        ),
    )
    paths = [folder / name for name in VIEWS]
    for path, image in zip(paths, images, strict=True):
        image.save(path, "PNG")
    return paths


def _stacked(first: Image.Image, second: Image.Image) -> Image.Image:
    page = Image.new("RGB", (SIZE[0], first.height + second.height), "white")
    page.paste(first)
    page.paste(second, (0, first.height))
    return page


def chosen(found: Inspection, count: int) -> Iterator[tuple[Path, int]]:
    """Shard and number of `count` sound samples, in even steps over all of them."""
    numbers = [np.unique(held.samples_n).tolist() for held in found.held]
    ends = np.cumsum([len(one) for one in numbers])
    total = int(ends[-1]) if len(ends) else 0
    for at in np.linspace(0, total - 1, min(count, total)).astype(int).tolist():
        shard = int(np.searchsorted(ends, at, side="right"))
        yield found.paths[shard], numbers[shard][at - int(ends[shard])]


def documents(found: Inspection, tokenizer: ImageTokenizer, count: int) -> Iterator[Document]:
    """What the contact sheet shows of each chosen sample."""
    for path, number in chosen(found, count):
        sample = Shard(path, []).sample(number)
        form = found.ruler.form or forms.recognised(sample)
        yield _shown(sample, form, path, tokenizer)


def _shown(sample: Sample, form: str, path: Path, tokenizer: ImageTokenizer) -> Document:
    """A sample's name, form and first parts, pictures opened and long texts cut."""
    parts = list(forms.document(sample, form).parts)
    if form == DRAWN_FORM:
        parts.sort(key=lambda part: isinstance(part, Text))
    shown: list[Part] = []
    room = MOST_CHARACTERS
    for part in parts[:MOST_PARTS]:
        if room > 0:
            shown.append(_part(part, room, tokenizer))
        room -= len(part.text) if isinstance(part, Text) else 0
    more = [Text(f"({len(parts) - len(shown)} more)")] if len(parts) > len(shown) else []
    name = _drawable(f"[{form}] {path.stem}, {sample.key}")
    return Document((Text(name), *shown, *more))


def _part(part: Part, room: int, tokenizer: ImageTokenizer) -> Part:
    """A part as it is shown: at most `room` characters of a text, a picture's pixels."""
    if isinstance(part, Text):
        cut = part.text if len(part.text) <= room else f"{part.text[:room].rstrip()} …"
        return Text(_drawable(cut), part.role)
    assert isinstance(part, Stored), "nobody has opened the pictures of a sample yet"
    try:
        picture = forms.as_it_is(part)
        return picture if picture.codes is None else _decoded(picture, tokenizer)
    except SampleError as error:
        return Text(f"[{error}]")


def _drawable(text: str) -> str:
    """The text in letters that Pillow's own font has: no accents, plain dashes and spaces."""
    plain = "".join(c for c in normalize("NFKD", text) if not combining(c))
    return plain.replace("\N{EM DASH}", " - ").replace("\N{EN DASH}", "-")


@torch.no_grad()
def _decoded(picture: Picture, tokenizer: ImageTokenizer) -> Picture:
    """Codes as the pixels that they stand for."""
    assert picture.codes is not None and picture.grid is not None
    codes_1n1 = torch.from_numpy(picture.codes)[None, :, None]
    return Picture(np.asarray(to_images(tokenizer.decode(codes_1n1, picture.grid))[0]))
