"""Requests: what guidance leads away from, and what is seen of a drawing before it is done."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from masked_models import masked_model
from test_generation import (  # noqa: F401  (fixtures)
    Logits,
    forced_logits,
    image,
    lively,
    question,
    replies,
    seen,
)

from unimodal.card import USABLE_CONTEXT
from unimodal.document import Document, Image, Text, with_words
from unimodal.events import ImageProgress
from unimodal.generation import Generation, generate, stream
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.model import Model
from unimodal.sampling import Sampling, guide


def test_other_words_stand_for_the_latest_ones(tiny_model: Model) -> None:
    shown = image(tiny_model, 1)
    turn = question("draw a star", shown).parts
    said = Text("here it is", role="assistant")
    more = (Text("make it", role="user"), shown, Text("blue", role="user"))
    found = with_words(Document((*turn, said, *more)), "red").parts
    assert found == (*turn, said, shown, Text("red", role="user"))
    alone = with_words(Document((shown,)), "red").parts
    assert alone == (shown, Text("red", role="user"))


def test_guidance_leads_away_from_the_negative_prompt(
    lively: Model,  # noqa: F811
    seen: Logits,  # noqa: F811
) -> None:
    """Logits are those of both prompts, teacher-forced, extrapolated from the negative one."""
    shown = image(lively, 1)
    document, negative = question("draw two red circles", shown), "a blue star"
    sampling = Sampling(guidance=2.5, negative=negative, seed=4)
    done = replies(stream(lively, [document], sampling, "image"))[0]
    asked, other = (
        lively.sequencer.prompt(one).ids.tolist() for one in (document, question(negative, shown))
    )
    first, last = lively.vocabulary.code_slice
    positive, away = (forced_logits(lively, [*one, *done.ids]) for one in (asked, other))
    places = [at for _, at in seen]
    assert len(places) == lively.grid.size
    for at in places:
        expected = guide(
            positive[len(asked) + at - 1], away[len(other) + at - 1], torch.tensor(2.5)
        )[first:last]
        mine = seen[0, at]
        is_code = mine > -torch.inf
        torch.testing.assert_close(mine[is_code], expected[is_code], atol=1e-4, rtol=0)
    plain = replies(stream(lively, [document], replace(sampling, negative=None), "image"))[0]
    assert plain.ids != done.ids


def test_a_negative_prompt_is_one_of_those_in_a_batch(lively: Model) -> None:  # noqa: F811
    documents = [question("draw " + "a red circle " * n) for n in range(4)]
    samplings = [
        Sampling(seed=n, guidance=3.0, negative=[None, "stars", "a much longer text " * 3][n % 3])
        for n in range(4)
    ]
    together = generate(lively, documents, samplings, "image")
    for document, sampling, (drawn,) in zip(documents, samplings, together, strict=True):
        ((alone,),) = generate(lively, [document], sampling, "image")
        assert isinstance(alone, Image) and isinstance(drawn, Image)
        np.testing.assert_array_equal(alone.codes, drawn.codes)


def test_a_negative_prompt_needs_room(lively: Model) -> None:  # noqa: F811
    sampling = Sampling(guidance=2.0, negative="stars " * 400)
    with pytest.raises(ValueError, match="would take .* of the model's 512 tokens"):
        Generation(lively).submit(question("draw"), sampling, "image")
    usable = replace(lively, card=lively.card | {USABLE_CONTEXT: 256})
    with pytest.raises(ValueError, match="would take .* of the model's 256 tokens"):
        Generation(usable).submit(question("draw"), sampling, "image")
    # Where nothing is drawn there is no such branch.
    Generation(lively).submit(question("draw"), sampling, "text")


@pytest.mark.parametrize("steps", [None, 3])
def test_partial_images_are_streamed(lively: Model, steps: int | None) -> None:  # noqa: F811
    """Codes in order, grey where none is drawn; or the codes kept, and what is expected beside."""
    model = lively if steps is None else masked_model(MaskSchedule(steps=steps))
    events = list(stream(model, [question("draw")], Sampling(seed=5), "image"))
    ((drawn,),) = [one.parts for one in replies(iter(events)).values()]
    assert isinstance(drawn, Image) and drawn.codes is not None
    progress = [event for event in events if isinstance(event, ImageProgress)]
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    shown = [event for event in progress if event.partial is not None]
    assert len(shown) == (model.grid.size - 1 if steps is None else steps)
    (whole,) = model.codec.decode([drawn])
    assert whole.pixels is not None
    for event in shown:
        codes = event.partial.codes  # type: ignore[union-attr]
        pixels = model.codec.decode_partial(event.partial, event.known)  # type: ignore[arg-type]
        assert pixels.shape == whole.pixels.shape and pixels.dtype == np.uint8
        if steps is None:
            assert event.known is not None and event.known.sum() == event.done
            np.testing.assert_array_equal(codes[event.known], drawn.codes[event.known])
            grey = (pixels == 128).all(axis=2).mean()
            assert abs(grey - (1 - event.done / model.grid.size)) < 0.02
        else:
            # So many codes at least stay as they are: those that were kept.
            assert event.known is None and (codes == drawn.codes).sum() >= event.done
    if steps is not None:
        np.testing.assert_array_equal(shown[-1].partial.codes, drawn.codes)  # type: ignore[union-attr]
