"""An assembly collects the tokens of a document, part by part, and makes a sequence of them."""

from collections.abc import Iterator

import numpy as np

from .heads.head import ImageTokens
from .sequence import IGNORE, Sequence, Span
from .sequence import IMAGE as IMAGE_TARGET
from .sequence import TEXT as TEXT_TARGET
from .text import TextTokenizer


class Assembly:
    """An Assembly collects the tokens of a sequence, each with the weight of its loss."""

    def __init__(self, text: TextTokenizer, joined: bool) -> None:
        self._text, self._joined = text, joined
        self._words, self._words_weight = "", 0.0  # joined text that is not encoded yet
        self._ids: list[int] = []  # causal tokens that are not in self._runs yet
        self._weights: list[float] = []
        self._runs: list[ImageTokens] = []  # images, and runs of text between them
        self._blocks = self._privates = 0  # the largest numbers in use
        self._two_way: list[slice] = []  # tokens that see each other both ways, beside images

    def add(self, ids: list[int], weight: float) -> None:
        """Add causal tokens."""
        if not ids:
            return
        self.end_words()
        self._ids += ids
        self._weights += [weight] * len(ids)

    def add_text(self, text: str, weight: float) -> None:
        """Add a text; a joined layout encodes it together with texts before it of equal weight."""
        if not self._joined:
            self.add(self._text.encode(text), weight)
            return
        if weight != self._words_weight:
            self.end_words()
        self._words, self._words_weight = self._words + text, weight

    def end_words(self) -> None:
        """Encode the texts that wait to be joined: what follows is not joined with them."""
        words, self._words = self._words, ""
        if words:
            self.add(self._text.encode(words), self._words_weight)

    def add_image(self, tokens: ImageTokens) -> None:
        """Add an image's tokens, with block and private numbers that no other image has."""
        self._end_run()
        self._runs.append(tokens.numbered(self._blocks, self._privates))
        self._blocks += int(tokens.block.max(initial=0))
        self._privates += int(tokens.private.max(initial=0))

    @property
    def length(self) -> int:
        """Return how many tokens there are so far."""
        self.end_words()
        return sum(len(run.ids) for run in self._runs) + len(self._ids)

    def two_way(self, start: int) -> None:
        """Let all tokens from `start` on see each other both ways, as one block."""
        if start < self.length:
            self._two_way.append(slice(start, self.length))

    def mask(self, ids: list[int]) -> None:
        """Replace each token so far but the first by `ids`, which are one; none is learned."""
        self._end_run()
        first, *others = np.concatenate([run.ids for run in self._runs]).tolist()
        self._runs, self._ids = [], [first, *ids * len(others)]
        self._weights = [0.0] * len(self._ids)

    def _end_run(self) -> None:
        self.end_words()
        if self._ids:
            self._runs.append(ImageTokens.causal(self._ids, self._weights))
        self._ids, self._weights = [], []

    def sequence(self) -> Sequence:
        """Return all tokens with their labels.

        A label is the id of the next token, or a token's own target (ImageTokens.own_labels).
        """
        self._end_run()
        runs = self._runs = self._runs or [ImageTokens.causal([], [])]
        ids, weights, own, block, private, address = (
            np.concatenate([getattr(run, name) for run in runs])
            for name in ("ids", "weights", "own_labels", "block", "private", "address")
        )
        is_image, own_weights = (
            np.concatenate([getattr(run, name) for run in runs])
            for name in ("is_image", "own_weights")
        )
        for number, tokens in enumerate(self._two_way, start=self._blocks + 1):
            block[tokens] = number
        next_weights = _ahead(weights, 0)
        labels = np.where(next_weights > 0, _ahead(ids, IGNORE), IGNORE)
        next_modality = np.where(_ahead(is_image, False), IMAGE_TARGET, TEXT_TARGET)
        modality = np.where(next_weights > 0, next_modality, 0)
        has_own = own_weights > 0
        return Sequence(
            ids=ids,
            labels=np.where(has_own, own, labels),
            weights=np.where(has_own, own_weights, next_weights).astype(np.float32),
            modality=np.where(has_own, IMAGE_TARGET, modality).astype(np.int8),
            block=block,
            private=private,
            positions=self._positions(),
            address=address,
            spans=tuple(self._spans()),
        )

    def _positions(self) -> np.ndarray:
        """Return each token's RoPE position, int64 (n,).

        Private tokens of an image share positions with its public ones, so that what follows an
        image has the same positions in training and in chat.
        """
        starts = np.cumsum([0, *(run.num_positions for run in self._runs)])
        moved = [run.positions + start for run, start in zip(self._runs, starts, strict=False)]
        return np.concatenate(moved).astype(np.int64)

    def _spans(self) -> Iterator[Span]:
        start = 0
        for run in self._runs:
            yield from (span.moved(start) for span in run.spans)
            start += len(run.ids)


def _ahead(values: np.ndarray, last: float) -> np.ndarray:
    """Return for each token the value of the next token, and `last` for the last one."""
    return np.append(values[1:], np.array(last, values.dtype))[: len(values)]
