"""Replay a sampled reply: which of its ids the policy chose, and among which ids.

In: a prompt and the ids of its reply. Out: a `Trajectory`, the tokens to run the transformer over
and the choices that were made: exactly those that generation samples, for the same grammar walks
through the reply. Ids that must follow are read, and are no choices.
"""

from dataclasses import dataclass

import numpy as np

from unimodal.document import Document
from unimodal.grammar import Choice, Grammar, Modality, ReplyState
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Sequence
from unimodal.tokenizer.grid import Grid

CODE = -1  # in place of a mask's number: the image head chooses the code


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A Trajectory holds a prompt and its reply as tokens, and the n choices of the reply.

    at_n int64: the token whose hidden vector each choice was sampled from, in rising order.
    ids_n int64: the id that was chosen.
    reply_ids: all ids of the reply.
    mask_n int64: which of the Replay's masks says what was allowed; CODE for codes of an image.
    """

    sequence: Sequence
    at_n: np.ndarray
    ids_n: np.ndarray
    mask_n: np.ndarray
    reply_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.at_n)


class Replay:
    """A Replay makes trajectories, and numbers the masks of what was allowed."""

    def __init__(self, model: Model, sampling: Sampling, modality: Modality | None) -> None:
        """Take the budget and the modality constraint that replies are sampled with."""
        self._sequencer, self._context = model.sequencer, model.context
        self._sampling, self._modality = sampling, modality
        layout, spelled = model.sequencer.layout, model.text_tokenizer.spelled
        self._grammar, self._layout = Grammar(layout, [model.grid], spelled), layout
        self.masks: list[np.ndarray] = []
        """Of the ids from 0 on, which are allowed, bool."""
        self._numbers: dict[Choice, int] = {}

    def __call__(self, document: Document, reply_ids: tuple[int, ...]) -> Trajectory:
        """Return the trajectory of a reply, of which generation gave these ids."""
        prompt = self._sequencer.prompt(document)
        ids = np.array(reply_ids, np.int64)
        state = ReplyState(
            self._grammar, self._context - len(prompt), self._sampling.max_text_tokens,
            self._sampling.max_images, self._modality,
        )  # fmt: skip
        mask_n = np.full(len(ids), CODE - 1)  # below CODE: no choice
        address_n2 = np.zeros((len(ids), 2), np.int16)
        while not state.over:
            at, following = len(state.ids), state.next
            if isinstance(following, Grid):
                end = at + self._layout.content_length(following)
                is_code = self._layout.content(np.zeros(following.size, np.int64), following)[1]
                codes = at + is_code.nonzero()[0]
                mask_n[codes], address_n2[codes] = CODE, following.addresses + 1
                state.take_image(ids[at:end].tolist())
                continue
            if isinstance(following, Choice):
                mask_n[at] = self._number(following)
            state.take(int(ids[at]))
        assert len(state.ids) == len(ids), "the grammar ends where the reply does"
        chosen = (mask_n >= CODE).nonzero()[0]
        sequence = _behind(prompt, ids, address_n2)
        return Trajectory(
            sequence, len(prompt) + chosen - 1, ids[chosen], mask_n[chosen], reply_ids
        )

    def _number(self, choice: Choice) -> int:
        """Return the number of a choice's mask; the grammar makes each choice once."""
        assert choice.first == 0, "choices begin with the first id"
        if choice not in self._numbers:
            self._numbers[choice] = len(self.masks)
            self.masks.append(choice.allowed)
        return self._numbers[choice]


def _behind(prompt: Sequence, ids_n: np.ndarray, address_n2: np.ndarray) -> Sequence:
    """Return a prompt and the ids of a reply, but the last one, behind which nothing is chosen.

    Each token has the address of the code that it predicts.
    """
    reply = Sequence.causal(ids_n[:-1])
    start = int(prompt.positions.max(initial=-1)) + 1
    joined = {
        name: np.concatenate([getattr(prompt, name), getattr(reply, name)])
        for name in Sequence.ARRAYS
    }
    joined["positions"][len(prompt) :] += start
    joined["address"][len(prompt) - 1 :] = address_n2
    return Sequence(**joined, spans=prompt.spans)
