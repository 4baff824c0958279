"""Note where a run stands in its data, and find that place again where its sources have changed.

In a checkpoint's `data`: the loader's state, the titles of the streams that it counts for, and the
hash of the text tokenizer that the rows were made with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from unimodal.data.windows import LoaderState

STREAMS, TEXT = "streams", "text"


def noted(state: LoaderState, titles: Sequence[str], text_hash: str) -> dict[str, Any]:
    """Return what a checkpoint keeps of a place in the data, as plain values."""
    return asdict(state) | {STREAMS: list(titles), TEXT: text_hash}


def found(data: Mapping[str, Any], titles: Sequence[str]) -> LoaderState:
    """Return the loader's state for the streams of these titles: a stream that was there goes on
    where it was, a new one begins. Raises ValueError for what another version noted.
    """
    state = LoaderState.of({k: v for k, v in data.items() if k not in (STREAMS, TEXT)})
    before = data.get(STREAMS, list(titles))  # older checkpoints are of the same streams
    if len(before) != len(state.taken):
        return state  # the loader refuses it
    taken = dict(zip(before, state.taken, strict=True))
    owed = dict(zip(before, state.owed, strict=True))
    return replace(
        state,
        taken=tuple(taken.get(title, (0, 0)) for title in titles),
        owed=tuple(owed.get(title, 0.0) for title in titles),
    )


def check_text(data: Mapping[str, Any], text_hash: str, where: str) -> None:
    """Raise ValueError where the run's rows were made with another text tokenizer."""
    if data.get(TEXT, text_hash) != text_hash:
        raise ValueError(
            f"{where} is not the text tokenizer that the run began with ({data[TEXT][:12]} -> "
            f"{text_hash[:12]}): put it back, or remove it, and it is learned from the same texts"
        )
