"""What a model with a vision tower sees, packed and cached, and what it replies to images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tower_runs import asked, given, hidden_of
from tower_runs import both_model as both_model
from tower_runs import both_run as both_run
from tower_runs import either as either
from tower_runs import model as model
from tower_runs import run as run
from tower_runs import tower as tower
from towers import MEAN, STD, images, vision_model

from unimodal.chat import Chat
from unimodal.data.scenes.world import render
from unimodal.document import Document, Image, Text
from unimodal.eval.run import run as ask
from unimodal.eval.scene_evaluator import SceneEvaluator
from unimodal.eval.scene_requests import make_requests
from unimodal.eval.scenes import cells_of
from unimodal.events import ReplyDone
from unimodal.generation import Generation, stream
from unimodal.model import Model
from unimodal.sampling import Sampling
from unimodal.sequence import Batch, Row, Sequence
from unimodal.tower import PROJECTOR, is_given

pytestmark = pytest.mark.usefixtures("one_thread")


# --- what the model sees --------------------------------------------------------------------------


def test_soft_vectors_are_hidden_states_through_the_projector(model: Model) -> None:
    """Layer -2 of CLIP's own class, and two layers written out."""
    image = given(model, 1)
    sequence = model.sequencer.prompt(Document((image, Text("what?", role="user"))))
    (span,) = sequence.spans
    assert span.pixels is not None and image.pixels is not None
    tower = model.transformer.architecture.image.tower
    assert tower is not None
    np.testing.assert_array_equal(span.pixels, tower.view(image.pixels))
    state, names = model.transformer.state_dict(), ["first", "second"]
    w1, b1, w2, b2 = (
        state[f"{PROJECTOR}{name}.{kind}"] for name in names for kind in ("weight", "bias")
    )
    pixels = (torch.tensor(span.pixels) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        normalised = pixels.permute(2, 0, 1)[None].float()
        states = vision_model("clip")(normalised, output_hidden_states=True).hidden_states
        expected = torch.nn.functional.gelu(states[-2][0, 1:] @ w1.T + b1) @ w2.T + b2
        batch = Batch.stack([Row.pack([sequence], len(sequence), 0)])
        x = model.transformer.tower(model.transformer.embed(batch.ids), batch)[0]
        plain = model.transformer.embed(batch.ids)[0]
    torch.testing.assert_close(x[span.start : span.stop], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(x[: span.start], plain[: span.start])
    assert torch.equal(x[span.stop :], plain[span.stop :])


def test_half_precision_sees_nearly_the_same(either: Model) -> None:
    tower = either.transformer.architecture.image.tower
    assert tower is not None
    views = [tower.view(pixels) for pixels in images(2, 4, (64, 64))]
    with torch.no_grad():
        exactly = either.transformer.tower.see(views)
        with torch.autocast("cpu", torch.bfloat16):
            nearly = either.transformer.tower.see(views)
    assert nearly.dtype == torch.bfloat16
    error = (nearly.float() - exactly).square().mean().sqrt() / exactly.square().mean().sqrt()
    assert 0 < error < 0.05


def test_what_is_given_is_soft_and_what_is_drawn_is_codes(model: Model, both_model: Model) -> None:
    for found, has_codes in ((model, False), (both_model, True)):
        user, vocabulary = given(found, 1), found.vocabulary
        drawn = replace(user, role="assistant", weight=1.0)
        sequence = found.sequencer.sequence(Document((user, drawn)))
        assert [span.pixels is not None for span in sequence.spans].count(True) == 1
        num_codes = int(vocabulary.is_code(sequence.ids).sum())
        assert num_codes == found.grid.size * (1 + has_codes)
        document = Document((user, drawn))
        assert len(sequence) == found.sequencer.measure(document)[None]
        # Nothing of the given image is a target, all codes of the drawn one are.
        codes = vocabulary.is_code(sequence.labels)
        assert int(codes.sum()) == int((sequence.modality == 2).sum()) == found.grid.size
        dropped = found.sequencer.sequence(document, drop="images")
        assert len(dropped) == found.sequencer.measure(document)["images"]
        assert all(span.pixels is None for span in dropped.spans)


def test_context_outside_of_turns_is_given() -> None:
    pixels = images(1)[0]
    assert is_given(Image(pixels, role="user")) and is_given(Image(pixels, weight=0.0))
    assert not is_given(Image(pixels)) and not is_given(Image(pixels, role="assistant", weight=0.0))


def test_packed_documents_see_their_own_images_alone(either: Model) -> None:
    sequences = [
        either.sequencer.sequence(Document((*asked(either, seed, "what is this?").parts,
                                            Text("a red circle", role="assistant"))))
        for seed in range(3)
    ]  # fmt: skip
    packed, at = hidden_of(either, *sequences), 0
    hiddens = [hidden_of(either, sequence) for sequence in sequences]
    assert (hiddens[0] - hiddens[1]).abs().max() > 1e-2  # the images tell
    for hidden in hiddens:
        torch.testing.assert_close(packed[at : at + len(hidden)], hidden, atol=1e-4, rtol=0)
        at += len(hidden)


# --- replies --------------------------------------------------------------------------------------


def replied(model: Model, documents: list[Document], modalities: list) -> list[ReplyDone]:
    sampling = Sampling(seed=3, text_temperature=1.0, max_text_tokens=6, guidance=2.0)
    events = stream(model, documents, sampling, modalities)
    done = [event for event in events if isinstance(event, ReplyDone)]
    return sorted(done, key=lambda one: one.request)


def test_cached_steps_are_teacher_forced_and_a_batch_is_each_alone(
    either: Model, monkeypatch
) -> None:
    seen: dict[tuple[int, int], torch.Tensor] = {}
    original = Generation._logits

    def noted(generation, choice, members):
        logits = original(generation, choice, members)
        for member, row in zip(members, logits, strict=True):
            seen[member.number, len(member.state.ids)] = row[torch.from_numpy(choice.allowed)]
            seen[member.number, -1 - len(member.state.ids)] = torch.from_numpy(choice.allowed)
        return logits

    monkeypatch.setattr(Generation, "_logits", noted)
    documents = [
        asked(either, 1, "what is this?"),
        Document((Text("words alone", role="user"),)),
        Document((*asked(either, 2, "and").parts, given(either, 5), Text("?", role="user"))),
        asked(either, 3, "draw it again"),
    ]
    modalities = ["text", "text", "text", "image"]
    together = replied(either, documents, modalities)
    noticed = dict(seen)
    for number, reply in enumerate(together[:3]):
        prompt = either.sequencer.prompt(documents[number])
        tail = Sequence.causal(np.array(reply.ids))
        whole = Sequence(**{
            name: np.concatenate([getattr(prompt, name), getattr(tail, name)])
            for name in Sequence.ARRAYS if name != "positions"
        }, positions=np.arange(len(prompt) + len(tail)), spans=prompt.spans)  # fmt: skip
        logits = hidden_of(either, whole) @ either.transformer.output_table().detach().T
        places = [at for n, at in noticed if n == number and at >= 0]
        assert len(places) >= 3
        for at in places:
            allowed = noticed[number, -1 - at]
            expected = logits[len(prompt) + at - 1][: len(allowed)][allowed]
            torch.testing.assert_close(noticed[number, at], expected, atol=1e-4, rtol=0)
    for number, document in enumerate(documents):
        (alone,) = replied(either, [document], [modalities[number]])
        assert alone.ids == together[number].ids


def test_a_chat_shows_asks_and_draws(either: Model, tmp_path: Path) -> None:
    from PIL import Image as PILImage

    PILImage.fromarray(images(1, 8, (80, 100))[0]).save(tmp_path / "given.png")
    chat = Chat(either, max_text_tokens=4, seed=1)
    first = chat("what is this?", [str(tmp_path / "given.png")], "text")
    assert first.end and not first.images
    second = chat("draw it", modality="image")
    assert second.images[0].size == either.canvas
    document = chat.document
    sequence = either.sequencer.prompt(document)
    assert sum(span.pixels is not None for span in sequence.spans) == 1
    # The image alone makes the difference.
    other = Document((given(either, 77), *document.parts[1:]))
    assert (hidden_of(either, sequence) - hidden_of(either, either.sequencer.prompt(other))).any()


def test_scenes_are_evaluated(either: Model) -> None:
    """Questions and edits give images; their answers are kept and scored as any model's."""
    sampling = replace(either.sampling, max_text_tokens=4, max_images=1)
    found = replace(either, sampling=sampling)
    for part in ("edits", "questions"):
        evaluator = SceneEvaluator(make_requests(part, 1, 8)[:2], sampling, 8, canvas=64)
        predictions = ask(found, evaluator)
        assert len(predictions) == 2
        assert cells_of(found, evaluator, predictions, lambda shown: render(shown, 64))
