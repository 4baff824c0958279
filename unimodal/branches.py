"""Branches are the token sequences that the transformer reads for a batch of requests.

Each queues what it has yet to read (branch.py) and owns a row of the key-value cache.
`Branches.read` runs one forward over the queued tokens of all branches, whatever they are: ids,
latents, bidirectional blocks. A few tokens are read side by side, many are padded to the longest
queue. A new branch that begins as a kept prefix does (prefixes.py), or as another branch (many
questions about one image), reads only what follows it.

Letters: B branches, T tokens of a forward, D width.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .branch import Branch
from .cache import KVCache
from .prefixes import Prefix, Prefixes
from .sequence import Span
from .tokens import Tokens, shared
from .varlen import Varlen

if TYPE_CHECKING:
    from .model import Model

# Of one forward; more or longer prompts are read in several forwards. A CPU multiplies 512 vectors
# as fast as more, and what a layer makes of them stays in its caches.
MAX_PREFILL_TOKENS, MAX_CPU_PREFILL_TOKENS = 8192, 512
# Of how many tokens of a row the last layer need not compute hidden vectors for it to be worth it.
LEAST_SKIPPED = 8
LEAST_SHARED = 16  # tokens, and half of a prompt, that another one holds are copied


@dataclass(frozen=True, eq=False)
class BranchInput:
    """A BranchInput is the ModelInput of a forward: the queued tokens of some branches."""

    ids: Tensor
    address: Tensor
    spans: Sequence[Sequence[Span]]


class Branches:
    """Branches hold all branches in work, and the key-value cache with a row for each.

    They are read in inference mode.
    """

    def __init__(self, model: "Model", num_prefixes: int = 0) -> None:
        """Hold none. num_prefixes: how many prefixes are kept at most of branches that ended."""
        self._model, self._device = model, model.transformer.model.embed_tokens.weight.device
        self._num_weights = sum(one.numel() for one in model.transformer.parameters())
        self._cache = self._new_cache(1, 1)
        self._rows: list[Branch] = []  # the branch of each row of the cache
        self.prefixes = Prefixes(num_prefixes)
        self.num_read = 0
        """How many tokens the transformer was run over so far, padding not counted."""
        # Of the latest `read`: (hidden_BTD, counts_B) of each forward, which has so many hidden
        # vectors of each row, the last one of each of their rows, and the index of each cache row
        # in that (None: it read nothing).
        self._seen: list[tuple[Tensor, np.ndarray]] = []
        self._last_BD = torch.empty(0)
        self._place: list[int | None] = []

    def reserve(self, rows: int, tokens: int, allowed: int | None = None) -> None:
        """Make room for `rows` branches of `tokens` tokens.

        allowed: the bytes that may be taken, to which prefixes and rows that nobody uses make way.
        """
        if allowed is not None:
            while self.num_bytes(rows, tokens) > allowed and self.prefixes.num_bytes:
                self.prefixes.drop_oldest()
            if self.num_bytes(rows, tokens) > allowed and not self._rows:
                self._cache = self._new_cache(rows, tokens)
        self._cache.grow(rows, tokens)

    def make_way(self, num_bytes: int, allowed: int) -> bool:
        """Return whether `allowed` bytes have room for so many beside all keys and values;
        prefixes and rows that nobody uses make way.
        """
        while self.held_bytes + num_bytes > allowed and self.prefixes.num_bytes:
            self.prefixes.drop_oldest()
        if self.held_bytes + num_bytes > allowed and not self._rows:
            self._cache = self._new_cache(1, 1)
        return self.held_bytes + num_bytes <= allowed

    def _new_cache(self, rows: int, tokens: int) -> KVCache:
        transformer = self._model.transformer
        dtype, devices = transformer.lm_head_weight.dtype, transformer.layer_devices
        return KVCache(transformer.config, rows, tokens, dtype, devices)

    @property
    def held_bytes(self) -> int:
        """Return the bytes of all keys and values, those of prefixes included."""
        return self.num_bytes(0, 0)

    @property
    def resident_bytes(self) -> int:
        """Return how many of these the system has given already."""
        return self._cache.resident_bytes + self.prefixes.num_bytes

    def num_bytes(self, rows: int, tokens: int) -> int:
        """Return the bytes of all keys and values once there is such room in the cache."""
        return self._cache.num_bytes(rows, tokens) + self.prefixes.num_bytes

    def least_bytes(self, rows: int, tokens: int) -> int:
        """Return the bytes that such room takes alone."""
        return rows * tokens * self._cache.token_bytes

    def flops(self, branches: Sequence[Branch]) -> float:
        """Return how many operations the next `read` takes: two for each weight and queued token.

        Attention is left out, as is padding.
        """
        num_tokens = sum(len(branch.queue) for branch in branches)
        return 2.0 * self._num_weights * num_tokens

    def keep(self, branches: Iterable[Branch], allowed: int) -> None:
        """Keep what the cache holds of branches that are about to be dropped, for later ones, as
        far as `allowed` bytes hold it; older prefixes make way.
        """
        for branch in branches:
            if branch.row is None:
                continue
            more = len(branch.held) * self._cache.token_bytes
            if self._cache.num_bytes(0, 0) + more > allowed:
                continue  # no older prefix that makes way would give it room
            while self.held_bytes + more > allowed and self.prefixes.num_bytes:
                self.prefixes.drop_oldest()
            if self.held_bytes + more <= allowed:
                stored = self._cache.stored(branch.row)
                self.prefixes.add(Prefix(branch.held, stored, branch.owner))

    def drop(self, branches: Iterable[Branch]) -> None:
        """Free the rows of branches; the last rows move into the gaps."""
        rows = [branch.row for branch in branches if branch.row is not None]
        for row in sorted(rows, reverse=True):
            self._cache.drop(row)
            self._rows[row].row = None
            last = self._rows.pop()
            if row < len(self._rows):
                self._rows[row], last.row = last, row

    def read(self, branches: Sequence[Branch], num: int | None = None) -> None:
        """Run the transformer over the queued tokens of all branches.

        branches: all branches in work; those without a row get one behind the others. New branches
        with equal queues, as of several samples of one prompt, are read once and copied; so is a
        common beginning. num: how many hidden vectors of each `last` will be asked for at most;
        None: all, so that each reads all of its own.
        """
        fresh = [branch for branch in branches if branch.row is None]
        first_of = _firsts(fresh)
        distinct = [branch for branch in fresh if first_of[branch] is branch]
        sources = {} if num is None else self._begin(distinct, num)
        tokens = max((len(one.held) + len(one.queue) for one in branches), default=0)
        self.reserve(len(self._rows) + len(fresh), tokens + 1)  # padding has a slot
        self._seen, self._place = [], []
        if any(branch.queue.ids for branch in self._rows):
            self._forward(self._rows, slice(0, len(self._rows)), num)
        else:
            self._place += [None] * len(self._rows)
        # Those that begin as others of them do come behind these.
        for behind in (False, True):
            wave = [one for one in distinct if (sources.get(one) in first_of) is behind]
            for some in self._prefills(wave):
                self._prefill(some, sources, num)
        last = [_last_of_each(*one) for one in self._seen]
        self._last_BD = last[0] if len(last) == 1 else torch.cat(last)
        for branch in fresh:
            if branch.row is None:
                self._copy(first_of[branch], branch)

    def _prefills(self, fresh: Sequence[Branch]) -> Iterator[list[Branch]]:
        """Yield new branches in groups that a forward reads, of like lengths: so few are padded."""
        on_cpu = self._device.type == "cpu"
        most = MAX_CPU_PREFILL_TOKENS if on_cpu else MAX_PREFILL_TOKENS
        left = sorted(fresh, key=lambda branch: len(branch.queue), reverse=True)
        while left:
            num = max(1, most // len(left[0].queue))
            yield left[:num]
            left = left[num:]

    def _prefill(
        self, some: list[Branch], sources: dict[Branch, Prefix | Branch], num: int | None
    ) -> None:
        """Run one forward over new branches, which get rows that begin as their sources do."""
        self._rows += some
        rows = self._cache.add(len(some))
        for row, branch in enumerate(some, start=rows.start):
            if (source := sources.get(branch)) is not None:
                stored = source.stored if isinstance(source, Prefix) else self._held(source)
                self._cache.restore(row, stored, branch.held.block, branch.held.private)
        self._forward(some, rows, num)

    def _held(self, branch: Branch) -> tuple[Tensor, ...]:
        assert branch.row is not None, "it was read before those that begin as it does"
        return self._cache.held(branch.row)

    def _begin(self, fresh: Sequence[Branch], num: int) -> dict[Branch, Prefix | Branch]:
        """Let new branches begin with what is held of their first tokens, all but the last `num`,
        whose hidden vectors are looked at; return where that is: a kept prefix, a branch in work,
        or another new one, which begins with none of them.
        """
        sources: dict[Branch, Prefix | Branch] = {}
        others = {one: (one.held, len(one.held) - one.num_forgotten) for one in self._rows}
        for branch in fresh:
            found: tuple[Prefix | Branch, int] | None
            wanted, num_read = branch.queue, max(num, branch.num_temporary)
            found = self.prefixes.best(wanted, branch.owner, num_read)
            for other, (tokens, most) in others.items():
                more = found[1] + 1 if found else 0
                shares = _shares(tokens, wanted, more, min(most, len(wanted) - num_read))
                if shares:
                    found = other, shares
            begins_as_new = found is not None and found[0] in fresh
            if branch is not fresh[-1] and not begins_as_new:
                others[branch] = branch.tokens, len(wanted) - branch.num_temporary
            if found is not None:
                sources[branch] = found[0]
                branch.begins_with(found[1])
        return sources

    def _copy(self, source: Branch, branch: Branch) -> None:
        """Give a new branch a copy of the row of one that has read the same tokens."""
        assert source.row is not None, "the first one was read"
        row = self._cache.add().start
        self._cache.copy(source.row, row)
        self._rows.append(branch)
        self._place.append(self._place[source.row])
        branch.has_read(row)

    def _forward(self, branches: Sequence[Branch], rows: slice, num: int | None) -> None:
        """Run one forward over the queues of these branches, whose cache rows are `rows`."""
        lengths_B = np.array([len(branch.queue) for branch in branches])
        assert lengths_B.any(), "a forward without anything to read"
        for row, branch in enumerate(branches, start=rows.start):
            if branch.num_forgotten:
                self._cache.truncate(row, branch.num_forgotten)
        queues, counts_B = [branch.queue for branch in branches], lengths_B
        if _are_plain(queues) and self._cache.takes_varlen(lengths_B, rows):
            hidden_BTD = self._side_by_side(queues, Varlen.of(lengths_B), rows)
        else:
            if num is not None and lengths_B.max() >= num + LEAST_SKIPPED:
                counts_B = np.minimum(lengths_B, num)
            hidden_BTD = self._padded(queues, lengths_B, counts_B, rows, num)
        # Padding behind shorter queues, and what is not kept, are rolled back.
        self._cache.commit(lengths_B - [branch.num_temporary for branch in branches], rows)
        self._cache.rollback(rows=rows)
        self.num_read += int(lengths_B.sum())
        for row, branch in enumerate(branches, start=rows.start):
            branch.has_read(row)
        first = sum(len(counts_B) for _, counts_B in self._seen)
        self._place += [first + k if n else None for k, n in enumerate(lengths_B.tolist())]
        self._seen.append((hidden_BTD, counts_B))

    def _padded(
        self, queues: Sequence[Tokens], lengths_B: np.ndarray, counts_B: np.ndarray, rows: slice,
        num: int | None,
    ) -> Tensor:  # fmt: skip
        """Return the hidden vectors of queues that are padded to the longest, hidden_BTD, or of the
        last counts_B of each, at most `num`.
        """
        longest = int(lengths_B.max())

        def padded(name: str) -> list[list]:
            none = (0, 0) if name == "address" else 0
            return [getattr(one, name) + [none] * (longest - len(one)) for one in queues]

        masks, seen_BN = None, None
        if any(any(one.block) or any(one.private) for one in queues):
            masks = self._tensor(padded("block")), self._tensor(padded("private"))
        if counts_B is not lengths_B:
            assert num is not None, "all are wanted"
            seen_BN = torch.from_numpy(_last_places(lengths_B, counts_B, num)).to(self._device)
        self._cache.append(longest, rows, masks, lengths_B, seen_BN)
        return self._hidden(padded, [one.spans for one in queues], seen_BN)

    def _side_by_side(self, queues: Sequence[Tokens], varlen: Varlen, rows: slice) -> Tensor:
        """Return the hidden vectors of queues that are read side by side, hidden_BTD."""

        def in_one_row(name: str) -> list[list]:
            return [[value for one in queues for value in getattr(one, name)]]

        self._cache.append_varlen(varlen, rows)
        return varlen.padded(self._hidden(in_one_row, [[]], None)[0])

    def _hidden(
        self,
        column: Callable[[str], list[list]],
        spans: Sequence[Sequence[Span]],
        seen_BN: Tensor | None,
    ) -> Tensor:
        """Return the hidden vectors of tokens whose columns are given by name."""
        transformer = self._model.transformer
        uses_addresses = transformer.embedder.uses_addresses
        address = self._tensor(column("address")) if uses_addresses else self._tensor([])
        reading = BranchInput(self._tensor(column("ids")), address, spans)
        positions_BT = self._tensor(column("positions"))
        return transformer.hidden_states(reading, positions_BT, self._cache, seen_BN)

    def _tensor(self, values: list) -> Tensor:
        return torch.tensor(values, device=self._device)

    def last(self, branches: Sequence[Branch], num: int = 1) -> Tensor:
        """Return the last `num` hidden vectors of each of these branches, (B, num, D)."""
        places = self._places(branches)
        if num == 1:
            return self._last_BD[places][:, None]
        return torch.stack([self._last_of(place, num) for place in places])

    def before(self, branches: Sequence[Branch], behind_B: Sequence[int]) -> Tensor:
        """Return of each of these branches the hidden vector behind which so many of its last ones
        stand, (B, D).
        """
        places = self._places(branches)
        if not any(behind_B):
            return self._last_BD[places]
        found = zip(places, behind_B, strict=True)
        return torch.stack([self._last_of(place, 1 + behind)[0] for place, behind in found])

    def _places(self, branches: Sequence[Branch]) -> list[int]:
        found = [None if branch.row is None else self._place[branch.row] for branch in branches]
        places = [place for place in found if place is not None]
        assert len(places) == len(branches), "a branch was looked at that has read nothing"
        return places

    def _last_of(self, place: int, num: int) -> Tensor:
        for hidden_BTD, counts_B in self._seen:
            if place < len(counts_B):
                stop = int(counts_B[place])
                assert num <= stop, f"{num} hidden vectors of {stop} that were computed"
                return hidden_BTD[place, stop - num : stop]
            place -= len(counts_B)
        raise AssertionError("a place is that of a row that was read")


def _shares(held: Tokens, wanted: Tokens, more: int, most: int) -> int:
    """Return how many first tokens of a new branch another one holds; 0 where they are not so many
    more, and where they are few, or fewer than the others: these are read as fast with them.
    """
    least = max(LEAST_SHARED, -(-len(wanted) // 2), more)
    if least > most or held.ids[:least] != wanted.ids[:least]:
        return 0
    num = shared(held, wanted, most)
    return num if num >= least else 0


def _are_plain(queues: Sequence[Tokens]) -> bool:
    """Return whether all is causal and public, and no image is given by more than its ids."""
    return not any(one.spans or any(one.block) or any(one.private) for one in queues)


def _firsts(branches: Sequence[Branch]) -> dict[Branch, Branch]:
    """Return for each branch the first of the branches with an equal queue."""
    firsts: dict[Hashable, Branch] = {}
    found = {}
    for branch in branches:
        unread = branch.unread
        found[branch] = branch if unread is None else firsts.setdefault(unread, branch)
    return found


def _last_places(lengths_B: np.ndarray, counts_B: np.ndarray, num: int) -> np.ndarray:
    """Return the places (B, num) of the last counts_B tokens of rows; behind them padding, which
    are valid places too.
    """
    offsets_BN = np.minimum(np.arange(num), counts_B[:, None] - 1)
    return np.maximum(lengths_B[:, None] - counts_B[:, None] + offsets_BN, 0)


def _last_of_each(hidden_BTD: Tensor, counts_B: np.ndarray) -> Tensor:
    """Return the last hidden vector of each row, before the padding, hidden_BD."""
    if hidden_BTD.shape[1] == 1:
        return hidden_BTD[:, 0]
    last_B = torch.from_numpy(counts_B - 1).to(hidden_BTD.device)
    return hidden_BTD[torch.arange(len(last_B), device=hidden_BTD.device), last_B]
