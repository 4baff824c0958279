"""Votes as scores: who wins, at which rate, and whether a preference is shown."""

import pytest

from unimodal.eval.arena.votes import report_of, winner


def votes_of(winners: list[list[str]]) -> list[dict]:
    """Votes on prompts, of each as many as there are winners; A is always on the left."""
    choice = {"a": "left", "b": "right", "tie": "tie"}
    return [
        {
            "voter": "v", "pair": f"{number:05d}/{sample:04d}", "kind": "counting", "prompt": "p",
            "left": "a", "choice": choice[one], "winner": one,
        }
        for number, of_prompt in enumerate(winners)
        for sample, one in enumerate(of_prompt)
    ]  # fmt: skip


SETTINGS = {"evaluation": "arena", "a": "one", "b": "two"}


def test_a_preference_is_told_when_prompts_agree():
    (told,) = report_of(SETTINGS, votes_of([["b"]] * 9 + [["a"]]))["words"]
    assert told.startswith("two wins 0.900") and "p 0.021" in told  # 2 (1 + 10) / 1024
    assert told.endswith("it is preferred")
    (told,) = report_of(SETTINGS, votes_of([["b"]] * 6 + [["a"]] * 4))["words"]
    assert "p 0.754" in told and told.endswith("no preference is shown")


def test_many_votes_on_few_prompts_tell_little():
    (told,) = report_of(SETTINGS, votes_of([["b"] * 20, ["b"] * 20, ["b"] * 20]))["words"]
    assert "p 0.250" in told and told.endswith("no preference is shown")


def test_rates_of_both_add_up_to_one():
    votes = votes_of([["a", "b"], ["tie"], ["b", "b"], ["tie", "a"]])
    rates = report_of(SETTINGS, votes)["scores"]["win_rate"]
    assert rates["one"].value + rates["two"].value == pytest.approx(1)
    assert rates["two"].value == pytest.approx((3 + 2 * 0.5) / 7) and rates["two"].n == 7
    assert rates["one"].low == pytest.approx(1 - rates["two"].high)


def test_who_wins_follows_from_side_and_choice():
    assert [winner("a", c) for c in ("left", "right", "tie")] == ["a", "b", "tie"]
    assert [winner("b", c) for c in ("left", "right", "tie")] == ["b", "a", "tie"]
