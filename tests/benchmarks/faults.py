"""What is wrong with data, and what becomes of it: `python tests/benchmarks/faults.py` prints that.

Every kind of fault is put once among 2,000 sound samples. For each the table says how it was met:
while lengths were measured, while rows were made (then it is masked padding in its place), or not
at all because it is none; and whether any other sample was lost.
"""

import io
import json
import struct
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from unimodal.codec import ImageCodec
from unimodal.data import codes_member as codes
from unimodal.data.loader import Loader, LoaderConfig
from unimodal.data.sources import SourceConfig
from unimodal.document import Image
from unimodal.heads.next_code import NextCodeInputs
from unimodal.sequence import PADDING
from unimodal.sequencer import Sequencer
from unimodal.text import TextTokenizer
from unimodal.tokenizer.autoencoder import TokenizerConfig
from unimodal.tokenizer.grid import Grid
from unimodal.vocabulary import Vocabulary

HASH = "ab" * 32
SOUND, SHARDS = 2000, 10
Files = dict[str, bytes]


class Means(ImageCodec):
    """A codec without a tokenizer: the code of an 8-pixel patch is the mean of its red."""

    def __init__(self) -> None:
        self.hash, self.geometry, self.num_codes = HASH, TokenizerConfig(), 256

    def encode(self, images: Sequence[Image]) -> list[Image]:
        """Return the images with codes beside their pixels."""
        return [replace(image, **self._codes_of(image)) for image in images]

    def _codes_of(self, image: Image) -> dict[str, Any]:
        assert image.pixels is not None and image.codes is None, "the loader asks for these alone"
        height, width = image.pixels.shape[:2]
        grid = self.geometry.grid_of(height, width)
        patches = image.pixels[:, :, 0].reshape(grid.height, 8, grid.width, 8)
        codes_n = patches.mean(axis=(1, 3)).astype(int).reshape(-1)
        return {"codes": codes_n[:, None], "grid": grid, "codec_hash": self.hash}


def sequencer() -> Sequencer:
    """Return what reads bytes as text, and 256 codes."""
    text = TextTokenizer.train(["a cat"], 256)
    return Sequencer(Vocabulary.new(text.num_ids, 256), text, HASH, NextCodeInputs())


def image(
    kind: str = "PNG", frames: int = 1, shade: int = 100, size: tuple[int, int] = (16, 16)
) -> bytes:
    """An image of noise, so that damage is somewhere in its pixels; `size`: width, height."""
    rng = np.random.default_rng(shade)
    images = [
        PILImage.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        for _ in range(frames)
    ]
    stream = io.BytesIO()
    more = {"save_all": True, "append_images": images[1:]} if frames > 1 else {}
    images[0].save(stream, kind, **more)
    return stream.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def damaged(content: bytes) -> bytes:
    """The same with the middle of its pixels overwritten."""
    at = content.index(b"IDAT") + 40
    return content[:at] + bytes(100) + content[at + 100 :]


def caption(words: str, content: bytes, extension: str = "png") -> Files:
    """An image with its words."""
    return {extension: content, "txt": words.encode()}


def samples() -> dict[str, Files]:
    """A sample of each fault, by what it is called."""
    spellings = "<|begin|> <|turn_end|> <|endoftext|> \x00 </s> [INST]"
    parts = [{"text": "t", "weight": float("nan")}]
    foreign = codes.to_bytes(Image(codes=np.array([[999]]), grid=Grid(1, 1), codec_hash=HASH), 1000)
    pages = {"texts": [None, "words"], "images": ["k.000.jpg", None]}
    return {
        "missing member": {"json": json.dumps(pages).encode()},
        "wrong JSON": {"json": b'{"texts": ['},
        "JSON of other fields": {"json": b'{"parts": [{"text": 3}]}'},
        "text that is no UTF-8": {"png": image(), "txt": b"\xff\xfe\x00"},
        "half a surrogate pair": {"json": b'{"text": "\\ud800"}'},
        "image of too many codes": caption("wide", image(size=(1024, 8))),
        "code that does not exist": {"codes": foreign, "txt": b"x"},
        "weight that is not a number": {"json": json.dumps({"parts": parts}).encode()},
        "text with control spellings": caption(spellings, image()),
        "caption with a placeholder": caption("<image> a red ball", image()),
        "corrupt image": caption("corrupt", damaged(image())),
        "truncated JPEG": caption("cut", image("JPEG")[:-200], "jpg"),
        "zero-byte image": caption("zero", b""),
        "text file named .png": caption("text", b"I am a text file, not an image"),
        "huge image": caption("huge", header(20_000, 20_000)),
        "image bomb": caption("bomb", header(60_000, 60_000)),
        "1 x 1 image": caption("dot", header(1, 1)),
        "animated image": caption("moves", image("GIF", frames=3), "gif"),
    }


TAR_FAULTS = ("truncated tar", "damaged tar header", "hole in a tar", "wrong size in a tar header")


def write(folder: Path, faults: dict[str, Files], tar_faults: tuple[str, ...] = TAR_FAULTS) -> None:
    """Sound samples s0, s1, ... in shards, with the faults strewn among them."""
    names = iter(faults)
    for number in range(SHARDS):
        path = folder / f"shard-{number}.tar"
        with tarfile.open(path, "w") as tar:
            for index in range(number, SOUND, SHARDS):
                _add(tar, f"s{index}", caption(f"#{index};", image(shade=index)))
                if index % 1000 == number and (name := next(names, None)):
                    _add(tar, key_of(name), faults[name])
            if number < len(tar_faults):
                _add(tar, key_of(tar_faults[number]), caption("x", image() * 3))
                if number > 0:
                    _add(tar, "after", caption("#-1;", image()))
    if tar_faults:
        _damage(folder)
    assert next(names, None) is None, "every fault has a place"


def _damage(folder: Path) -> None:
    """Damage the samples that are named after what is wrong with their tar."""
    paths = [folder / f"shard-{number}.tar" for number in range(len(TAR_FAULTS))]
    cut, header, hole, size = (bytearray(path.read_bytes()) for path in paths)
    del cut[cut.rindex(b"truncated-tar.png") + 900 :]
    at = header.index(b"damaged-tar-header.png")
    header[at + 124 : at + 300] = b"?" * 176
    at = hole.index(b"hole-in-a-tar.png")
    hole[at : at + 512] = bytes(512)
    at = size.index(b"wrong-size-in-a-tar-header.png")
    size[at + 124 : at + 136] = b"00000010000\0"
    for path, content in zip(paths, (cut, header, hole, size), strict=True):
        path.write_bytes(content)


def write_tar(path: Path, files_by_key: dict[str, Files]) -> Path:
    """A shard of these samples: files by extension."""
    with tarfile.open(path, "w") as tar:
        for key, files in files_by_key.items():
            _add(tar, key, files)
    return path


def _add(tar: tarfile.TarFile, key: str, files: Files) -> None:
    for extension, content in files.items():
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


@dataclass
class Pass:
    """What one pass over the data gave."""

    measured: dict[str, str]
    """Reason by key, of what was met while lengths were measured."""
    made: dict[str, str]
    """Reason by key, of what became masked padding."""
    spelt: Counter[str]
    """How often each text was learned."""


def one_pass(folder: Path, share: float = 0.01, sequence_length: int = 256) -> Pass:
    """Read everything once or a little more, as training would."""
    made_of = sequencer()
    config = LoaderConfig(
        sequence_length=sequence_length, batch_rows=8, window_rows=64, bad_share=share
    )
    path = folder / "quarantine.jsonl"
    loader = Loader({"all": SourceConfig(str(folder))}, made_of, Means(), config, quarantine=path)
    measured = _noted(path)
    spelt: Counter[str] = Counter()
    for batch, state in loader:
        for ids_T, doc_T in zip(batch.ids.numpy(), batch.doc.numpy(), strict=True):
            is_text_T = (ids_T < made_of.vocabulary.num_text) & (doc_T != PADDING)
            for doc in np.unique(doc_T[is_text_T]):
                spelt[
                    made_of.text_tokenizer.decode(ids_T[is_text_T & (doc_T == doc)].tolist())
                ] += 1
        if state.row == 0 and state.units[0] >= loader.documents:
            break
    made = {key: reason for key, reason in _noted(path).items() if key not in measured}
    return Pass(measured, made, spelt)


def _noted(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {entry["key"]: entry["reason"] for entry in map(json.loads, lines)}


def key_of(name: str) -> str:
    """A fault's name as the key of its sample."""
    return name.replace(".", "").replace(" ", "-")


def table(folder: Path) -> list[tuple[str, str, str, int]]:
    """(fault, met, reason, sound samples lost) of each kind."""
    faults = samples()
    write(folder, faults)
    found = one_pass(folder, share=0.02)  # there are more kinds of faults than 1 % allows
    lost = sum(found.spelt[f"#{index};"] == 0 for index in range(SOUND))
    rows = []
    for name in (*faults, *TAR_FAULTS):
        key = "" if name in TAR_FAULTS[1:] else key_of(name)  # not even their names are known
        met = "measuring" if key in found.measured else "making" if key in found.made else "none"
        reason = {**found.measured, **found.made}.get(key, "learned from")
        rows.append((name, met, reason, lost))
    return rows


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = table(Path(folder))
    print("| fault | met while | reason noted | sound samples lost of 2,000 |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        print("| {} | {} | {} | {} |".format(*row))


if __name__ == "__main__":
    sys.exit(main())
