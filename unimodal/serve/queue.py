"""A queue in which clients take turns, and of one client its users, however much one of them asks.

In: jobs with a path, as (client, user). Out: at each level of the path the one whose turn it is.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A FairQueue has its own jobs in order, or queues that take turns."""

    def __init__(self) -> None:
        self._jobs: deque[T] = deque()
        self._queues: OrderedDict[str, FairQueue[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._jobs) + sum(map(len, self._queues.values()))

    def put(self, job: T, path: Sequence[str]) -> None:
        """Add a job behind those of the same path."""
        if path:
            self._queues.setdefault(path[0], FairQueue()).put(job, path[1:])
        else:
            self._jobs.append(job)

    def pop(self) -> T:
        """Remove and return the job whose turn it is; IndexError where there is none."""
        if not self._queues:
            return self._jobs.popleft()
        name, queue = self._queues.popitem(last=False)
        job = queue.pop()
        if len(queue):
            self._queues[name] = queue  # behind the others
        return job

    def remove(self, job: T, path: Sequence[str]) -> bool:
        """Remove a job; return whether it was there."""
        if not path:
            was_there = job in self._jobs
            if was_there:
                self._jobs.remove(job)
            return was_there
        queue = self._queues.get(path[0])
        was_there = queue is not None and queue.remove(job, path[1:])
        if queue is not None and not len(queue):
            del self._queues[path[0]]
        return was_there
