"""Free requests mean what they say: an oracle that knows the tables alone reads them back."""

import re

import numpy as np
import pytest

from unimodal.data.scenes.free_phrasings import CONTEXTS, EDITS, EXCEPT, REQUESTS, WHATEVER
from unimodal.data.scenes.free_questions import DESCRIBE, QUESTIONS
from unimodal.data.scenes.free_words import Unseen, free_request, open_request, said_freely
from unimodal.data.scenes.phrasings import DESCRIBE as PLAIN_DESCRIBE
from unimodal.data.scenes.phrasings import EDITS as PLAIN_EDITS
from unimodal.data.scenes.phrasings import QUESTIONS as PLAIN_QUESTIONS
from unimodal.data.scenes.phrasings import REQUESTS as PLAIN_REQUESTS
from unimodal.data.scenes.requests import EXTRAS, TASKS, granted
from unimodal.data.scenes.synonyms import FREE_COLOURS, HELD_OUT_FAMILIES
from unimodal.data.scenes.typed import typed, with_typo
from unimodal.data.scenes.wording import COLOUR_WORDS, meanings, phrasings
from unimodal.data.scenes.world import COLOURS

COLOUR_OF = {
    word: name for name in COLOURS
    for word in (*COLOUR_WORDS[name], *(w for f in FREE_COLOURS[name].values() for w in f))
}  # fmt: skip


def colours_in(text: str) -> set[str]:
    """The colours that a text names, longest words first, so that 'rose-quartz' is no 'rose'."""
    words = sorted(COLOUR_OF, key=len, reverse=True)
    found = re.findall(rf"(?<![\w-])({'|'.join(map(re.escape, words))})(?![\w-])", text.lower())
    return {COLOUR_OF[word] for word in found}


@pytest.mark.parametrize("unseen", [Unseen(), Unseen(words=True), Unseen(phrasings=True)])
def test_the_colour_asked_for_is_the_colour_meant(unseen, monkeypatch):
    monkeypatch.setattr("unimodal.data.scenes.typed.TYPO_RATE", 0.0)
    monkeypatch.setattr("unimodal.data.scenes.free_words.CONTRARY_RATE", 0.0)
    rng = np.random.default_rng(0)
    for _ in range(300):
        wanted = free_request("colours", rng, unseen)
        assert colours_in(wanted.text) == {wanted.claims[0].colour}, wanted.text


@pytest.mark.parametrize("task", TASKS + EXTRAS)
def test_every_task_is_asked_in_many_ways_and_can_be_granted(task):
    rng = np.random.default_rng(1)
    texts = set()
    for _ in range(40):
        wanted = free_request(task, rng)
        texts.add(wanted.text)
        granted(wanted, rng, seen_only=True)
        assert wanted.text and "{" not in wanted.text
    assert len(texts) == 40


def test_held_out_words_and_phrasings_are_said_only_when_asked_for():
    rng = np.random.default_rng(2)
    held = {REQUESTS[k].split("{")[0].strip() for k in phrasings(REQUESTS, True)} - {""}
    gems = {w for n in COLOURS for f in HELD_OUT_FAMILIES for w in FREE_COLOURS[n].get(f, ())}
    plain = [free_request("colours", rng).text.lower() for _ in range(300)]
    assert not any(text.startswith(start) for text in plain for start in held)
    assert not any(re.search(rf"\b{gem}\b", text) for text in plain for gem in gems)
    phrased = [free_request("colours", rng, Unseen(phrasings=True)).text.lower() for _ in range(60)]
    assert sum(start in text for text in phrased for start in held) > 30
    worded = [free_request("colours", rng, Unseen(words=True)).text.lower() for _ in range(60)]
    assert sum(gem in text for text in worded for gem in gems) > 20


def test_what_is_excepted_is_not_drawn():
    rng = np.random.default_rng(3)
    told = 0
    for _ in range(200):
        wanted = open_request(rng)
        drawn = granted(wanted, rng, seen_only=True)
        (match, *_) = re.findall(
            r"(?:except|but|not|isn't|no)(?: an?)? (\w+)\W*$", wanted.text.lower()
        ) or [""]
        if match in COLOURS:
            told += 1
            assert all(obj.colour != match for obj in drawn.objects), wanted.text
        elif match in meanings():
            told += 1
            assert all(obj.shape != meanings()[match] for obj in drawn.objects), wanted.text
    assert told > 30


def test_tables_have_the_slots_of_the_plain_ones():
    def slots(template):
        return set(re.findall(r"{(\w+)}", template))

    for kind, templates in EDITS.items():
        assert {frozenset(slots(t)) for t in templates} == {frozenset(slots(PLAIN_EDITS[kind][0]))}
    for topic, templates in QUESTIONS.items():
        wanted = {frozenset(slots(t)) for t in PLAIN_QUESTIONS[topic]}
        assert {frozenset(slots(t)) for t in templates} <= wanted
    assert set(QUESTIONS) == set(PLAIN_QUESTIONS) and set(EDITS) == set(PLAIN_EDITS)
    assert all(slots(template) == {"what"} for template in REQUESTS)
    assert all(slots(template) <= {"noun"} for template in CONTEXTS)
    assert all(slots(template) <= {"shape", "colour"} and slots(template) for template in EXCEPT)
    for table in (REQUESTS, CONTEXTS, WHATEVER, EXCEPT, *EDITS.values()):
        assert len(set(table)) == len(table)


@pytest.mark.parametrize(
    ("free", "plain"),
    [
        *((EDITS[kind], PLAIN_EDITS[kind]) for kind in EDITS),
        *((QUESTIONS[topic], PLAIN_QUESTIONS[topic]) for topic in QUESTIONS),
        (REQUESTS, PLAIN_REQUESTS),
        (DESCRIBE, PLAIN_DESCRIBE),
    ],
)
def test_no_free_phrasing_gives_a_held_out_one_away(free, plain):
    seen = {free[k] for k in phrasings(free, False)} | {plain[k] for k in phrasings(plain, False)}
    held = {free[k] for k in phrasings(free, True)} | {plain[k] for k in phrasings(plain, True)}
    assert not seen & held and len(set(free)) == len(free)


def test_slips_keep_numbers_and_short_words():
    rng = np.random.default_rng(4)
    for _ in range(200):
        slipped = with_typo("draw three red rectangles there", rng)
        assert slipped != "draw three red rectangles there"
        assert slipped.startswith("draw three red ") and slipped.endswith(" there")
    assert with_typo("a red box", rng) == "a red box"


def test_typing_keeps_letters_and_says_i_large_in_sentences():
    rng = np.random.default_rng(5)
    found = {typed("can i have a star?", rng, typos=False) for _ in range(200)}
    assert {text.lower().rstrip("?") for text in found} == {"can i have a star"}
    assert {"Can I have a star?", "CAN I HAVE A STAR?", "can i have a star"} <= found


def test_said_freely_is_a_function_of_its_generator():
    first, second = (
        said_freely("make the red circle blue", np.random.default_rng(6)) for _ in "ab"
    )
    assert first == second
