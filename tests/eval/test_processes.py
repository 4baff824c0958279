"""Answers by several processes: those of one, what goes wrong, and when they are worth it."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from unimodal.document import Document, Text
from unimodal.eval.answer import Answer
from unimodal.eval.processes import ROUNDS, answered, num_processes
from unimodal.eval.run import Evaluator, Turn, Turns, run
from unimodal.eval.score import Prediction
from unimodal.model import Model
from unimodal.sampling import Sampling

SAMPLING = Sampling(text_temperature=1.0, max_text_tokens=10, max_images=1)


@dataclass(frozen=True)
class Said:
    """Something said to a model."""

    number: int

    @property
    def id(self) -> str:
        return f"{self.number:02d}"


ASKED = [Said(number) for number in range(40)]


class Noted(Evaluator[Said]):
    """Asks forty things, of which some are to be drawn, and notes which process asks what."""

    name = "noted"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def requests(self) -> list[Said]:
        return ASKED

    def turns(self, request: Said) -> Turns:
        (self.folder / f"{request.id}-{os.getpid()}").touch()
        document = Document((Text(f"draw {request.number} circles", role="user"),))
        modality = "image" if request.number % 4 == 1 else None
        yield Turn(document, replace(SAMPLING, seed=request.number), modality)

    def score(self, request: Said, answer: Answer) -> Prediction:
        brightness = [int(image.mean()) for image in answer.images]
        return {"answer": answer.text, "codes": list(answer.codes), "brightness": brightness}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_two_processes_answer_what_one_does(tiny_model: Model, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir()
    shared.mkdir()
    expected = run(tiny_model, Noted(alone), batch=31)
    found = run(tiny_model, Noted(shared), batch=32)
    assert found == expected and len({str(one["codes"]) for one in found}) > 10
    pids = [{path.name.split("-")[1] for path in folder.iterdir()} for folder in (alone, shared)]
    assert pids[0] == {str(os.getpid())}
    assert len(pids[1]) == 2 and not pids[0] & pids[1]
    assert len(list(shared.iterdir())) == 40, "each is asked once"
    dealt = {path.name.split("-")[0]: path.name.split("-")[1] for path in shared.iterdir()}
    num = -(-len(ASKED) // (2 * ROUNDS))
    rounds = [ASKED[at : at + num] for at in range(0, len(ASKED), num)]
    owners = [{dealt[one.id] for one in some} for some in rounds]
    assert all(len(one) == 1 for one in owners) and owners[0] != owners[1], "neighbours together"
    assert not multiprocessing.active_children()


def test_processes_are_taken_where_they_are_worth_it(tiny_model: Model, two_threads: None) -> None:
    counts = [num_processes(tiny_model, *some) for some in ((32, 32), (31, 99), (99, 31), (64, 64))]
    assert counts == [2, 1, 1, 2]
    torch.set_num_threads(1)
    assert num_processes(tiny_model, 99, 99) == 1
    torch.set_num_threads(2)


def refuses(requests: Sequence[Said]) -> Iterator[tuple[Said, Answer]]:
    for request in requests:
        if request.number == 5:
            raise ValueError("request 5 has no room")
        yield request, Answer(request.id)
    time.sleep(60)


def test_what_is_wrong_in_a_process_is_told_and_ends_the_others() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="^request 5 has no room") as error:
        list(answered(refuses, ASKED, 2))
    assert "in refuses" in error.value.__notes__[0]
    assert time.monotonic() - began < 30 and not multiprocessing.active_children()


def breaks_a_pipe(requests: Sequence[Said]) -> Iterator[tuple[Said, Answer]]:
    yield requests[0], Answer("")
    raise BrokenPipeError("the judge's pipe")


def parses(requests: Sequence[Said]) -> Iterator[tuple[Said, Answer]]:
    yield from json.loads("{x")


def leaves(requests: Sequence[Said]) -> Iterator[tuple[Said, Answer]]:
    yield requests[0], Answer("")
    os._exit(0)


@pytest.mark.parametrize(
    ("answers", "error", "said"),
    [
        (breaks_a_pipe, BrokenPipeError, "the judge's pipe"),
        (parses, json.JSONDecodeError, "Expecting property name"),
        (leaves, ChildProcessError, r"was ended \(0; see above\): a smaller --batch-size"),
    ],
)
def test_no_answer_is_passed_over(answers: Callable, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        list(answered(answers, ASKED, 2))
    if answers is not leaves:
        assert f"in {answers.__name__}" in raised.value.__notes__[0]
    assert not multiprocessing.active_children()


def is_killed(requests: Sequence[Said]) -> Iterator[tuple[Said, Answer]]:
    for request in requests:
        yield request, Answer(request.id)
        if request.number == 5:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(ChildProcessError, match=r"ended \(-9; .* a smaller --batch-size"):
        list(answered(is_killed, ASKED, 2))
    assert not multiprocessing.active_children()


def test_answers_that_nobody_wants_any_more_are_not_made() -> None:
    answers = answered(refuses, ASKED[6:], 2)
    assert next(answers)[0] in ASKED
    answers.close()
    assert not multiprocessing.active_children()


class TwoWords(Exception):
    """An error that is made of two words, and so does not pass a pipe."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


@pytest.mark.parametrize(
    ("raised", "told"),
    [(TwoWords("no", "room"), "TwoWords: no room"), (SystemExit("enough"), "SystemExit: enough")],
)
def test_errors_that_pass_no_pipe_are_told(raised: BaseException, told: str) -> None:
    def fails(requests: Sequence[Said]) -> Iterator[tuple[Said, Answer]]:
        yield requests[0], Answer(requests[0].id)
        raise raised

    with pytest.raises(ChildProcessError, match=told) as error:
        list(answered(fails, ASKED, 2))
    assert "in fails" in error.value.__notes__[0]


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_where_the_first_is_killed(tmp_path: Path, by: signal.Signals) -> None:
    def is_slow(requests: Sequence[Said]) -> Iterator[tuple[Said, Answer]]:
        (tmp_path / str(os.getpid())).touch()
        for request in requests * 1000:
            time.sleep(0.01)
            yield request, Answer("word " * 1000)

    context = multiprocessing.get_context("fork")
    first = context.Process(target=lambda: list(answered(is_slow, ASKED, 2)))
    first.start()
    _wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(first.pid or 0, by)
    first.join()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    _wait_until(lambda: not any(_runs(pid) for pid in pids))


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
