"""Metrics of a server as Prometheus reads them (text format 0.0.4)."""

import threading
from collections import Counter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)  # of the histogram


class Metrics:
    """Metrics count answers by route and status, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count an answer. route: one of the server's own, never what a client wrote."""
        with self._lock:
            self._answers[route, status] += 1
            self._seconds += seconds
            self._buckets.update(bound for bound in BOUNDS_S if seconds <= bound)

    def text(self, counters: dict[str, tuple[str, int]], gauges: dict[str, tuple[str, int]]) -> str:
        """Return all metrics, those given too, which have a description and a value by name."""
        with self._lock:
            lines = _head("requests_total", "counter", "Answers by route and status.")
            for (route, status), count in sorted(self._answers.items()):
                labels = f'{{route="{route}",status="{status}"}}'
                lines.append(f"unimodal_requests_total{labels} {count}")
            lines += _head("request_seconds", "histogram", "Time of an answer.")
            bounds = [(str(bound), self._buckets[bound]) for bound in BOUNDS_S]
            total = sum(self._answers.values())
            for bound, count in [*bounds, ("+Inf", total)]:
                lines.append(f'unimodal_request_seconds_bucket{{le="{bound}"}} {count}')
            lines.append(f"unimodal_request_seconds_sum {self._seconds:.6f}")
            lines.append(f"unimodal_request_seconds_count {total}")
        for kind, values in (("counter", counters), ("gauge", gauges)):
            for name, (words, value) in values.items():
                lines += [*_head(name, kind, words), f"unimodal_{name} {value}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, words: str) -> list[str]:
    return [f"# HELP unimodal_{name} {words}", f"# TYPE unimodal_{name} {kind}"]
