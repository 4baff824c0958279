"""Branching says which branches a drawing of codes in order reads at each of its steps."""

from ..sampling import Sampling
from .head import Read, branches_of


class Branching:
    """A Branching gives the reads of a step to the request's branch, and to those of guidance as
    long as there is any. One that begins late reads all of the image at once.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._ids: list[int] = []  # that the request's branch holds of the image
        self._address: list[tuple[int, int]] = []
        self._is_guided = False

    def reads(self, read: Read, time: float) -> dict[str | None, Read]:
        """Return what each branch reads at a time of the drawing, 0 to 1."""
        was_guided, self._is_guided = self._is_guided, self._sampling.guides(time)
        if not self._is_guided:
            return {None: read}
        if was_guided:
            return dict.fromkeys(branches_of(self._sampling), read)
        assert read.address is not None, "what predicts codes has an address"
        late = Read(self._ids + read.ids, address=self._address + read.address)
        return dict.fromkeys(branches_of(self._sampling), late) | {None: read}

    def has_read(self, read: Read) -> None:
        """Note what the request's branch has read."""
        assert read.address is not None, "what predicts codes has an address"
        self._ids += read.ids
        self._address += read.address

    def last(self, read: Read) -> dict[str | None, Read]:
        """Return what each branch reads behind the last code."""
        return dict.fromkeys(branches_of(self._sampling) if self._is_guided else (None,), read)
