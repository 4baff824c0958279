"""Draw an inspection: a contact sheet of samples, and charts of its numbers.

In: an `Inspection`. Out: PNG files in a folder, by the names in VIEWS. A sample whose images turn
out to be damaged is shown with the reason in their place.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unimodal.atomic import write_bytes
from unimodal.codec import ImageCodec
from unimodal.document import Document, Part, Text
from unimodal.transcript import png_bytes

from .. import formats
from ..formats import Sample, SampleError
from ..shards import Shard
from ..sheet import document_sheet
from .charts import bars, histogram, nothing, png, scatter
from .inspect import Inspection

VIEWS = ("samples.png", "positions.png", "text_tokens.png", "image_sizes.png", "bad.png")
MAX_CHARACTERS = 500  # of a sample on the contact sheet
MAX_PARTS = 8  # of a sample on it
DRAWN_FORMAT = "caption"  # whose image stands above its words, though they may come first


def write_views(found: Inspection, codec: ImageCodec, folder: Path, samples: int) -> list[Path]:
    """Write all of VIEWS into the folder and return their paths.

    `samples` samples are shown on the contact sheet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = list(documents(found, codec, samples))
    by_shard = {Path(shard).name: count for shard, count in found.bad_shards.items()}
    bad = {"Bad samples by reason": found.reasons, "Bad samples by shard": by_shard}
    text_n = found.text_n[found.text_n > 0]
    views = (
        png_bytes(document_sheet(shown)) if shown else png(nothing("Samples")),
        png(histogram(found.tokens_n, "Tokens per document", "tokens")),
        png(histogram(text_n, "Text tokens per document with text", "tokens")),
        png(scatter(found.sizes, "Image sizes")),
        png(bars(bad, "samples")),
    )
    paths = [folder / name for name in VIEWS]
    for path, view in zip(paths, views, strict=True):
        write_bytes(path, view)
    return paths


def chosen(found: Inspection, count: int) -> Iterator[tuple[Path, int]]:
    """Yield shard and number of `count` sound samples, in even steps over all of them."""
    numbers = [np.unique(held.samples_n).tolist() for held in found.held]
    ends = np.cumsum([len(one) for one in numbers])
    total = int(ends[-1]) if len(ends) else 0
    for at in np.linspace(0, total - 1, min(count, total)).astype(int).tolist():
        shard = int(np.searchsorted(ends, at, side="right"))
        yield found.paths[shard], numbers[shard][at - int(ends[shard])]


def documents(found: Inspection, codec: ImageCodec, count: int) -> Iterator[Document]:
    """Yield what the contact sheet shows of each chosen sample."""
    for path, number in chosen(found, count):
        sample = Shard(path, []).sample(number, found.estimator.fields)
        sample = sample.without(found.estimator.ignore)
        format = found.estimator.format or formats.detect_format(sample)
        yield _shown(sample, format, path, codec)


def _shown(sample: Sample, format: str, path: Path, codec: ImageCodec) -> Document:
    """Return a sample's name, format and first parts, images opened and long texts cut."""
    parts = list(formats.document(sample, format).parts)
    if format == DRAWN_FORMAT:
        parts.sort(key=lambda part: isinstance(part, Text))
    shown: list[Part] = []
    room = MAX_CHARACTERS
    for part in parts[:MAX_PARTS]:
        if room > 0:
            shown.append(_part(part, room, codec))
        room -= len(part.text) if isinstance(part, Text) else 0
    more = [Text(f"({len(parts) - len(shown)} more)")] if len(parts) > len(shown) else []
    return Document((Text(f"[{format}] {path.stem}, {sample.key}"), *shown, *more))


def _part(part: Part, room: int, codec: ImageCodec) -> Part:
    """Return a part as it is shown: an image as pixels, a text cut at `room` characters."""
    if isinstance(part, Text):
        cut = part.text if len(part.text) <= room else f"{part.text[:room].rstrip()} …"
        return Text(cut, part.role)
    assert part.stored is not None, "nobody has opened the images of a sample yet"
    try:
        return codec.decode([formats.as_it_is(part.stored)])[0]
    except SampleError as error:
        return Text(f"[{error}]")
