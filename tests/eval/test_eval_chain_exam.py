"""Conversations of several turns: a perfect painter is right in all steps, others are not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from unimodal.data.scenes.requests import Request, granted
from unimodal.data.scenes.wording import caption
from unimodal.data.scenes.world import SMALL, Scene, generator, render
from unimodal.document import Image
from unimodal.eval.answer import Answer
from unimodal.eval.chain_exam import STEPS, ChainEvaluator, make_chains, picture
from unimodal.eval.run import run
from unimodal.sampling import Sampling
from unimodal.tokenizer.grid import Grid


def drawn(shown):
    return Answer("", (render(shown),), ((0,),))


def perfect(step):
    """The right answer to a step, from what its judge knows."""
    (known,) = step.judge.args
    if isinstance(known, Request):
        return drawn(granted(known, generator(9, 9), SMALL))
    if isinstance(known, Scene):
        return Answer(caption(known, generator(9, 8), index=1))
    return drawn(known.after) if hasattr(known, "after") else Answer(known.answer)


def held(request, answers):
    """The answer to the last step when each is answered by `answers(name, step)`."""
    steps, earlier = request.steps(), ()
    step = next(steps)
    while True:
        answer = replace(answers(step), earlier=earlier)
        earlier += (answer,)
        try:
            step = steps.send(answer)
        except StopIteration:
            return answer


@pytest.fixture(scope="module")
def chains():
    return ChainEvaluator(make_chains(12, 3, SMALL), Sampling(), 3, canvas=64)


def test_a_perfect_painter_is_right_in_every_step(chains):
    found = [chains.score(one, held(one, perfect)) for one in chains.requests()]
    for prediction in found:
        assert prediction["right"], prediction["reason"]
        assert tuple(step["name"] for step in prediction["steps"]) == STEPS[prediction["kind"]]
        json.dumps(prediction)
    scores = chains.summary(found)
    assert scores["overall"].value == scores["whole"]["overall"].value == 1
    assert scores["undo"].n == scores["third_edit"].n == 12


def test_what_drew_no_scene_gets_no_further(chains):
    blank = Answer("no", ())
    found = [chains.score(one, held(one, lambda step: blank)) for one in chains.requests()]
    scores = chains.summary(found)
    assert scores["overall"].value == 0 and scores["undo"].n == 12
    assert scores["reached"]["draw"].n == 12 and "undo" not in scores["reached"]
    assert all("not reached" in prediction["reason"] for prediction in found)


def test_undo_wants_the_drawing_back_not_the_edit(chains):
    def stubborn(step):
        return drawn(changed[-1]) if step.name == "undo" else remember(step)

    def remember(step):
        answer = perfect(step)
        read = picture(answer)
        changed.extend([read] if read is not None else [])
        return answer

    changed: list[Scene] = []
    own = [one for one in chains.requests() if one.kind == "own"]
    scores = chains.summary([chains.score(one, held(one, stubborn)) for one in own])
    assert scores["edit"].value == 1 and scores["undo"].value == 0


def test_a_conversation_holds_all_that_was_said_and_drawn(chains):
    for request in (chains.requests()[0], chains.requests()[-1]):
        turns = chains.turns(request)
        turn, noise, sizes = next(turns), [], []
        steps = request.steps()
        step = next(steps)
        while True:
            noise.append(turn.sampling.seed)
            sizes.append(len(turn.document.parts))
            assert turn.document.parts[-1].text == step.prompt
            assert turn.document.turns()[-1][0] == "user"
            answer = perfect(step)
            parts = [
                Image(pixels=p, codes=np.zeros((1, 1), int), grid=Grid(1, 1), codec_hash="x")
                for p in answer.images
            ]
            try:
                turn, step = turns.send(tuple(parts)), steps.send(answer if parts else Answer(""))
            except StopIteration:
                break
        assert sizes == sorted(set(sizes)) and len(set(noise)) == len(noise)


def test_chains_are_a_function_of_their_seed():
    first, again, other = (make_chains(4, seed, SMALL) for seed in (5, 5, 6))
    assert [one.prompt for one in first] == [one.prompt for one in again]
    assert [one.prompt for one in first] != [one.prompt for one in other]
    assert len({one.id for one in first}) == 8


def test_a_model_is_asked_through_the_one_loop(drawing_model):
    model = replace(drawing_model, grid=Grid(8, 8))
    evaluator = ChainEvaluator(make_chains(1, 4, SMALL), model.sampling, 4, canvas=64)
    together, apart = run(model, evaluator, batch=2), run(model, evaluator, batch=1)
    assert together == apart
    assert [prediction["kind"] for prediction in together] == ["own", "edits"]
    assert all(not prediction["right"] and prediction["codes"] for prediction in together)
