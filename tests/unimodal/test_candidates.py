"""A chat keeps the best of several drawings, and says what it could not satisfy."""

from dataclasses import replace

import numpy as np
import pytest
from masked_models import masked_model
from scale_models import scale_model

from unimodal.chat import Chat
from unimodal.chat_events import Drawn, Note, Reply
from unimodal.checking import judged
from unimodal.checks import checks_of
from unimodal.document import Image, Text
from unimodal.events import ImageProgress, TextDelta
from unimodal.grammar import Modality
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.model import Model

WORDS = "draw two red circles and a star"


def drawn(chat: Chat) -> Image:
    return next(part for part in reversed(chat.document.parts) if isinstance(part, Image))


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 2])
def test_the_kept_drawing_is_the_best_of_those_of_its_seeds(tiny_model: Model, seed: int) -> None:
    chat = Chat(tiny_model, candidates=4, seed=seed)
    reply = chat(WORDS, modality="image")
    scores = {}
    for one in ((seed + number) % 2**64 for number in range(4)):
        alone = Chat(tiny_model, seed=one)
        alone(WORDS, modality="image")
        scores[one] = judged(tiny_model, drawn(alone), checks_of(WORDS)).score
        if one == reply.seed:
            np.testing.assert_array_equal(drawn(alone).codes, drawn(chat).codes)
    assert len(set(scores.values())) == 4 and reply.seed == max(scores, key=lambda s: scores[s])
    assert chat.sampling.seed == (seed + 4) % 2**64, "asking again draws with other seeds"
    (said,) = reply.notes
    assert said.startswith(f"seed {reply.seed} is kept, of {seed} to {(seed + 3) % 2**64}: not ")
    assert said.endswith("two red circles; a star"), "an untrained model sees neither"


def test_events_of_candidates(drawing_model: Model) -> None:
    events = list(Chat(drawing_model, candidates=3, seed=5).stream(WORDS))
    progress = [event for event in events if isinstance(event, ImageProgress)]
    size = drawing_model.grid.size
    assert [(one.done, one.total) for one in progress] == [
        (k, 3 * size) for k in range(1, 3 * size + 1)
    ]
    assert all(one.partial is None for one in progress)
    kinds = [type(one) for one in events if not isinstance(one, ImageProgress)]
    assert kinds == [Note, TextDelta, TextDelta, Drawn, Reply]
    reply = events[-1]
    assert isinstance(reply, Reply) and reply.text == "ok" and len(reply.images) == 1
    assert reply.seed == 5, "this model's answers do not depend on the image: the first is kept"
    assert [one.seed for one in events if isinstance(one, Drawn)] == [5]


def test_what_cannot_be_judged_is_drawn_once(drawing_model: Model) -> None:
    chat = Chat(drawing_model, candidates=3, seed=5)
    reply = chat("make it blue")
    assert (reply.seed, chat.sampling.seed) == (5, 6)
    assert reply.notes == ("drawn once: these words name nothing that can be asked about",)
    reply = chat("what is a star?", modality="text")
    assert (reply.seed, chat.sampling.seed, reply.notes) == (6, 7, ())


def test_replies_in_words_are_not_judged(drawing_model: Model) -> None:
    chat = Chat(drawing_model, candidates=2, max_images=0)
    reply = chat(WORDS)
    assert reply.images == [] and reply.notes == () and reply.seed == 0


def test_candidates_that_are_left_leave_no_trace(tiny_model: Model) -> None:
    chat = Chat(tiny_model, candidates=3, seed=1)
    events = chat.stream(WORDS, modality="image")
    assert isinstance(next(events), ImageProgress)
    events.close()  # type: ignore[attr-defined]
    assert chat.document.parts == () and chat.sampling.seed == 1
    kept = chat(WORDS, modality="image")
    fresh = Chat(tiny_model, candidates=3, seed=1)(WORDS, modality="image")
    assert kept.seed == fresh.seed and kept.notes == fresh.notes


def test_the_next_turn_reads_only_itself(drawing_model: Model) -> None:
    chat = Chat(drawing_model, candidates=3, guidance=2.0, max_text_tokens=8)
    chat(WORDS)
    length = len(drawing_model.sequencer.prompt(chat.document))
    generation = chat._generation
    assert generation is not None
    before = generation.num_read
    chat("what is it?", modality="text")
    assert chat._generation is generation
    assert generation.num_read - before < length, "the kept drawing was not read again"


def test_numbers_of_candidates_that_there_are_not(drawing_model: Model) -> None:
    for num in (0, 9, -1, 2.0, True, "4"):
        with pytest.raises(ValueError, match="candidates .*: a whole number from 1 to 8 is wanted"):
            Chat(drawing_model, candidates=num)  # type: ignore[arg-type]
    chat = Chat(drawing_model)
    with pytest.raises(ValueError, match="candidates 9"):
        chat.candidates = 9
    assert chat.candidates == 1


# --- long conversations, undo and redo ----------------------------------------------------------


def test_a_long_conversation_is_cut_at_whole_turns(drawing_model: Model) -> None:
    model = replace(drawing_model, context=200)
    chat, notes = Chat(model, cuts=True, max_text_tokens=4), []
    for number in range(12):
        reply = chat(f"number {number}")
        assert len(reply.images) == 1
        notes.append(reply.notes)
    parts = chat.document.parts
    assert sum(part.role == "user" for part in parts) == 12, "the conversation itself is whole"
    said = [one for one in notes if one]
    assert 2 <= len(said) < 8, "a cut makes room for some turns"
    assert notes[0] == () and all("it is not told your" in one[0] for one in said)
    with pytest.raises(ValueError, match="a reply needs up to"):
        Chat(model, cuts=True)("word " * 200)
    whole = Chat(model)
    whole.resume(chat.document)
    with pytest.raises(ValueError, match="turns would have to go"):
        whole("one more")


def test_what_is_left_out_is_not_told(drawing_model: Model, monkeypatch) -> None:
    from unimodal.generation import Generation

    told, submit = [], Generation.submit

    def recorded(self, document, *settings):
        told.append(document)
        return submit(self, document, *settings)

    monkeypatch.setattr(Generation, "submit", recorded)
    model = replace(drawing_model, context=200)
    chat = Chat(model, cuts=True, max_text_tokens=4)
    for number in range(8):
        chat(f"number {number}")
        parts = chat.document.parts[:-2]
        assert told[-1].parts == parts[len(parts) - len(told[-1].parts) :], "the latest turns"
        assert told[-1].parts[0].role == "user", "whole turns"
        assert len(model.sequencer.prompt(told[-1])) < 200
    assert len(told[-1].parts) < len(chat.document.parts) - 2


def test_undone_turns_come_back(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    for words in ("one", "two", "three"):
        chat(words)
    whole = chat.document.parts
    chat.undo()
    chat.undo()
    assert chat.asked == "one"
    chat.redo()
    assert chat.asked == "two"
    chat.redo()
    assert chat.document.parts == whole
    with pytest.raises(ValueError, match="nothing was undone"):
        chat.redo()
    for something_else in (lambda: chat("four"), lambda: [*chat.again()]):
        chat.undo()
        before = chat.asked
        something_else()
        with pytest.raises(ValueError, match="something else was done since"):
            chat.redo()
    assert chat.asked == before == "two", "the latest turn that there is was answered again"


def test_what_is_answered_again_is_asked_for_as_before(tiny_model: Model) -> None:
    """Whether an image or words were asked for, whatever was undone or forgotten meanwhile."""
    chat = Chat(tiny_model, max_text_tokens=4)

    def kinds() -> list[type]:
        *_, reply = chat.again()
        assert isinstance(reply, Reply)
        return [type(part) for part in reply.parts]

    asked: tuple[Modality, ...] = ("text", "image", "text", "image")
    for number, modality in enumerate(asked):
        chat(f"number {number}", modality=modality)
    chat.undo()
    chat.undo()
    chat.redo()
    assert chat.asked == "number 2" and kinds() == [Text]
    chat.undo()
    assert chat.asked == "number 1" and kinds() == [Image]
    chat.forget(1)
    assert chat.asked == "number 1" and kinds() == [Image] == kinds()
    chat.resume(chat.document)
    chat.reset()
    chat("number 4", modality="image")
    assert kinds() == [Image]


@pytest.mark.parametrize("make", [lambda: masked_model(MaskSchedule()), scale_model])
def test_other_heads_have_candidates(make) -> None:
    model = make()
    chat = Chat(model, candidates=3, seed=3)
    reply = chat(WORDS, modality="image")
    alone = Chat(model, seed=reply.seed)
    alone(WORDS, modality="image")
    np.testing.assert_array_equal(drawn(alone).codes, drawn(chat).codes)
    assert reply.seed in (3, 4, 5) and chat.sampling.seed == 6 and len(reply.notes) == 1
