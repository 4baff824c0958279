"""Answer requests in several processes, each on a core of its own.

The passes of a small model are short, and what Python does between them takes one core, however
many threads compute. A process is a fork, which shares the weights; answers come back by a pipe.
An answer depends on no neighbour (run.py), so that they are what one process would give.
"""

import gc
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
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
ROUNDS = 8  # in which requests are dealt, neighbours together: they often show one image


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
    working: dict[Connection, ForkProcess] = {}
    try:
        for number in range(processes):
            reader, writer = context.Pipe(duplex=False)
            readers = [*working, reader]
            args = answers, _dealt(requests, number, processes), writer, readers
            process = context.Process(target=_work, args=args, daemon=True)
            process.start()
            writer.close()  # so that the pipe ends with the process
            working[reader] = process
        while working:
            for reader in [one for one in wait(list(working)) if isinstance(one, Connection)]:
                try:
                    id, found = reader.recv()
                except EOFError as error:
                    raise _ended(working[reader]) from error
                if id is not None:
                    yield asked[id], found
                elif isinstance(found, _Raised):
                    found.error.add_note(found.where)
                    raise found.error
                else:  # it has answered all
                    working.pop(reader).join()
    finally:
        for process in working.values():
            process.terminate()
            process.join()


def _dealt(requests: Sequence[R], number: int, processes: int) -> list[R]:
    """Return the requests of a process: some neighbours of each round."""
    num = -(-len(requests) // (processes * ROUNDS))
    return [one for at, one in enumerate(requests) if at // num % processes == number]


def _work(
    answers: Callable[[Sequence[R]], Answers[R]],
    mine: Sequence[R],
    to: Connection,
    readers: Sequence[Connection],
) -> None:
    """Answer a process's requests; what it is asked to stop by comes from the first process.

    `readers` are the first process's ends of pipes, which a fork holds too: closed here, so that
    the next answer finds nobody to read it, and ends this process, where the first was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the first process does then
    torch.set_num_threads(1)
    gc.freeze()  # what stood here before is shared, and no garbage: it is not looked through again
    for reader in readers:
        reader.close()
    with suppress(BrokenPipeError):
        for sent in _sent(answers, mine):
            to.send(sent)


def _sent(
    answers: Callable[[Sequence[R]], Answers[R]], mine: Sequence[R]
) -> Iterator[tuple[str | None, object]]:
    """Yield the id of each request and its answer, then None and what was raised, or None."""
    raised = None
    try:
        for request, answer in answers(mine):
            yield request.id, answer
    except (Exception, SystemExit) as error:
        raised = _Raised(_portable(error), traceback.format_exc())
    yield None, raised


@dataclass(frozen=True)
class _Raised:
    """What was raised in a process, and where."""

    error: Exception
    where: str


def _portable(error: BaseException) -> Exception:
    """Return the error, or one that says the same, where it does not pass a pipe."""
    try:
        passed = ForkingPickler.loads(ForkingPickler.dumps(error))  # as a pipe does
    except Exception:
        passed = None
    if not isinstance(passed, Exception):
        passed = ChildProcessError(f"{type(error).__name__}: {error}")
    return passed


def _ended(process: "ForkProcess") -> ChildProcessError:
    """Return what is wrong where a process has ended before it had answered all."""
    process.join()
    why = "a lack of memory, as a rule" if process.exitcode == -signal.SIGKILL else "see above"
    return ChildProcessError(
        f"a process that answered was ended ({process.exitcode}; {why}): a smaller --batch-size "
        "takes less memory, and one below 32 answers in this process alone"
    )
