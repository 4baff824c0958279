"""Questions that are made from the words of a request."""

import pytest

from unimodal.checks import MAX_CHECKS, NUMBERS, checks_of


def asked(words: str) -> list[tuple[str, str]]:
    return [(check.question, check.answer) for check in checks_of(words)]


@pytest.mark.parametrize(
    ("words", "questions"),
    [
        ("Draw a red circle.", ["is there a red circle?"]),
        ("a photo of an owl on a green background", ["is there an owl?"]),
        ("hi, can you show me a ring in pink?", ["is there a ring in pink?"]),
        ("a star that is pink and one dog", ["is there a star that is pink?", "is there a dog?"]),
        ("another star in a park", ["is there a star?", "is there a park?"]),
        ("a lot of stars and a couple of rings", []),
        ("a star and a star", ["is there a star?"]),
    ],
)
def test_a_thing_alone_is_asked_for_by_yes(words: str, questions: list[str]) -> None:
    assert asked(words) == [(question, "yes") for question in questions]


@pytest.mark.parametrize("number", range(2, len(NUMBERS)))
def test_several_are_counted(number: int) -> None:
    for spelled in (str(number), NUMBERS[number]):
        question = ("how many red circles are there?", NUMBERS[number])
        assert asked(f"exactly {spelled} red circles") == [question]
    assert asked(f"{number + 10} red circles") == []


@pytest.mark.parametrize(
    ("words", "relation"),
    [
        ("a red ring above a dog", "is the red ring above the dog?"),
        ("a ring, which is on the left of a dog", "is the ring on the left of the dog?"),
        ("a ring and, right of it, a dog", "is the dog right of the ring?"),
        ("a ring with a dog to the right of it", "is the dog to the right of the ring?"),
    ],
)
def test_places_are_asked_about(words: str, relation: str) -> None:
    *things, last = asked(words)
    assert len(things) == 2 and last == (relation, "yes")


@pytest.mark.parametrize(
    "words",
    [
        "make it blue", "draw circles", "remove a star", "a circle without a star", "", "?!", "a",
        "turn a star into a ring", "what changed?",
    ],
)  # fmt: skip
def test_where_nothing_can_be_asked_nothing_is(words: str) -> None:
    assert asked(words) == []


def test_questions_are_few_and_wanted_is_what_they_are_about() -> None:
    letters = "bcdfghjklmnpqrst"
    found = checks_of(" and ".join(f"a {letter}{letter}" for letter in letters))
    assert len(found) == MAX_CHECKS and found[0].wanted == "a bb"
    assert checks_of("a b with a c , to the left of it")[-1].wanted == "the c to the left of the b"
    assert checks_of("two dogs left of a cat")[0].wanted == "two dogs"
    assert [check.wanted for check in checks_of("a dog left of a cat")] == [
        "a dog", "a cat", "the dog left of the cat",
    ]  # fmt: skip
