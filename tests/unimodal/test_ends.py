"""Why replies end, what is said where a conversation has no room, and going back in it."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from unimodal.chat import Chat
from unimodal.chat_events import Reply
from unimodal.document import Document, Image, Part, Text
from unimodal.events import ReplyDone
from unimodal.generation import Generation, generate
from unimodal.grammar import Grammar, Modality, ReplyState
from unimodal.model import Model
from unimodal.room import exchanges, refusal
from unimodal.sampling import Sampling


def following(model: Model, follows: dict[str, str]) -> Model:
    """Return `drawing_model` with another table of which id follows which: special tokens by their
    names, others by their text.
    """

    def token(name: str) -> int:
        if name in model.vocabulary.special_tokens:
            return model.vocabulary.special(name)
        return model.text_tokenizer.encode(name)[0]

    transformer = copy.deepcopy(model.transformer)
    with torch.no_grad():
        transformer.lm_head.weight.zero_()
        for before, after in follows.items():
            transformer.lm_head.weight[token(after), token(before)] = 2.0
    return dataclasses.replace(model, transformer=transformer, sampling=Sampling(max_text_tokens=6))


@pytest.fixture(scope="module")
def looping(drawing_model: Model) -> Model:
    """Says 'ooo...' without end."""
    return following(drawing_model, {"assistant": "o", "o": "o"})


@pytest.fixture(scope="module")
def painter(drawing_model: Model) -> Model:
    """Draws image after image without end, and words where it may draw no more."""
    return following(drawing_model, {"assistant": "image", "image_end": "image"})


@pytest.fixture(scope="module")
def polite(drawing_model: Model) -> Model:
    """Wants an image behind every 'o'; where it may have none, it stops."""
    model = following(drawing_model, {"assistant": "o", "o": "image", "image_end": "o"})
    letter, stop = model.text_tokenizer.encode("o")[0], model.vocabulary.special("turn_end")
    with torch.no_grad():
        model.transformer.lm_head.weight[stop, letter] = 1.0
    return model


def done(
    model: Model, sampling: Sampling | None = None, modality: Modality | None = None
) -> ReplyDone:
    """Return the end of the reply to 'hi'."""
    generation = Generation(model)
    generation.submit(Document((Text("hi", role="user"),)), sampling, modality)
    *_, last = generation.run()
    assert isinstance(last, ReplyDone)
    return last


def num_images(reply: ReplyDone) -> int:
    return sum(isinstance(part, Image) for part in reply.parts)


def test_a_reply_that_ends_by_itself_stops(drawing_model: Model) -> None:
    for modality in (None, "image"):
        assert done(drawing_model, modality=modality).end == "stop"
    assert Chat(drawing_model)("draw").end == "stop"


def test_words_without_end_use_up_their_tokens(looping: Model) -> None:
    found = done(looping)
    assert (found.end, len(found.ids)) == ("text budget", 6 + 1)
    reply = Chat(looping)("hi")
    assert (reply.text, reply.end) == ("oooooo", "text budget")


@pytest.mark.parametrize("most", [0, 1, 3])
def test_images_without_end_use_up_theirs(polite: Model, most: int) -> None:
    found = done(polite, Sampling(max_images=most, max_text_tokens=20))
    assert (found.end, num_images(found)) == ("image budget", most)


def test_an_image_that_was_not_wanted_is_no_reason(drawing_model: Model, polite: Model) -> None:
    one = Sampling(max_images=1)
    assert (done(drawing_model, one).end, num_images(done(drawing_model, one))) == ("stop", 1)
    assert done(polite, one, "text").end == "stop", "none was asked for"
    assert done(polite, one, "image").end == "stop", "it is what was asked for"


def test_the_last_reason_counts(painter: Model) -> None:
    found = done(painter, Sampling(max_images=1, max_text_tokens=4))
    assert (found.end, num_images(found)) == ("text budget", 1)


def test_a_wish_that_passed_is_no_reason(drawing_model: Model) -> None:
    """An image was withheld once; words followed that were free, and the end."""
    layout = drawing_model.sequencer.layout
    state = ReplyState(Grammar(layout, [drawing_model.grid]), 200, 50, max_images=0)
    opening, stop = layout.opening(drawing_model.grid)[0], layout.stops[0]
    for token, wished in ((5, opening), (6, 6), (stop, stop)):
        state.miss(wished)
        state.take(token)
    assert state.end == "stop"


def test_the_contexts_end_is_said(looping: Model, polite: Model) -> None:
    prompt = len(looping.sequencer.prompt(Document((Text("hi", role="user"),))))
    talking = dataclasses.replace(looping, context=prompt + 10)
    found = done(talking, Sampling(max_text_tokens=500, max_images=0))
    assert (found.end, len(found.ids)) == ("context", 10)
    image = polite.sequencer.layout.length(polite.grid)
    drawing = dataclasses.replace(polite, context=prompt + 2 * image + 2)
    found = done(drawing, Sampling(max_images=9))
    assert (found.end, num_images(found)) == ("context", 1), "a second has no room"


def test_reasons_do_not_mix_in_a_batch(polite: Model) -> None:
    samplings = [
        Sampling(max_text_tokens=1), Sampling(max_images=2), Sampling(max_images=0),
    ]  # fmt: skip
    generation = Generation(polite)
    for sampling in samplings:
        generation.submit(Document((Text("hi", role="user"),)), sampling)
    ends = {event.request: event.end for event in generation.run() if isinstance(event, ReplyDone)}
    alone = [done(polite, sampling).end for sampling in samplings]
    assert [ends[number] for number in range(3)] == alone
    assert alone == ["text budget", "image budget", "image budget"]


def test_an_unlimited_reply_is_what_it_was(drawing_model: Model, polite: Model) -> None:
    """What is withheld is looked at and never taken: a reply has the ids that it had."""
    wide, narrow = (done(polite, Sampling(max_images=n, max_text_tokens=30)) for n in (5, 2))
    assert narrow.ids[:-1] == wide.ids[: len(narrow.ids) - 1]


# --- sizes --------------------------------------------------------------------------------------


def test_a_size_that_is_not_drawn_is_refused_with_those_that_are(drawing_model: Model) -> None:
    assert drawing_model.sizes == [(16, 24)]
    assert Chat(drawing_model, size=(16, 24))("draw").images[0].size == (16, 24)
    with pytest.raises(ValueError, match="size 128x128: this model draws 16x24 pixels"):
        Chat(drawing_model, size=(128, 128))
    for odd in ((16,), "16x24", 16):
        with pytest.raises(ValueError, match="is no .width, height.: this model draws 16x24"):
            Chat(drawing_model, size=odd)  # type: ignore[arg-type]
    Chat(drawing_model, size=[16, 24])  # type: ignore[arg-type]


def test_settings_that_there_are_not_are_named_with_the_nearest(drawing_model: Model) -> None:
    cases = {
        "sed": "sampling: sed: unknown key; did you mean 'seed'?",
        "temperature": "temperature: unknown key; did you mean 'text_temperature'?",
        "max_pictures": "max_pictures: it is called max_images now",
        "xyzzy": "xyzzy: unknown key; the keys here are text_temperature, ",
    }
    for name, said in cases.items():
        with pytest.raises(ValueError, match=re.escape(said)):
            Chat(drawing_model, **{name: 1})
    with pytest.raises(ValueError, match=r"sed: .*\n.*xyzzy: "):
        Chat(drawing_model, sed=1, xyzzy=1)
    assert Chat(drawing_model, seed=3, guidance=2.0).sampling.seed == 3


def test_one_image_is_no_list_of_them(drawing_model: Model) -> None:
    for one in ("photo.png", b"abc", given(1)[0]):
        with pytest.raises(ValueError, match=r"give a list, such as images=\['photo.png'\]"):
            Chat(drawing_model)("what is this?", images=one)  # type: ignore[arg-type]


# --- no room ------------------------------------------------------------------------------------


def given(count: int) -> list[PILImage.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, 24, 16, 3), np.uint8)
    return [PILImage.fromarray(one) for one in noise]


def test_images_that_take_the_room_are_said_and_how_many_may_stay(drawing_model: Model) -> None:
    length = drawing_model.sequencer.layout.length(drawing_model.grid)
    count = (drawing_model.context - 20) // length
    with pytest.raises(ValueError) as caught:
        Chat(drawing_model)("what is this?", given(count))
    said = str(caught.value)
    assert f"{count} images take {count * length:,} tokens and words take" in said
    assert "shorten" not in said
    found = re.search(r"show at most (\d+) images", said)
    assert found is not None
    most = int(found[1])
    assert Chat(drawing_model)("what is this?", given(most)).text == "ok"
    with pytest.raises(ValueError, match=f"show at most {most} images"):
        Chat(drawing_model)("what is this?", given(most + 1))
    with pytest.raises(ValueError, match=f"show at most {most} images"):
        Chat(drawing_model)("what is this?", given(1) * (most + 1))


def test_the_oldest_turns_would_have_to_go(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    with pytest.raises(ValueError) as caught:
        for _ in range(100):
            chat("make it blue", given(1))
    num_turns = len(exchanges(chat.document))
    with pytest.raises(ValueError) as caught:
        chat("make it blue", given(6))
    found = re.search(r"the oldest (\d+) turns would have to go \((\d+) images", str(caught.value))
    assert found is not None, caught.value
    number = int(found[1])
    assert number > 1 and int(found[2]) == 2 * number  # one shown, one drawn
    assert f"forget {number}, or start a new conversation" in str(caught.value)
    chat.forget(number - 1)
    with pytest.raises(ValueError, match="the oldest 1 turn would have to go"):
        chat("make it blue", given(6))
    chat.forget(1)
    assert chat("make it blue", given(6)).text == "ok"
    assert len(exchanges(chat.document)) == num_turns - number + 1


def test_words_that_are_too_many_alone(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    with pytest.raises(ValueError, match=r": words take \d+; shorten the prompt by some \d+ token"):
        chat("o" * 600)
    chat("hi")
    with pytest.raises(ValueError, match="; start a new conversation and shorten the prompt by"):
        chat("o" * 600)
    length = drawing_model.sequencer.layout.length(drawing_model.grid)
    with pytest.raises(ValueError, match=f": 1 image takes {length} tokens and words take"):
        Chat(drawing_model)("o" * 600, given(1))


def test_a_request_of_the_api_is_refused_in_the_same_words(drawing_model: Model) -> None:
    parts: tuple[Part, ...] = (Text("o" * 490, role="user"), Text("k", role="assistant"))
    document = Document((*parts, Text("hi", role="user")))
    assert refusal(drawing_model.sequencer, document, 10_000, 14) is None
    with pytest.raises(ValueError, match=r"oldest 1 turn would have to go \(words take 491\): for"):
        generate(drawing_model, [document])


def test_exchanges_are_a_turn_and_its_replies() -> None:
    roles = ["system", "user", "user", "assistant", "user", "assistant", "assistant", "user"]
    found = exchanges(Document(tuple(Text("a", role=role) for role in roles)))
    assert [[part.role for part in one] for one in found] == [roles[:4], roles[4:7], roles[7:]]
    assert exchanges(Document(())) == []
    assert len(exchanges(Document((Text("a"), Text("b"))))) == 1


# --- going back ---------------------------------------------------------------------------------


def codes(part: Part) -> list[int]:
    assert isinstance(part, Image) and part.codes is not None
    return part.codes[:, 0].tolist()


def test_undo_and_again(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    for nothing in (chat.undo, chat.again):
        with pytest.raises(ValueError, match="nothing has been said yet"):
            nothing()
    first, _ = chat("draw"), chat("make it blue", given(1))
    before = chat.document.parts
    assert chat.asked == "make it blue"
    *_, other = chat.again()
    after = chat.document.parts
    assert isinstance(other, Reply) and other.seed == 2
    assert [type(part) for part in after] == [type(part) for part in before]
    assert codes(after[-1]) != codes(before[-1]) and after[:-2] == before[:-2]
    chat.undo()
    assert len(chat.document.parts) == 1 + len(first.parts)
    chat.undo()
    assert chat.document.parts == ()


def test_an_interrupted_second_try_keeps_the_first(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    chat("draw")
    before = chat.document.parts
    events = chat.again()
    next(events)
    del events
    assert chat.document.parts is before


def test_words_alone_and_an_image_alone(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    assert chat("hi", modality="text").images == []
    *_, again = chat.again()
    assert isinstance(again, Reply) and again.images == [], "as it was asked for"
    drawn = chat("hi", modality="image")
    assert (drawn.text, len(drawn.images)) == ("", 1)


def test_oldest_turns_are_forgotten_and_no_more_than_there_are(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    for words in ("one", "two", "three"):
        chat(words)
    for number in (0, 4, -1):
        with pytest.raises(ValueError, match=f"{number} of 3 turns cannot be forgotten"):
            chat.forget(number)
    chat.forget(2)
    assert chat.asked == "three" and len(exchanges(chat.document)) == 1


def test_only_a_conversation_with_a_reply_is_gone_on_with(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    for parts in ((), (Text("hi", role="user"),)):
        with pytest.raises(ValueError, match="does not end with a reply"):
            chat.resume(Document(parts))
    pixels = np.asarray(given(1)[0])
    chat.resume(Document((Image(pixels, role="user"), Text("ok", role="assistant"))))
    assert len(codes(chat.document.parts[0])) == 6
    assert chat("and now?").text == "ok"


def test_a_reply_before_the_first_turn_stays(drawing_model: Model) -> None:
    chat = Chat(drawing_model)
    first = Text("once", role="assistant")
    chat.resume(Document((first, Text("hi", role="user"), Text("ok", role="assistant"))))
    list(chat.again())
    assert chat.document.parts[:2] == (first, Text("hi", role="user"))
    chat.undo()
    assert chat.document.parts == (first,)
    with pytest.raises(ValueError, match="nothing has been said yet"):
        chat.undo()
    chat.redo()
    assert chat.asked == "hi" and chat.document.parts[0] == first
