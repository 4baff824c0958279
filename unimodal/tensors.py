"""Read and write safetensors files in pieces, so that a model of any size takes little memory.

A file is 8 bytes of length (little endian), a JSON header of that length, {name: {dtype, shape,
data_offsets}}, and the tensors' bytes. A model in several files has an index, {"weight_map": {name:
file}}. Bytes are copied unchanged, whatever their dtype; only tensors that are computed with are
read as numbers.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CHUNK_BYTES = 2**23
ROWS_BYTES = 2**20  # of a block of rows, which takes several times as much in float64
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}  # I64: of counters, which are copied alone
Bytes = bytes | memoryview


class WeightsError(ValueError):
    """WeightsError says which weights file is missing, damaged or of an unsupported kind."""


@dataclass(frozen=True)
class StoredTensor:
    """A StoredTensor is a tensor in a file, whose bytes are start .. stop - 1 of it."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the tensor's bytes in order, CHUNK_BYTES at a time.

        Raise WeightsError where the file ends before the tensor.
        """
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            left = self.stop - self.start
            while left:
                chunk = stream.read(min(left, CHUNK_BYTES))
                if not chunk:
                    raise WeightsError(f"{self.path} is cut: fetch it again")
                left -= len(chunk)
                yield chunk

    def row_blocks(self) -> Iterator[Tensor]:
        """Yield the tensor's rows in order, as float64 blocks (n, width)."""
        width = prod(self.shape[1:])
        row_bytes = width * BYTES[self.dtype]
        block_bytes = max(1, ROWS_BYTES // row_bytes) * row_bytes
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            for at in range(self.start, self.stop, block_bytes):
                data = bytearray(stream.read(min(block_bytes, self.stop - at)))
                block = torch.frombuffer(data, dtype=DTYPES[self.dtype])
                yield block.reshape(-1, width).double()


@dataclass(frozen=True)
class PlannedTensor:
    """A PlannedTensor is a tensor to be written; `chunks` makes its bytes when they are needed."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[Bytes]]

    @property
    def num_bytes(self) -> int:
        """Return the tensor's size in bytes."""
        return prod(self.shape) * BYTES[self.dtype]


class Stream(Protocol):
    """What a file is written to."""

    def write(self, data: Bytes, /) -> int:
        """Write all of it, and return how many bytes that were."""


def as_bytes(block: Tensor, dtype: str) -> bytes:
    """Return a tensor's bytes in one of DTYPES, rounded to nearest where that is narrower."""
    return block.to(DTYPES[dtype]).contiguous().view(torch.uint8).numpy().tobytes()


def in_memory(name: str, tensor: Tensor, dtype: str | None = None) -> PlannedTensor:
    """Return a tensor on the CPU or a GPU, to be written as one of DTYPES (None: its own)."""
    dtype = NAMES[tensor.dtype] if dtype is None else dtype

    def chunks() -> Iterator[Bytes]:
        flat = tensor.detach().to("cpu", DTYPES[dtype]).contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().data
        for at in range(0, len(data), CHUNK_BYTES):
            yield data[at : at + CHUNK_BYTES]

    return PlannedTensor(name, dtype, tuple(tensor.shape), chunks)


# --- reading ------------------------------------------------------------------------------------


def weight_files(directory: Path, wanted: Callable[[str], bool] = lambda name: True) -> list[Path]:
    """Return the safetensors files of a directory's model: the single one, or those of its index
    that hold tensors of wanted names.

    Raise WeightsError where one is missing.
    """
    if not (directory / INDEX).is_file():
        if (directory / SINGLE).is_file():
            return [directory / SINGLE]
        raise WeightsError(f"{directory} holds neither {SINGLE} nor {INDEX}")
    names = files_of_index(directory, wanted)
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise WeightsError(f"{directory} lacks {', '.join(missing)}: fetch it again")
    return [directory / name for name in names]


def files_of_index(directory: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Return the names of the files that hold tensors of wanted names, as an index says."""
    return sorted({file for name, file in _weight_map(directory).items() if wanted(name)})


def find_tensors(
    directory: Path, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, StoredTensor]:
    """Return {name: tensor} of the tensors of a directory's model that have wanted names, without
    reading their bytes.

    Raise WeightsError where a file is missing or damaged, or a tensor is missing or there twice.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(directory, wanted):
        for name, tensor in stored_in(path).items():
            if name in found:
                raise WeightsError(f"{name} is in {found[name].path.name} and in {path.name}")
            if wanted(name):
                found[name] = tensor
    if (directory / INDEX).is_file():
        missing = sorted(set(filter(wanted, _weight_map(directory))) - set(found))
        if missing:
            raise WeightsError(f"{directory / INDEX} names tensors that are in no file: {missing}")
    return found


def _weight_map(directory: Path) -> dict[str, str]:
    """Return {tensor name: file name} of an index; raise WeightsError where it is damaged."""
    try:
        names = json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{directory / INDEX} is damaged: {error!r}") from error
    fine = isinstance(names, dict) and all(
        isinstance(name, str) and Path(name).name == name not in ("", "..")
        for name in names.values()
    )
    if not fine or not names:
        raise WeightsError(f"{directory / INDEX} does not say which file holds which tensor")
    return names


def stored_in(path: Path) -> dict[str, StoredTensor]:
    """Return {name: tensor} of a safetensors file; raise WeightsError where it is damaged."""
    try:
        with safe_open(path, "np"):  # checks the header against the file's length; reads no tensor
            pass
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no whole safetensors file ({error}): fetch it again") from (
            error
        )
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return entries(path, stream.read(length))[0]


def entries(path: Path, header: bytes) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return where the tensors of a file lie, by name, and its metadata; `header` is its JSON."""
    found = json.loads(header)
    metadata = found.pop("__metadata__", {})
    begin = 8 + len(header)
    places = {
        name: StoredTensor(
            path,
            entry["dtype"],
            tuple(entry["shape"]),
            *(begin + at for at in entry["data_offsets"]),
        )
        for name, entry in found.items()
    }
    return places, metadata


# --- writing ------------------------------------------------------------------------------------


def write_tensors(
    directory: Path,
    tensors: Iterable[PlannedTensor],
    max_bytes: int,
    metadata: dict[str, str] | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Write tensors into `directory`: one file of at most `max_bytes`, or several with an index.

    A tensor is never split, so a file with a single large one may be longer. `on_bytes` is called
    with the size of each piece that is written.
    """
    shards = _shards(list(tensors), max_bytes)
    if len(shards) == 1:
        return _write_path(directory / SINGLE, shards[0], metadata, on_bytes)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_path(directory / name, shard, metadata, on_bytes)
        weight_map |= {tensor.name: name for tensor in shard}
    total = sum(tensor.num_bytes for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: list[PlannedTensor], max_bytes: int) -> list[list[PlannedTensor]]:
    """Return the tensors in order, split into shards of at most `max_bytes`."""
    shards: list[list[PlannedTensor]] = [[]]
    used = 0
    for tensor in tensors:
        if shards[-1] and used + tensor.num_bytes > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += tensor.num_bytes
    return shards


def write_file(
    stream: Stream,
    tensors: Iterable[PlannedTensor],
    metadata: dict[str, str] | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Write one safetensors file: length, header, and each tensor's bytes as they are made.

    Equal tensors make equal files, in whatever order they come.
    """
    # The order of the safetensors library: wide dtypes first, then by name.
    tensors = sorted(tensors, key=lambda tensor: (-BYTES[tensor.dtype], tensor.name))
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for tensor in tensors:
        offsets = [at, at + tensor.num_bytes]
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        at = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        written = 0
        for chunk in tensor.chunks():
            stream.write(chunk)
            written += len(chunk)
            on_bytes(len(chunk))
        assert written == tensor.num_bytes, f"{tensor.name} came to {written} bytes"


def _write_path(
    path: Path,
    tensors: list[PlannedTensor],
    metadata: dict[str, str] | None,
    on_bytes: Callable[[int], None],
) -> None:
    with path.open("wb") as stream:
        write_file(stream, tensors, metadata, on_bytes)
