"""What would have to go of a conversation that is too long, and what finding it costs."""

import pytest

from unimodal.document import Document, Text
from unimodal.model import Model
from unimodal.room import exchanges, num_too_many
from unimodal.sequencer import Sequencer


def test_what_has_to_go_is_found_in_a_few_tries(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [Text("word " * (1 + n % 5), role=("user", "assistant")[n % 2]) for n in range(127)]
    found, sequencer = exchanges(Document(tuple(turns))), tiny_model.sequencer
    assert len(found) == 64
    lengths = [
        len(sequencer.prompt(Document(tuple(part for one in found[gone:] for part in one))))
        for gone in range(len(found))
    ]
    laid_out, prompt = 0, Sequencer.prompt

    def counting(self: Sequencer, document: Document) -> object:
        nonlocal laid_out
        laid_out += 1
        return prompt(self, document)

    monkeypatch.setattr(Sequencer, "prompt", counting)
    for most in (0, lengths[-1], lengths[-1] - 1, lengths[30], lengths[30] + 1, lengths[0]):
        laid_out = 0
        expected = sum(length > most for length in lengths)
        assert num_too_many(sequencer, found, most) == expected
        assert laid_out <= 7, "64 turns are halved six times"
