"""Guidance within an interval: its branch is read there and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from masked_models import masked_model
from test_branches import counted
from test_generation import (  # noqa: F401  (fixtures)
    Logits,
    assert_equal_logits,
    lively,
    question,
    replies,
    seen,
    teacher_forced,
)

from unimodal.generation import generate, stream
from unimodal.heads.mask_schedule import MaskSchedule
from unimodal.model import Model
from unimodal.sampling import Sampling

SIZE = 6  # codes of the model's images


@pytest.mark.parametrize(
    ("interval", "guided"),
    [((0.0, 1.0), range(6)), ((0.3, 0.7), range(2, 5)), ((0.5, 1.0), range(3, 6)),
     ((0.0, 0.4), range(3)), ((0.9, 1.0), range(0))],
)  # fmt: skip
def test_codes_are_guided_within_the_interval_alone(
    lively: Model,  # noqa: F811
    seen: Logits,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    interval: tuple[float, float],
    guided: range,
) -> None:
    """Each code is that of teacher forcing, with guidance or without; the other row is not read."""
    sizes, document = counted(monkeypatch), question("draw two red circles")
    sampling = Sampling(guidance=2.5, guidance_interval=interval, seed=4)
    done = replies(stream(lively, [document], sampling, "image"))[0]
    without, within = (
        teacher_forced(lively, document, list(done.ids), Sampling(guidance=scale), "image")
        for scale in (None, 2.5)
    )
    places = sorted(without)
    assert len(places) == lively.grid.size == SIZE
    expected = {
        (0, at): (within if number in guided else without)[at] for number, at in enumerate(places)
    }
    assert_equal_logits(seen, expected)
    # A branch that begins late has a forward of its own, of the prompt and the image so far.
    rows = [1 + (number in guided) for number in range(SIZE)]
    if guided and guided[0] > 0:
        rows[guided[0] : guided[0] + 1] = [1, 1]
    assert sizes == rows


def test_masked_passes_are_guided_within_the_interval_alone(monkeypatch) -> None:
    model, document = masked_model(MaskSchedule(steps=4)), question("draw")
    sizes = counted(monkeypatch)

    def drawn(**settings: object) -> list[list[int]]:
        sizes.clear()
        sampling = Sampling(seed=3, **settings)  # type: ignore[arg-type]
        return [part.codes.tolist() for part in generate(model, [document], sampling, "image")[0]]  # type: ignore[union-attr]

    plain, whole = drawn(), drawn(guidance=3.0)
    always = sizes.copy()
    assert drawn(guidance=3.0, guidance_interval=(0.0, 1.0)) == whole and sizes == always
    assert drawn(guidance=3.0, guidance_interval=(0.98, 1.0)) == plain and sizes == [1] * 4
    drawn(guidance=3.0, guidance_interval=(0.0, 0.1))
    assert sum(sizes) < sum(always), "the first passes keep few codes; the last ones are not guided"
    assert plain != whole


def test_strangers_with_other_intervals_change_nothing(lively: Model) -> None:  # noqa: F811
    documents = [question("draw " + "a star " * n) for n in range(5)]
    intervals = [None, (0.3, 0.7), (0.5, 1.0), (0.0, 0.2), (0.3, 0.7)]
    samplings = [
        Sampling(guidance=2.0, guidance_interval=one, seed=n) for n, one in enumerate(intervals)
    ]
    together = generate(lively, documents, samplings, "image", batch=3)
    for document, sampling, (drawn,) in zip(documents, samplings, together, strict=True):
        ((alone,),) = generate(lively, [document], sampling, "image")
        np.testing.assert_array_equal(alone.codes, drawn.codes)  # type: ignore[union-attr]


def test_with_an_interval_there_are_no_drafts(
    lively: Model,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, document = counted(monkeypatch), question("draw a star")
    sampling = Sampling(guidance=2.0, guidance_interval=(0.1, 0.5), seed=4)
    ((plain,),) = generate(lively, [document], sampling, "image")
    passes = sizes.copy()
    sizes.clear()
    ((drawn,),) = generate(lively, [document], replace(sampling, image_drafts=4), "image")
    np.testing.assert_array_equal(drawn.codes, plain.codes)  # type: ignore[union-attr]
    assert sizes == passes
