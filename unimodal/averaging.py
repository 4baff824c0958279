"""The weighted mean of two models' weights, which keeps some of what each of them learned.

    theta = (1 - share) theta_first + share theta_second

(Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, arXiv 2109.01903, section 3.) It
serves where both were trained from the same weights: where a second training learned one thing and
forgot another, the way between both is often better than either.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from .bundle import (
    MAX_SHARD_BYTES,
    BundleContents,
    BundleError,
    Progress,
    check_output,
    read_contents,
    write_bundle,
)
from .tensors import DTYPES, PlannedTensor, StoredTensor, as_bytes, find_tensors


def average(
    first: Path,
    second: Path,
    output: Path,
    share: float = 0.5,
    on_progress: Progress = lambda done, total: None,
) -> Path:
    """Write the bundle whose weights lie between those of two bundles, and return its directory.

    share: 0 to 1, exclusive, of the second. Weights are read and written a few megabytes at a time
    and averaged in float32; each has the dtype it has in the second. All else, the image tokenizer
    and sampling too, is the second's. Raise ValueError for another share or a place that holds
    something, and BundleError where one is damaged or the two differ in architecture or text.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share:g}: between 0 and 1, which are the two models themselves")
    check_output(output)
    ours, theirs = read_contents(first), read_contents(second)
    here, there = find_tensors(first), find_tensors(second)
    if differing := _differing(ours, theirs, here, there):
        raise BundleError(
            f"{first} and {second} differ in {', '.join(differing)}: a mean is of two models that "
            "were trained from the same one"
        )
    planned = [_between(name, here.get(name), tensor, share) for name, tensor in there.items()]
    contents = replace(theirs, card=_card(ours, theirs, share), hash=None)
    write_bundle(output, contents, planned, on_progress, MAX_SHARD_BYTES)
    return output


def _differing(
    ours: BundleContents,
    theirs: BundleContents,
    here: dict[str, StoredTensor],
    there: dict[str, StoredTensor],
) -> list[str]:
    """Return in what respects a weight would mean another thing in each of the two."""
    # That a model was taught boxes changes what it is asked, and no weight's meaning; one without
    # addresses is one whose tables of them are zero.
    first, second = ours.config.architecture, theirs.config.architecture
    addresses = first.image.addresses or second.image.addresses
    plans = [
        replace(first, image=replace(first.image, boxes=False, addresses=addresses)),
        replace(second, image=replace(second.image, boxes=False)),
    ]
    parts = ("transformer", "vocabulary", "image")
    found = [part for part in parts if getattr(plans[0], part) != getattr(plans[1], part)]
    if ours.text_tokenizer.hash != theirs.text_tokenizer.hash:
        found.append("text tokenizer")
    both = here.keys() & there.keys()
    if not found and any(here[name].dtype != there[name].dtype for name in both):
        found.append("dtype of weights")
    return found


def _between(
    name: str, ours: StoredTensor | None, theirs: StoredTensor, share: float
) -> PlannedTensor:
    """Plan the mean of a tensor of both; a table that the first has not is zero there."""

    def chunks() -> Iterator[bytes]:
        if ours is None:
            for b in theirs.chunks():
                yield as_bytes(share * _floats(b, theirs), theirs.dtype)
            return
        for a, b in zip(ours.chunks(), theirs.chunks(), strict=True):
            yield as_bytes(_floats(a, ours).lerp(_floats(b, theirs), share), theirs.dtype)

    return PlannedTensor(name, theirs.dtype, theirs.shape, chunks)


def _floats(some: bytes, of: StoredTensor) -> torch.Tensor:
    return torch.frombuffer(bytearray(some), dtype=DTYPES[of.dtype]).float()


def _card(ours: BundleContents, theirs: BundleContents, share: float) -> dict[str, object]:
    """Return the second's card; scores of a model that is not there any more are left out."""
    kept = {name: fact for name, fact in theirs.card.items() if not name.startswith("scores")}
    return {**kept, "averaged": {"first": ours.hash, "second": theirs.hash, "share": share}}
