"""A drawing is judged by the probabilities of a model's answers about it."""

import math

import numpy as np
import pytest
import torch

from unimodal.attention import DenseAttention
from unimodal.branches import Branches
from unimodal.checking import Judgement, best, judged, needed_bytes
from unimodal.checks import Check, checks_of
from unimodal.document import Document, Image, Text
from unimodal.model import Model

WORDS = "draw two red circles and a star left of a dog"


def image(model: Model, seed: int) -> Image:
    codes_n1 = np.random.default_rng(seed).integers(0, 64, (model.grid.size, 1))
    return Image(
        codes=codes_n1, grid=model.grid, codec_hash=model.image_tokenizer.hash, role="assistant"
    )


def probability(model: Model, shown: Image, question: str, word: str) -> float:
    """The probability of a word as the start of the answer, by one forward, among all words."""
    parts = (Image(shown.pixels, shown.codes, grid=shown.grid, codec_hash=shown.codec_hash,
                   role="user"), Text(question, role="user"))  # fmt: skip
    prompt = model.sequencer.prompt(Document(parts)).ids.tolist()
    answer = model.text_tokenizer.encode(word)
    ids = prompt + answer
    causal_1TT = torch.ones(1, len(ids), len(ids), dtype=torch.bool).tril()
    with torch.inference_mode():
        x_1TD = model.transformer.embed(torch.tensor([ids]))
        positions_1T = torch.arange(len(ids))[None]
        hidden_1TD = model.transformer(x_1TD, positions_1T, DenseAttention(causal_1TT))
        words_TV = model.transformer.logits(hidden_1TD)[0, :, : model.vocabulary.num_words]
        log_TV = words_TV.double().log_softmax(-1)
    start = len(prompt) - 1
    return math.exp(sum(float(log_TV[start + k, token]) for k, token in enumerate(answer)))


def test_probabilities_are_those_of_a_forward_over_the_whole(tiny_model: Model) -> None:
    checks = checks_of(WORDS)
    assert [check.answer for check in checks] == ["two", "yes", "yes", "yes"]
    shown = image(tiny_model, 1)
    found = judged(tiny_model, shown, checks)
    spellings = {"two": ("two", "Two", "2"), "yes": ("yes", "Yes")}
    expected = [
        sum(probability(tiny_model, shown, check.question, w) for w in spellings[check.answer])
        for check in checks
    ]
    assert found.probabilities == pytest.approx(expected, rel=1e-4)
    assert found.score == pytest.approx(math.prod(expected), rel=1e-3) and found.score > 0
    lengths = {len(tiny_model.text_tokenizer.encode(w)) for w in spellings["two"]}
    assert len(lengths) > 1, "words of one token and of several are judged"


def test_the_keys_and_values_of_one_question_are_held(tiny_model: Model, monkeypatch) -> None:
    held: list[int] = []
    read = Branches.read

    def measured(branches: Branches, some: list, num: int) -> None:
        read(branches, some, num)
        held.append(branches.held_bytes)

    monkeypatch.setattr(Branches, "read", measured)
    checks, shown = checks_of(WORDS), image(tiny_model, 1)
    judged(tiny_model, shown, checks)
    assert len(held) == len(checks) == 4
    assert max(held) == needed_bytes(tiny_model, shown, checks) > min(held)
    assert needed_bytes(tiny_model, shown, ()) == 0


def test_another_image_has_another_judgement(tiny_model: Model) -> None:
    checks = checks_of(WORDS)
    one, other, again = (judged(tiny_model, image(tiny_model, seed), checks) for seed in (1, 2, 1))
    assert one == again and one.probabilities != other.probabilities


def test_what_rows_of_codes_say_of_words_has_no_part(tiny_model: Model) -> None:
    """Nothing is learned of codes where words stand: a model may find all of them likely there."""
    checks, shown = checks_of(WORDS), image(tiny_model, 1)
    before = judged(tiny_model, shown, checks).probabilities
    table_VD = tiny_model.transformer.output_table().detach()
    likely_VD = table_VD.clone()
    likely_VD[slice(*tiny_model.vocabulary.code_slice)] *= 100
    tiny_model.transformer.output_table = lambda: likely_VD
    try:
        assert judged(tiny_model, shown, checks).probabilities == before
    finally:
        del tiny_model.transformer.output_table


def test_the_best_is_the_likeliest_and_of_equal_ones_the_first() -> None:
    checks = tuple(Check(f"is there a {name}?", "yes", f"a {name}") for name in ("dog", "cat"))
    both = [Judgement(checks, two) for two in ((0.9, 0.2), (0.6, 0.6), (0.6, 0.6), (1.0, 0.1))]
    assert best(both) == 1 and best(both[::-1]) == 1
    assert both[0].unsatisfied == ("a cat",) and both[1].unsatisfied == ()
    assert str(both[0]) == "not satisfied, by the model's own answers: a cat"
    assert "all that was asked about is there" in str(both[1])
