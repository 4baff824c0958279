"""A conversation keeps everything that was finished in context, and nothing else."""

import dataclasses

import numpy as np
import pytest
from PIL import Image as PILImage

from unimodal.chat import Chat
from unimodal.chat_events import Drawn, Note, Reply
from unimodal.document import Image, Text
from unimodal.events import ImageProgress, ReplyDone, TextDelta
from unimodal.generation import Generation
from unimodal.sampling import Sampling
from unimodal.tokenizer.pixels import ImageError, to_tensor


def image(size=(16, 24), seed=0) -> PILImage.Image:
    rng = np.random.default_rng(seed)
    return PILImage.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def pixels(image: PILImage.Image) -> np.ndarray:
    return np.asarray(image)


def same(first: list[PILImage.Image], second: list[PILImage.Image]) -> bool:
    """Whether there are as many images, all equal."""
    return np.array_equal([*map(pixels, first)], [*map(pixels, second)])


def test_a_reply_has_its_text_and_its_images(drawing_model):
    reply = Chat(drawing_model)("draw two red circles")
    assert reply.text == "ok"
    assert [image.size for image in reply.images] == [drawing_model.canvas]
    assert [image.mode for image in reply.images] == ["RGB"]
    assert reply.notes == ()


def test_a_drawn_image_is_what_the_tokenizer_makes_of_its_codes(drawing_model):
    chat = Chat(drawing_model)
    reply = chat("draw")
    drawn = chat.document.parts[-1]
    codes_1n1 = drawing_model.image_tokenizer.encode(to_tensor([reply.images[0]]))[0]
    assert drawn.codes.shape == codes_1n1[0].shape
    np.testing.assert_array_equal(drawn.pixels, pixels(reply.images[0]))
    assert drawn.codec_hash == drawing_model.image_tokenizer.hash


def test_the_conversation_and_its_images_stay_in_context(drawing_model, monkeypatch):
    asked, submit = [], Generation.submit

    def recorded(self, document, *settings):
        asked.append(document)
        return submit(self, document, *settings)

    monkeypatch.setattr(Generation, "submit", recorded)
    chat = Chat(drawing_model)
    chat("draw a circle", images=[image()])
    chat("make it blue")
    kinds = [(part.role, type(part).__name__) for part in asked[1].parts]
    assert kinds == [
        ("user", "Image"),
        ("user", "Text"),
        ("assistant", "Text"),
        ("assistant", "Image"),
        ("user", "Text"),
    ]
    sequencer = drawing_model.sequencer
    first, second = (sequencer.prompt(document).ids.tolist() for document in asked)
    assert second[: len(first)] == first
    drawn = asked[1].parts[3].codes
    codes = drawing_model.vocabulary.code_to_id(drawn[:, 0]).tolist()
    assert [token for token in second[len(first) :] if token in codes] == codes
    assert len(chat.document.parts) == 7


def test_what_was_said_before_changes_the_answer(tiny_model):
    answers = set()
    for first in ("draw two red circles", "how many stars are there?"):
        chat = Chat(tiny_model, seed=3)
        chat(first)
        chat.sampling = dataclasses.replace(chat.sampling, seed=3)
        answers.add(chat("make it blue").text)
    assert len(answers) == 2


def test_the_same_seed_gives_the_same_conversation(tiny_model, drawing_model):
    for model in (tiny_model, drawing_model):
        one, two = (Chat(model, seed=5) for _ in range(2))
        for words in ("draw", "make it blue"):
            first, second = one(words, [image()]), two(words, [image()])
            assert first.text == second.text
            assert first.seed == second.seed
            assert same(first.images, second.images)


def test_each_reply_moves_the_seed_on(drawing_model):
    chat = Chat(drawing_model, seed=5)
    replies = [chat("draw") for _ in range(3)]
    assert [reply.seed for reply in replies] == [5, 6, 7]
    assert not same(replies[0].images, replies[1].images)
    assert same(Chat(drawing_model, seed=6)("draw").images, replies[1].images)
    assert Chat(drawing_model, seed=2**64 - 1)("draw").seed == 2**64 - 1


def test_streamed_events_add_up_to_the_reply(drawing_model):
    events = list(Chat(drawing_model).stream("draw", [image((30, 30))]))
    reply = events[-1]
    assert isinstance(reply, Reply)
    assert isinstance(events[0], Note)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)).strip() == reply.text
    drawn = [event.image for event in events if isinstance(event, Drawn)]
    assert same(drawn, reply.images)
    progress = [(e.done, e.total) for e in events if isinstance(e, ImageProgress)]
    assert progress[-1] == (6, 6)
    assert progress == sorted(progress)


def test_given_images_are_fitted_and_what_was_done_is_said(tiny_model, tmp_path):
    path = tmp_path / "grey.png"
    image((100, 50)).convert("L").save(path)
    chat = Chat(tiny_model)
    notes = chat("what is this?", [str(path), image((32, 48)), image()]).notes
    assert notes == (
        f"{path}: grey converted to RGB",
        f"{path}: resized and cropped from 100 x 50 to 16 x 24 pixels",
        "the image: resized from 32 x 48 to 16 x 24 pixels",
    )
    given = [part for part in chat.document.parts if isinstance(part, Image)][:3]
    assert {part.pixels.shape for part in given} == {(24, 16, 3)}
    codes_1n1 = tiny_model.image_tokenizer.encode(to_tensor([image()]))[0]
    np.testing.assert_array_equal(given[2].codes, codes_1n1[0].numpy())


def test_an_image_needs_no_words(tiny_model):
    chat = Chat(tiny_model)
    chat("  ", [image()])
    assert not any(isinstance(part, Text) and part.role == "user" for part in chat.document.parts)


def test_bad_prompts_are_refused_and_leave_no_trace(tiny_model, tmp_path):
    chat = Chat(tiny_model)
    chat("draw two red circles")
    before, sampling = chat.document.parts, chat.sampling
    cases = [
        (("",), ValueError, "the prompt is empty"),
        ((" \n",), ValueError, "the prompt is empty"),
        (("caf\udce9",), ValueError, "not UTF-8"),
        (("what?", [tmp_path / "none.png"]), ImageError, "there is no file"),
        (("word " * 2000,), ValueError, r"512 tokens.*start a new conversation"),
    ]
    for arguments, kind, words in cases:
        with pytest.raises(kind, match=words):
            chat(*arguments)
        assert chat.document.parts is before
        assert chat.sampling is sampling
    with pytest.raises(ValueError, match="shorten the prompt"):
        Chat(tiny_model)("word " * 2000)


def test_a_conversation_grows_until_it_is_full_and_can_begin_anew(drawing_model):
    chat = Chat(drawing_model)
    with pytest.raises(ValueError, match="start a new conversation"):
        for _ in range(100):
            chat("make it blue")
    num_turns = len(chat.document.turns())
    assert num_turns > 10
    used = len(drawing_model.sequencer.sequence(chat.document))
    assert used <= drawing_model.context
    chat.reset()
    assert chat("draw").text == "ok"
    assert len(chat.document.turns()) == 2


def test_an_interrupted_reply_leaves_no_trace(drawing_model):
    chat = Chat(drawing_model, seed=1)
    chat("draw")
    before = chat.document.parts
    events = chat.stream("make it blue")
    for event in events:
        if isinstance(event, ImageProgress):
            break
    events.close()
    assert chat.document.parts is before
    again = chat("make it blue")
    undisturbed = Chat(drawing_model, seed=1)
    undisturbed("draw")
    assert same(again.images, undisturbed("make it blue").images)


def test_ctrl_c_while_drawing_loses_only_the_reply(drawing_model, monkeypatch):
    run = Generation.run

    def interrupted(self):
        for event in run(self):
            if isinstance(event, ReplyDone):
                raise KeyboardInterrupt
            yield event

    chat = Chat(drawing_model)
    chat("draw")
    before = chat.document.parts
    monkeypatch.setattr(Generation, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chat("make it blue")
    assert chat.document.parts is before


def test_sampling_comes_from_the_model_or_from_the_caller(drawing_model):
    assert Chat(drawing_model).sampling == drawing_model.sampling
    assert Chat(drawing_model, Sampling(seed=4)).sampling == Sampling(seed=4)
    assert Chat(drawing_model, guidance=2.0).sampling.guidance == 2.0
    with pytest.raises(ValueError, match="seed.*-1"):
        Chat(drawing_model, seed=-1)
