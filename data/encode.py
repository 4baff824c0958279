"""Encode image shards into code shards: each image becomes its codes, nothing else changes.

In: image shards, an image tokenizer, and the size at which images are read. Out: as many shards
in the same order, `shard-000000.tar`, ...: samples with the same keys in the same order, a `.codes`
file (codes_member.py) where an image stood, all other files byte for byte.

1. A shard is a pure function of its source and the settings. Images are encoded by one thread and
   in batches of neighbours of one shard, however many processes share the shards.
2. Samples are worked on a few at a time, as many as MAX_SAMPLES and MAX_PIXELS allow, so memory
   does not grow with a shard.
3. A sample that cannot be encoded is left out and noted.
4. `shard-000000.json`, the shard's note, is written after it: what it was made of, and what came of
   that. A shard with its note is finished, and a later run keeps it.

Costs 1.5 ms a 64-pixel image and core, most of it the tokenizer's.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from unimodal.codec import IMAGES_AT_ONCE, ImageCodec
from unimodal.document import Image, StoredFile
from unimodal.image_tokenizers import load_tokenizer
from unimodal.threads import one_thread

from . import codes_member as codes
from .folder import shared, write_json
from .formats import Sample, SampleError, detect_format, document
from .identity import file_hash
from .image_members import natural
from .lengths import Bad
from .quarantine import Quarantine
from .rows import sized
from .sample import EMBEDDED
from .shards import Shard, ShardWriter, shard_name
from .sizes import ImageRule
from .tar import Fault, ShardError

QUARANTINE = "quarantine.jsonl"
MAX_SAMPLES = IMAGES_AT_ONCE  # in work together
MAX_PIXELS = 2**22  # of them, in all; a single larger sample is worked on alone
CENTRE = (0.5, 0.5)


@dataclass(frozen=True)
class EncodeConfig:
    """All that decides the bytes of code shards, beside their sources."""

    tokenizer: Path
    """Directory of the image tokenizer."""
    tokenizer_hash: str
    rule: ImageRule | None
    """How images are resized; None: not at all, and their sides are multiples of the patch."""

    def note(self) -> dict[str, Any]:
        """Return the settings by name, without directories: those may be others the next time."""
        return {
            "tokenizer": self.tokenizer_hash,
            "target_pixels": self.rule.target_pixels if self.rule else None,
            "max_aspect_ratio": self.rule.max_aspect_ratio if self.rule else None,
        }


@dataclass(frozen=True)
class EncodedShard:
    """The note of a finished shard: what it was made of, and what came of that."""

    source: str
    """SHA-256 of the image shard."""
    samples: int
    """Samples of the image shard, the bad ones included."""
    images: int
    image_bytes: int
    code_bytes: int
    bad: list[dict[str, str]]
    """Key, reason and message of each sample that was left out."""


def encode_shards(
    paths: Sequence[Path],
    output: Path,
    config: EncodeConfig,
    workers: int = 1,
    bad_share: float = 0.01,
) -> Iterator[EncodedShard]:
    """Encode these shards; yield the note of each in order, finished ones included.

    ShardError before any work when the folder holds shards of other sources, and in the course of
    it when more than `bad_share` of the samples cannot be encoded.
    """
    notes = [_finished(output, number, path) for number, path in enumerate(paths)]
    if (output / shard_name(len(paths))).exists():
        raise ShardError(
            f"{output} holds more than {len(paths)} shards, of sources that are not given now; "
            "give them too, or another folder"
        )
    (output / QUARANTINE).unlink(missing_ok=True)  # written anew, from the notes
    quarantine = Quarantine(output / QUARANTINE, bad_share, "--bad-share")
    left = [number for number, note in enumerate(notes) if note is None]
    samples = 0
    with closing(shared(partial(_encode_shard, paths, output, config), left, workers)) as made:
        for path, kept in zip(paths, notes, strict=True):
            note = kept or next(made)
            bad = [Bad(str(path), **entry) for entry in note.bad]
            samples += note.samples
            quarantine.add_read(bad, samples)
            yield note
    quarantine.settle(samples)


def _finished(output: Path, number: int, source: Path) -> EncodedShard | None:
    """Return the note of a finished shard, else None; ShardError when its source was another."""
    path = output / shard_name(number)
    try:
        note = EncodedShard(**json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or a damaged one: the shard is made again
        return None
    if note.source != file_hash(source):
        raise ShardError(
            f"{path} was made of another shard than {source}: give the same shards in the same "
            "order, more of them behind these, or another folder"
        )
    return note if path.exists() or len(note.bad) == note.samples else None


def _encode_shard(
    paths: Sequence[Path], output: Path, config: EncodeConfig, number: int
) -> EncodedShard:
    """Write one shard into the folder, then its note."""
    faults: list[Fault] = []
    shard = Shard(paths[number], faults)
    codec = _codec(config.tokenizer, config.tokenizer_hash)
    with ShardWriter(output, max_samples=max(1, len(shard)), first=number) as writer, one_thread():
        work = _Work(codec, config.rule, writer)
        for group in work.groups(shard):
            work.write(group)
            del group  # or else its pixels are held while the next ones are opened
    damaged = [
        {"key": fault.key or "", "reason": fault.reason, "message": fault.message}
        for fault in faults
    ]
    note = EncodedShard(
        file_hash(paths[number]), len(shard) + len(faults), work.images, work.image_bytes,
        work.code_bytes, [*damaged, *work.bad],
    )  # fmt: skip
    write_json((output / shard_name(number)).with_suffix(".json"), asdict(note))
    return note


@lru_cache(1)
def _codec(directory: Path, tokenizer_hash: str) -> ImageCodec:
    """Load the image tokenizer of this process, once."""
    codec = ImageCodec(load_tokenizer(directory))
    if codec.hash != tokenizer_hash:
        raise ValueError(f"{directory} was changed under way: run the same command again")
    return codec


Opened = tuple[Sample, dict[str, Image]]  # a sample, and its images by extension


class _Work:
    """A shard being encoded, and what is counted of it."""

    def __init__(self, codec: ImageCodec, rule: ImageRule | None, writer: ShardWriter) -> None:
        self.codec, self.rule, self.writer = codec, rule, writer
        self.images = self.image_bytes = self.code_bytes = 0
        self.bad: list[dict[str, str]] = []

    def groups(self, shard: Shard) -> Iterator[list[Opened]]:
        """Yield neighbouring samples that are encoded together, their images opened."""
        group: list[Opened] = []
        group_pixels = 0
        for sample in map(shard.sample, range(len(shard))):
            try:
                images = opened(sample, self.rule, self.codec)
            except SampleError as error:
                self._leave_out(sample, error.reason, error)
                continue
            num_pixels = sum(p.pixels.size // 3 for p in images.values() if p.pixels is not None)
            if group and group_pixels + num_pixels > MAX_PIXELS:
                yield group
                group, group_pixels = [], 0
            group.append((sample, images))
            group_pixels += num_pixels
            if len(group) == MAX_SAMPLES:
                yield group
                group, group_pixels = [], 0
        if group:
            yield group

    def write(self, group: list[Opened]) -> None:
        """Encode the images of these samples and write the samples."""
        encoded = iter(self.codec.encode([one for _, images in group for one in images.values()]))
        for sample, images in group:
            whole = {name: next(encoded) for name in images}
            files = with_codes(sample, whole, self.codec.num_codes)
            try:
                self.writer.write_files(sample.key, files)
            except ShardError as error:
                self._leave_out(sample, "wrong name", error)
                continue
            self.images += len(whole)
            self.image_bytes += sum(len(sample.files[name]) for name in whole)
            self.code_bytes += sum(len(files[codes_name(name)]) for name in whole)

    def _leave_out(self, sample: Sample, reason: str, error: Exception) -> None:
        self.bad.append({"key": sample.key, "reason": reason, "message": str(error)})


def opened(sample: Sample, rule: ImageRule | None, codec: ImageCodec) -> dict[str, Image]:
    """Return the images of a sample, resized, by extension.

    SampleError when one cannot be encoded, or holds codes of another tokenizer.
    """
    _check_names(sample)
    if _embeds_images(sample):
        raise SampleError(
            "image in .json",
            "an image is a data: URL inside .json, which codes cannot replace: train on the shard "
            "as it is, or convert the table that it was made of (unimodal data convert)",
        )
    found = {}
    for name in sample.image_files:
        stored = StoredFile(sample.files[name], name)
        image = found[name] = sized(stored, rule, CENTRE, mirror=False)
        if image.pixels is None:
            if image.codec_hash != codec.hash:
                raise SampleError(
                    "foreign codes", f".{name}: codes of tokenizer {image.codec_hash}"
                )
            continue
        try:
            codec.geometry.grid_of(*image.pixels.shape[:2])
        except ValueError as error:
            raise SampleError("bad image", f".{name}: {error}; give --target-pixels") from error
    return found


def _embeds_images(sample: Sample) -> bool:
    """Tell whether an image of the sample stands in its .json, as a data: URL."""
    if b"base64" not in sample.files.get("json", b""):
        return False
    parts = document(sample, detect_format(sample)).parts
    return any(isinstance(p, Image) and p.stored and p.stored.name == EMBEDDED for p in parts)


def _check_names(sample: Sample) -> None:
    """Check that codes keep the order of names, in which sample formats take images."""
    names = list(map(codes_name, sample.image_files))
    if names != sorted(set(names), key=natural):
        images = ", ".join(sample.image_files)
        raise SampleError(
            "ambiguous names",
            f"{images}: their codes would share a name or stand in another order; rename them",
        )


def codes_name(name: str) -> str:
    """Return the extension of the codes that replace an image: '0.png' -> '0.codes'."""
    return f"{name.rpartition('.')[0]}.{codes.EXTENSION}".removeprefix(".")


def with_codes(sample: Sample, images: dict[str, Image], num_codes: int) -> dict[str, bytes]:
    """Return the sample's files in their order, each of these images replaced by its codes."""
    return {
        codes_name(name) if name in images else name: (
            codes.to_bytes(images[name], num_codes) if name in images else content
        )
        for name, content in sample.files.items()
    }
