"""Write and read webdataset shards: plain tar files that any webdataset reader understands.

In: Documents whose images are pixels. Out: shards; and by number the Documents of these shards, or
of shards in any other of the sample formats (formats.py).

A sample that we write is `<key>.json`, its parts in reading order, and `<key>.0.png`,
`<key>.1.png`, ..., its images:

    {"parts": [{"text": "draw a red circle", "role": "user", "weight": 0.0},
               {"image": 0, "role": "assistant", "weight": 1.0}]}

`write_files` writes samples of any other format as they are.

1. `ShardWriter` fills `<name>.tar.part`, then renames it: a file that ends in .tar is whole.
   Nothing but the documents and their keys decides its bytes (time 0, owner 0).
2. `Shard` walks over the headers once and keeps 16 bytes a sample: where it begins and ends (see
   samples.py). Sample i is then read without touching its neighbours.

Costs, 64-pixel scenes on one core: 0.3 ms to write a sample (3 kB), 10 us to read its bytes, 25 us
to index one.
"""

import contextlib
import io
import json
import mmap
import tarfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from unimodal.atomic import publish
from unimodal.document import Document, Text

from . import codes_member, formats
from .samples import find_samples
from .tar import END, Bytes, Fault, ShardError, key_and_extension, padded, sample_files

# How the names of shards end; compressed.py unpacks those that are no plain tar.
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
PNG_LEVEL = 1  # of zlib: a tenth larger than the default and four times as fast


class ShardWriter:
    """Writes documents to `shard-000000.tar`, `shard-000001.tar`, ... in a folder.

    A shard is closed before it would exceed `max_samples` samples or `max_bytes` bytes (a single
    larger sample still gets a shard of its own). Use it in a `with` block: leaving it by an error
    drops the shard in work and keeps the finished ones.
    """

    def __init__(
        self,
        directory: str | Path,
        max_samples: int = 5000,
        max_bytes: int | None = None,
        first: int = 0,
    ) -> None:
        """`max_bytes` None means no limit; `first` is the number of the first shard."""
        if max_samples < 1 or (max_bytes is not None and max_bytes < 1):
            raise ValueError(f"max_samples {max_samples} and max_bytes {max_bytes} are at least 1")
        self.directory = Path(directory)
        self.max_samples, self.max_bytes = max_samples, max_bytes
        self.number = first
        self.num_samples = 0  # in the shard in work
        self._stream: io.BufferedWriter | None = None
        self._last_key: str | None = None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
            return
        self._discard()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.path)  # a full disk does not say where

    @property
    def path(self) -> Path:
        """Return the final name of the shard in work, or of the next one."""
        return self.directory / shard_name(self.number)

    def write(self, key: str, document: Document, num_codes: int | None = None) -> None:
        """Append one sample; ShardError for a bad key or an image without pixels.

        num_codes: of the image tokenizer whose codes are written in place of all pixels.
        """
        self._append(key, _pack(key, document, self.path, num_codes))

    def write_files(self, key: str, files: dict[str, bytes]) -> None:
        """Append one sample of these files (contents by extension), in their order.

        ShardError for names that a reader would not split into this key and these extensions.
        """
        if not files:
            raise ShardError(f"{self.path}, key {key}: a sample without files")
        for extension in files:
            if key_and_extension(f"{key}.{extension}") != (key, extension) or not extension:
                raise ShardError(
                    f"{self.path}: {f'{key}.{extension}'!r} is not read as key {key!r}: no dot in "
                    "its file name, no slash in an extension"
                )
        members = [_member(f"{key}.{name}", content) for name, content in files.items()]
        self._append(key, b"".join(members))

    def _append(self, key: str, sample: bytes) -> None:
        """Append the bytes of one sample; ShardError for the key of the sample before."""
        if key == self._last_key:
            raise ShardError(
                f"{self.path}: key {key!r} is written twice in a row; keys tell samples apart"
            )
        if self._stream is not None and self._is_full(len(sample)):
            self.close()
        if self._stream is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._stream = _part(self.path).open("wb")
        self._stream.write(sample)
        self.num_samples += 1
        self._last_key = key

    def close(self) -> None:
        """Finish the shard in work, if any, and give it its name."""
        if self._stream is None:
            return
        try:
            self._stream.write(END)
            self._stream.close()
            publish(_part(self.path), self.path)
        except OSError:
            self._discard()
            raise
        self._stream, self.num_samples = None, 0
        self.number += 1

    def _is_full(self, more_bytes: int) -> bool:
        assert self._stream is not None, "only a shard in work can be full"
        size_bytes = self._stream.tell() + more_bytes + len(END)
        too_large = self.max_bytes is not None and size_bytes > self.max_bytes
        return too_large or self.num_samples >= self.max_samples

    def _discard(self) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError):  # a full disk refuses the last buffer once more
            self._stream.close()
        self._stream, self.num_samples = None, 0
        _part(self.path).unlink(missing_ok=True)


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:06d}.tar"


def find_shards(directory: str | Path) -> list[Path]:
    """Return the finished shards in a folder, by name, compressed ones among them.

    ShardError when there are none, or when a shard is there twice, plain and compressed.
    """
    folder = Path(directory)
    inside = folder.iterdir() if folder.is_dir() else ()
    visible = (path for path in inside if not path.name.startswith("."))
    files = sorted(visible, key=lambda path: path.name)
    paths = [path for path in files if is_shard(path.name)]
    if not paths:
        counts = Counter(path.suffix for path in files if path.suffix and path.is_file())
        there = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(5))
        raise ShardError(
            f"{directory} holds no .tar shard{f' but {there}' if there else ''}: write some with "
            f"`unimodal data scenes {directory}` or `unimodal data convert`"
        )
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(shard_stem(path.name), path)
        if other is not path:
            raise ShardError(f"{other} and {path.name}: one shard twice? take one of them away")
    return paths


def is_shard(name: str) -> bool:
    """Tell by its name whether a file is a tar, compressed or not."""
    return name.lower().endswith(SUFFIXES)


def shard_stem(name: str) -> str:
    """Return the name of a shard without what says that it is one."""
    end = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name.removesuffix(name[len(name) - len(end) :])


class Shard:
    """One tar file of samples, read by number: `len(shard)`, `shard.sample(i)`, `shard.key(i)`."""

    def __init__(self, path: str | Path, faults: list[Fault] | None = None) -> None:
        """Index the file; ShardError where it is missing, truncated or no tar.

        With a list for `faults`, a damaged file gives what is whole of it, and what is lost is
        appended to the list.
        """
        self.path = Path(path)
        try:
            with self.path.open("rb") as stream:
                self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise ShardError(f"{self.path} cannot be read: {error}") from error
        found = find_samples(self._bytes, self.path, faults)
        self.ranges_n2 = found.ranges_n2  # int64: begin and end
        self.num_hidden = found.num_hidden

    def __len__(self) -> int:
        return len(self.ranges_n2)

    def sample(self, index: int, fields: Mapping[str, str] | None = None) -> formats.Sample:
        """Return the files of sample `index`; IndexError outside 0 .. len - 1.

        `fields`: the fields of its .json that fill roles, where they have unusual names.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has no sample {index}: it holds {len(self)}")
        begin, end = self.ranges_n2[index].tolist()
        return sample_of(self._bytes, begin, end, fields)

    def document(self, index: int) -> Document:
        """Return sample `index` as its first variant, the images opened.

        ShardError names the key and what is wrong with it.
        """
        sample = self.sample(index)
        try:
            stored = formats.document(sample, formats.detect_format(sample))
            return formats.opened(stored, formats.as_it_is)
        except formats.SampleError as error:
            raise ShardError(f"{self.path}, key {sample.key}: {error}") from error

    def key(self, index: int) -> str:
        """Return the key of sample `index`."""
        return self.sample(index).key

    def __reduce__(self) -> tuple[type["Shard"], tuple[Path]]:
        """Send only the path to another process, which opens the file again."""
        return Shard, (self.path,)


class Samples:
    """The samples of several shards under one running number."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        """Index the shards; ShardError where one is damaged or all are empty."""
        self.shards = [Shard(path) for path in paths]
        self._ends = list(accumulate(len(shard) for shard in self.shards))
        if not len(self):
            raise ShardError(f"no samples in the {len(self.shards)} shards given")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def document(self, number: int) -> Document:
        """Return a sample as its first variant, the images opened."""
        shard, index = self._locate(number)
        return shard.document(index)

    def name(self, number: int) -> str:
        """Return the shard and key of a sample, for messages."""
        shard, index = self._locate(number)
        return f"{shard.path}, key {shard.key(index)}"

    def _locate(self, number: int) -> tuple[Shard, int]:
        at = bisect_right(self._ends, number)
        return self.shards[at], number - (self._ends[at - 1] if at else 0)


def sample_of(
    source: Bytes, begin: int, end: int, fields: Mapping[str, str] | None = None
) -> formats.Sample:
    """Return the sample whose files lie from byte `begin` to `end`, as samples.py found them."""
    return formats.Sample(*sample_files(source, begin, end), fields or {})


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _pack(key: str, document: Document, path: Path, num_codes: int | None) -> bytes:
    """Return the tar members of one sample, header and contents of each."""
    if not key or "." in key or "/" in key or len(key) > 80:
        raise ShardError(f"{path}: key {key!r}: 1 to 80 characters without dots and slashes")
    parts: list[dict] = []
    images: list[bytes] = []
    for part in document.parts:
        about = {"role": part.role, "weight": part.weight}
        if isinstance(part, Text):
            box = {} if part.box is None else {"box": astuple(part.box)}
            parts.append({"text": part.text, **about, **box})
        elif num_codes is not None:
            name = f"{key}.{len(images)}.{codes_member.EXTENSION}"
            parts.append({"image": len(images), **about})
            images.append(_member(name, codes_member.to_bytes(part, num_codes)))
        elif part.pixels is None:
            raise ShardError(
                f"{path}, key {key}: an image without pixels; image shards hold pixels"
            )
        else:
            parts.append({"image": len(images), **about})
            images.append(_member(f"{key}.{len(images)}.png", _png(part.pixels)))
    text = json.dumps({"parts": parts}, ensure_ascii=False)
    return b"".join([_member(f"{key}.json", text.encode()), *images])


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)  # its defaults are fixed: time 0, owner 0, mode 644
    info.size = len(content)
    try:
        head = info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:  # longer than a header has room for
        head = info.tobuf(tarfile.PAX_FORMAT)
    return head + content.ljust(padded(len(content)), b"\0")


def _png(pixels_HW3: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stream, "PNG", compress_level=PNG_LEVEL)
    return stream.getvalue()
