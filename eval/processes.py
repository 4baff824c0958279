"""Answer requests in several processes, each on a core of its own.

The passes of a small model are short, and what Python does between them takes one core, however
many threads compute. A process is a fork, which shares the weights; answers come back by a pipe.
An answer depends on no neighbour (run.py), so that they are what one process would give.
"""

import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, TypeVar

import torch

from unimodal.model import Model

from .answer import Answer

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess  # Windows has none

    from .run import Request

R = TypeVar("R", bound="Request")
Answers = Iterator[tuple[R, Answer]]
LEAST = 16  # requests that a process answers at a time; with fewer, threads are as fast


def num_processes(model: Model, batch: int, requests: int) -> int:
    """Return in how many processes to answer so many requests, `batch` at a time: one for each of
    torch's threads, if these are worth it, and one alone where the model is not on a CPU.
    """
    threads = torch.get_num_threads()
    on_cpu = all(device.type == "cpu" for device in model.transformer.layer_devices)
    can_fork = sys.platform == "linux" and on_cpu
    return threads if can_fork and min(batch, requests) >= LEAST * threads else 1


def answered(
    answers: Callable[[Sequence[R]], Answers[R]], requests: Sequence[R], processes: int
) -> Answers[R]:
    """Yield each request with its answer as they come, all in this process where it is one.

    What `answers` raises in a process is raised here, with where it was raised as a note;
    ChildProcessError where a process was killed.
    """
    if processes == 1:
        yield from answers(requests)
        return
    asked = {request.id: request for request in requests}
    context = get_context("fork")
    working = {}
    try:
        for number in range(processes):
            reader, writer = context.Pipe(duplex=False)
            args = answers, requests[number::processes], writer
            process = context.Process(target=_work, args=args, daemon=True)
            process.start()
            writer.close()  # so that the pipe ends with the process
            working[reader] = process
        while working:
            for reader in [one for one in wait(list(working)) if isinstance(one, Connection)]:
                try:
                    found = reader.recv()
                except EOFError:
                    _end(working.pop(reader))
                    continue
                if isinstance(found, Exception):
                    raise found
                yield asked[found[0]], found[1]
    finally:
        for process in working.values():
            process.terminate()
            process.join()


def _work(answers: Callable[[Sequence[R]], Answers[R]], mine: Sequence[R], to: Connection) -> None:
    """Answer a process's requests; what it is asked to stop by comes from the first process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        for request, answer in answers(mine):
            to.send((request.id, answer))
    except Exception as error:
        error.add_note(traceback.format_exc())
        to.send(error)


def _end(process: "ForkProcess") -> None:
    """Wait for the end of a process whose pipe has ended."""
    process.join()
    if process.exitcode:
        raise ChildProcessError(
            f"a process that answered was ended ({process.exitcode}; -9 is a lack of memory, as a "
            "rule): a smaller --batch-size takes less"
        )
