"""Rates say whether a client may ask again yet: a bucket of tokens for each (RFC 2697 has one)."""

import math
import time
from collections.abc import Callable

MAX_CLIENTS = 10_000  # whose buckets are kept


class Rates:
    """Rates allow each client so many requests a minute, a tenth of them at once."""

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: the time in seconds."""
        self._per_second, self._most = a_minute / 60, max(1.0, a_minute / 10)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when there were so many

    def wait_s(self, client: str) -> int:
        """Take a token of a client and return 0, or the seconds until there is one."""
        now = self._clock()
        tokens, then = self._buckets.pop(client, (self._most, now))
        tokens = min(self._most, tokens + (now - then) * self._per_second)
        taken = 1 if tokens >= 1 else 0
        self._buckets[client] = tokens - taken, now
        if len(self._buckets) > MAX_CLIENTS:  # the one that was silent for longest
            del self._buckets[next(iter(self._buckets))]
        return 0 if taken else math.ceil((1 - tokens) / self._per_second)
