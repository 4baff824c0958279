"""Ids -> documents, by our own layout: an inverse written apart from the sequencer, for tests."""

import numpy as np

from unimodal.document import Document, Image, Part, Text
from unimodal.layout import BoundLayout
from unimodal.tokenizer.grid import Grid

ROLES = ("system", "user", "assistant")


def document_of(layout: BoundLayout, ids: list[int], codec_hash: str = "0" * 64) -> Document:
    """Return the document that a whole sequence spells; ValueError where it is none."""
    names = _names(layout)
    words = [names.get(token, token) for token in ids]
    if len(words) < 2 or words[0] != "begin" or words[-1] != "end":
        raise ValueError("a sequence begins with `begin` and ends with `end`")
    parts: list[Part] = []
    at, stop = 1, len(ids) - 1
    while at < stop:
        role = words[at] if words[at] in ROLES else None
        ends = [k for k in range(at, stop) if (words[k] == "turn_end" if role else words[k] in ROLES)]
        if role and not ends:
            raise ValueError(f"the {role} turn at {at} has no end")
        end = ends[0] if ends else stop
        parts += parts_of(layout, ids[at + 1 : end] if role else ids[at:end], role, codec_hash)
        at = end + 1 if role else end
    return Document(tuple(parts))


def parts_of(
    layout: BoundLayout, ids: list[int], role: str | None, codec_hash: str = "0" * 64
) -> list[Part]:
    """Return the texts and images that ids between two special tokens spell."""
    names, parts, text, at = _names(layout), [], [], 0
    while at < len(ids):
        if names.get(ids[at]) is None and not layout.vocabulary.is_code(ids[at]):
            text.append(ids[at])
            at += 1
            continue
        if text:
            parts.append(Text(layout.text.decode(text), role=role))
            text = []
        image, at = _image(layout, ids, at, role, codec_hash)
        parts.append(image)
    return [*parts, Text(layout.text.decode(text), role=role)] if text else parts


def _image(
    layout: BoundLayout, ids: list[int], at: int, role: str | None, codec_hash: str
) -> tuple[Image, int]:
    names = _names(layout)
    words = [names.get(token) for token in ids]
    sizes = [word.removeprefix("size_") for word in words[at + 1 : at + 3] if word]
    if words[at] != "image" or len(sizes) != 2 or not all(size.isdigit() for size in sizes):
        raise ValueError(f"id {ids[at]} at {at} begins neither a text nor an image")
    grid = Grid(*map(int, sizes))
    start, stop = at + 3, at + 3 + grid.height * (grid.width + 1)
    if stop >= len(ids) or words[stop] != "image_end":
        raise ValueError(f"the image at {at} does not end after {grid.size} codes")
    rows = np.array(ids[start:stop]).reshape(grid.height, grid.width + 1)
    if any(names.get(int(token)) != "row_end" for token in rows[:, -1]):
        raise ValueError(f"the image at {at} lacks a row's end")
    codes = layout.vocabulary.id_to_code(rows[:, :-1].reshape(-1, 1))
    return Image(codes=codes, grid=grid, codec_hash=codec_hash, role=role), stop + 1


def _names(layout: BoundLayout) -> dict[int, str]:
    return {token: name for name, token in layout.vocabulary.special_tokens.items()}
