"""Replay sampled replies: which of their ids the policy chose, and among which ids.

In: a prompt and the ids of replies to it. Out: a `Trajectory` of each, the tokens to run the
transformer over and the choices that were made: exactly those that generation samples, for the same
grammar walks through the reply. Ids that must follow are read, and are no choices.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

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

    prompt: the same object for all replies that were replayed together.
    reply: its ids but the last one, behind which nothing is chosen, at the prompt's next positions.
    at_n int64: the token of the reply whose hidden vector each choice was sampled from, in rising
        order; -1 is the prompt's last token.
    ids_n int64: the id that was chosen.
    reply_ids: all ids of the reply.
    mask_n int64: which of the Replay's masks says what was allowed; CODE for codes of an image.
    """

    prompt: Sequence
    reply: Sequence
    at_n: np.ndarray
    ids_n: np.ndarray
    mask_n: np.ndarray
    reply_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.at_n)

    @property
    def ids(self) -> np.ndarray:
        """Return the ids of the prompt and of the reply but its last one, int64."""
        return np.concatenate([self.prompt.ids, self.reply.ids])


class Replay:
    """A Replay makes trajectories, and numbers the masks of what was allowed."""

    def __init__(self, model: Model, sampling: Sampling, modality: Modality | None) -> None:
        """Take the budget and the modality constraint that replies are sampled with."""
        self._model, self._sampling = model, sampling
        self._modality = model.constraint(modality)
        layout, spelled = model.drawer.sequencer.layout, model.text_tokenizer.spelled
        self._grammar, self._layout = Grammar(layout, [model.grid], spelled), layout
        self.masks: list[np.ndarray] = []
        """Of the ids from 0 on, which are allowed, bool."""
        self._numbers: dict[Choice, int] = {}

    def __call__(self, document: Document, replies: Iterable[tuple[int, ...]]) -> list[Trajectory]:
        """Return the trajectories of replies to a document, of which generation gave these ids."""
        reader, read = self._model.asked(document, self._modality)
        prompt = reader.sequencer.prompt(read)
        return [self._replayed(prompt, ids) for ids in replies]

    def _replayed(self, prompt: Sequence, reply_ids: tuple[int, ...]) -> Trajectory:
        ids = np.array(reply_ids, np.int64)
        state = ReplyState(
            self._grammar, self._model.context - len(prompt), self._sampling.max_text_tokens,
            self._sampling.max_images, self._modality, self._sampling.max_plan_tokens,
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
        assert not address_n2[:1].any(), "no reply begins amid an image"
        reply = replace(_behind(prompt, ids[:-1]), address=address_n2[1:])
        return Trajectory(prompt, reply, chosen - 1, ids[chosen], mask_n[chosen], reply_ids)

    def _number(self, choice: Choice) -> int:
        """Return the number of a choice's mask; the grammar makes each choice once."""
        assert choice.first == 0, "choices begin with the first id"
        if choice not in self._numbers:
            self._numbers[choice] = len(self.masks)
            self.masks.append(choice.allowed)
        return self._numbers[choice]


def _behind(prompt: Sequence, ids_n: np.ndarray) -> Sequence:
    """Return ids at the positions behind a prompt."""
    reply = Sequence.causal(ids_n)
    return replace(reply, positions=reply.positions + int(prompt.positions.max(initial=-1)) + 1)
