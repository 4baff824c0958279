"""Votes in a file, as they come, and the win rates that follow from them.

In: votes, each of one voter on one pair. Out: a file of JSON lines whose first holds the recipe
(predictions.py), and a report: scores, recipe, predictions.

A win rate counts a tie as half a win. Intervals and the test take votes on images of one prompt as
one cluster, whoever gave them: other prompts are what the next vote would be about.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..intervals import Estimate
from ..predictions import PredictionsFile, read_predictions
from ..results.comparison import LEVEL, told_p
from ..results.paired import exchange_p
from ..score import Prediction, recipe
from ..vqa.clusters import mean_of_clusters
from .pairs import A, B, Pair

LEFT, RIGHT, TIE = "left", "right", "tie"
CHOICES = (LEFT, RIGHT, TIE)


class VotesFile(PredictionsFile):
    """A mapping from voter and pair to the vote, on the disk before it is there."""

    def __setitem__(self, id: str, prediction: Prediction) -> None:
        """Write the vote's line and wait until it would outlast a power cut."""
        super().__setitem__(id, prediction)
        os.fsync(self._file.fileno())


def id_of(voter: str, pair: str) -> str:
    """Return the id of a voter's vote on a pair."""
    return f"{voter}/{pair}"


def vote_on(pair: Pair, voter: str, left: str, choice: str) -> Prediction:
    """Return the line of a vote; `left`: which of A and B stood there."""
    return {
        "voter": voter, "pair": pair.id, "kind": pair.prompt.tag, "prompt": pair.prompt.text,
        "left": left, "choice": choice, "winner": winner(left, choice),
    }  # fmt: skip


def winner(left: str, choice: str) -> str:
    """Return A, B or TIE."""
    return TIE if choice == TIE else left if choice == LEFT else (B if left == A else A)


def read_votes(path: Path) -> tuple[dict[str, Any], list[Prediction]]:
    """Return recipe and votes of a file; ValueError where it holds something else, or a vote that
    contradicts itself.
    """
    settings, kept = read_predictions(path)
    if settings.get("evaluation") != "arena":
        raise ValueError(f"{path} holds no votes of `unimodal eval arena`")
    if not all(isinstance(settings.get(side), str) for side in (A, B)):
        raise ValueError(f"{path}: its recipe does not name {A} and {B}")
    for id, vote in kept.items():
        sound = (
            vote.get("choice") in CHOICES
            and vote.get("left") in (A, B)
            and vote.get("winner") == winner(vote["left"], vote["choice"])
            and isinstance(vote.get("kind"), str)
            and id == id_of(str(vote.get("voter")), str(vote.get("pair")))
        )
        if not sound:
            raise ValueError(f"{path}: {id} is no vote ({vote!r:.200}): remove its line")
    if not kept:
        raise ValueError(f"{path} has no votes yet: open the page and choose")
    return settings, list(kept.values())


def report_of(settings: Mapping[str, Any], votes: list[Prediction]) -> dict[str, Any]:
    """Return scores, words, recipe and the votes."""
    names = {A: str(settings["a"]), B: str(settings["b"])}
    decided = [vote for vote in votes if vote["winner"] != TIE]
    tags = dict.fromkeys(vote["kind"] for vote in votes)
    scores: dict[str, Any] = {
        "win_rate": {names[side]: _rate(votes, side) for side in (A, B)},
        "win_rate_without_ties": {names[side]: _rate(decided, side) for side in (A, B)},
        f"win_rate_of_{names[B]}": {
            tag: _rate([vote for vote in votes if vote["kind"] == tag], B) for tag in tags
        },
        "votes": {
            "ties": _share(votes, "winner", TIE),
            "left_of_decided": _share(decided, "choice", LEFT),
        },
    }
    voters = len({vote["voter"] for vote in votes})
    return {
        "scores": scores,
        "words": [_words(votes, names, scores["win_rate"], voters)],
        "recipe": recipe(**settings, votes=len(votes), voters=voters),
        "predictions": votes,
    }


def _rate(votes: Iterable[Prediction], side: str) -> Estimate:
    """Return how often a side wins, a tie being half a win."""
    worth = {side: 1.0, TIE: 0.5}
    return mean_of_clusters((_prompt(vote), worth.get(vote["winner"], 0.0)) for vote in votes)


def _share(votes: Iterable[Prediction], name: str, value: str) -> Estimate:
    return mean_of_clusters((_prompt(vote), float(vote[name] == value)) for vote in votes)


def _prompt(vote: Prediction) -> str:
    """Return the number of a vote's prompt."""
    return str(vote["pair"]).partition("/")[0]


def _words(
    votes: Iterable[Prediction],
    names: Mapping[str, str],
    rates: Mapping[str, Estimate],
    voters: int,
) -> str:
    """Say which is preferred, or that neither is shown to be."""
    sums: dict[str, int] = {}
    for vote in votes:
        step = {B: 1, A: -1, TIE: 0}[vote["winner"]]
        sums[_prompt(vote)] = sums.get(_prompt(vote), 0) + step
    p, _ = exchange_p(np.array(list(sums.values()), float), np.random.default_rng(0))
    side = B if sum(sums.values()) >= 0 else A
    rate = rates[names[side]]
    ends = "no interval" if rate.low is None else f"{rate.low:.3f} to {rate.high:.3f}"
    told = (
        f"{names[side]} wins {rate.value:.3f} ({ends}) of {rate.n} votes (voters: {voters}, "
        f"prompts: {len(sums)}), p {told_p(p)}"
    )
    real = p < LEVEL and rate.low is not None and rate.low > 0.5
    return f"{told}: it is preferred" if real else f"{told}: no preference is shown"
