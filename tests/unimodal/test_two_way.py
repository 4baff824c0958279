"""A user's turn whose tokens see each other both ways, beside replies that are read in order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from head_models import hidden_of, next_code_model, picture, talk

from unimodal.bundle import load, save_bundle
from unimodal.chat import Chat
from unimodal.document import Document, Text
from unimodal.events import ReplyDone
from unimodal.generation import Generation, generate
from unimodal.hub.export import export
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Sequence
from unimodal.tokenizer.grid import Grid
from unimodal.train.initial import ShapeConfig

GRID = Grid(3, 4)
SAMPLING = Sampling(seed=2, max_text_tokens=6, max_images=1)


@pytest.fixture(scope="module")
def model() -> Model:
    return next_code_model(64, GRID, addresses=True, two_way=True)


def asked(model: Model, words: str = "make it blue") -> Document:
    """An image and words, whose loss weights are as they come: they are context all the same."""
    image = replace(picture(model, 1), role="user")
    return Document((image, Text(words, role="user"), Text("so", role="assistant")))


def blocks(model: Model, sequence: Sequence) -> list[list[int]]:
    """The places of the tokens of each block."""
    numbers = sorted(set(sequence.block.tolist()) - {0})
    return [np.flatnonzero(sequence.block == number).tolist() for number in numbers]


def test_each_turn_of_the_user_is_one_block_and_context(model: Model) -> None:
    whole = model.sequencer.sequence(asked(model))
    (block,) = blocks(model, whole)
    begin, user, turn_end = (model.vocabulary.special(n) for n in ("begin", "user", "turn_end"))
    assert whole.ids[: block[0]].tolist() == [begin, user]
    assert block == [*range(2, whole.ids.tolist().index(turn_end))]
    assert not whole.weights[: block[-1]].any(), "nothing of it is learned"
    assert (whole.weights > 0).sum() == len(model.text_tokenizer.encode("so")) + 1
    several = model.sequencer.sequence(talk(model))
    first, second = blocks(model, several)
    assert first[-1] < second[0] and len(first) == len(model.text_tokenizer.encode("draw"))
    drawn = several.weights > 0
    assert drawn[first[-1] :].sum() > 2 * GRID.size, "what is drawn is learned in order"


def test_the_user_is_read_both_ways_and_sees_no_reply(model: Model) -> None:
    words = [asked(model, f"make it {colour}") for colour in ("blue", "grey")]
    sequences = [model.sequencer.sequence(one) for one in words]
    vectors = [hidden_of(model, one) for one in sequences]
    (block,) = blocks(model, sequences[0])
    # Words of unequal lengths: all up to the last word stand in the same places.
    changed = [not torch.allclose(*pair) for pair in zip(*vectors, strict=False)]
    assert changed[block[0]], "the image's first token has seen the last word"
    assert not any(changed[: block[0]])
    told = replace(words[0].parts[-1], text="no")
    other = hidden_of(model, model.sequencer.sequence(Document((*words[0].parts[:-1], told))))
    torch.testing.assert_close(other[: block[-1] + 1], vectors[0][: block[-1] + 1])


def test_a_conversation_reads_each_turn_once(model: Model) -> None:
    """Each turn runs its own tokens alone, and answers as if it read all."""
    kept = Generation(model, num_prefixes=4)
    said, counts = asked(model), []
    for words in ("now grey", "and a star", "what is it?"):
        said = Document((*said.parts, Text(words, role="user")))
        before = kept.num_read
        number = kept.submit(said, SAMPLING)
        (done,) = [one for one in kept.run() if isinstance(one, ReplyDone)]
        counts.append(kept.num_read - before)
        (fresh,) = generate(model, [said], [SAMPLING])
        assert done.request == number
        assert [repr(one) for one in done.parts] == [repr(one) for one in fresh]
        said = Document((*said.parts, *fresh))
    assert counts[0] > max(counts[1:]) and len(model.sequencer.prompt(said)) > sum(counts[1:])


def test_a_bundle_remembers_it_and_has_no_export(model: Model, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", model)
    again = load(tmp_path / "bundle")
    assert again.sequencer.two_way and again.transformer.architecture.image.two_way
    chat = Chat(again, seed=1, max_text_tokens=4, max_images=1)
    assert chat("draw").parts
    with pytest.raises(ValueError, match="trained without model.two_way has an export"):
        export(tmp_path / "bundle", tmp_path / "exported")


def test_heads_that_see_both_ways_refuse_it(model: Model) -> None:
    with pytest.raises(ValueError, match="model.two_way: model.head masked does not draw code by"):
        ShapeConfig(head="masked", two_way=True).of(model.vocabulary, ())
