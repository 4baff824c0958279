"""Who votes on what: each voter's next pair, and their votes, kept one at a time.

In: pairs, a seed and a file of votes. Out: for a voter the pair that is due, in the voter's own
order with the voter's own sides. A voter is known by a random id that this program gave: nobody can
vote under an id of their own making.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from .pairs import A, B, Pair, Pairs, left_of, order
from .votes import CHOICES, LEFT, VotesFile, id_of, vote_on

SMALL = 128  # pixels a side


@dataclass(frozen=True)
class Due:
    """The pair that a voter is to judge: the number-th of `of`."""

    number: int
    of: int
    pair: Pair
    left: str
    """Which of A and B stands on the left."""
    is_small: bool
    """All images are so small that they are enlarged without smoothing."""

    def file(self, side: str) -> Path:
        """Return the image on a side, `left` or `right`."""
        other = B if self.left == A else A
        return self.pair.files[self.left if side == LEFT else other]


class Arena:
    """Hands out pairs and takes votes, from any thread."""

    def __init__(self, pairs: Pairs, seed: int, votes: VotesFile) -> None:
        self._pairs, self._seed, self._votes = pairs.pairs, seed, votes
        self._are_small = pairs.largest_side <= SMALL
        self._voters = {str(vote["voter"]) for vote in votes.values()}
        self._orders: dict[str, list[Pair]] = {}
        self._lock = Lock()

    def knows(self, voter: str) -> bool:
        """Tell whether an id was given to a voter, now or in the file."""
        return voter in self._voters

    def new_voter(self) -> str:
        """Return an id that nobody can guess."""
        voter = secrets.token_hex(16)
        with self._lock:
            self._voters.add(voter)
        return voter

    def due(self, voter: str) -> Due | None:
        """Return the first pair that a voter has not judged; None when all are."""
        with self._lock:
            return self._due(voter)

    def vote(self, voter: str, number: int, choice: str) -> bool:
        """Keep a vote on the pair that is due; return False, and keep none, on another number."""
        assert choice in CHOICES, f"{choice} is no choice"
        with self._lock:
            due = self._due(voter)
            if due is None or due.number != number:
                return False
            self._votes[id_of(voter, due.pair.id)] = vote_on(due.pair, voter, due.left, choice)
            return True

    def _due(self, voter: str) -> Due | None:
        if voter not in self._orders:
            self._orders[voter] = order(self._pairs, self._seed, voter)
        ordered = self._orders[voter]
        for number, pair in enumerate(ordered):
            if id_of(voter, pair.id) not in self._votes:
                left = left_of(pair, self._seed, voter)
                return Due(number, len(ordered), pair, left, self._are_small)
        return None
