"""How many threads compute a step, and how they wait: by size, neighbours and the user's word."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unimodal import threads
from unimodal.chat import Chat
from unimodal.document import Document, Image, Text
from unimodal.generation import Generation
from unimodal.model import Model
from unimodal.train.loop import LoopConfig, fit_threads

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch has two threads, and the environment does not say so."""
    for name in threads.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def counted(
    model: Model, monkeypatch: pytest.MonkeyPatch, small: int | None = None
) -> list[tuple[int, int]]:
    """Return a list to which each forward adds its tokens and the number of threads then.

    small: forwards of fewer tokens than this are small; None: as ever.
    """
    if small is not None:
        weights = sum(one.numel() for one in model.transformer.parameters())
        monkeypatch.setattr(threads, "SMALL_FLOPS", 2 * weights * small)
        monkeypatch.setattr(threads, "SMALL_ONCE_FLOPS", 2 * weights * small)
    seen: list[tuple[int, int]] = []
    forward = type(model.transformer).hidden_states

    def noted(self: torch.nn.Module, given, *others):  # type: ignore[no-untyped-def]
        seen.append((given.ids.numel(), torch.get_num_threads()))
        return forward(self, given, *others)

    monkeypatch.setattr(type(model.transformer), "hidden_states", noted)
    return seen


def test_one_thread_draws_and_all_read_what_is_long(
    drawing_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(drawing_model, monkeypatch, small=20)
    Chat(drawing_model)("draw " + "o" * 30)
    (prompt, of_prompt), *steps = seen
    assert prompt > 30 and of_prompt == 2
    assert len(steps) > 5 and {number for _, number in steps} == {1}
    assert torch.get_num_threads() == 2, "the caller's are back"


def test_many_requests_at_once_are_a_large_step(
    drawing_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(drawing_model, monkeypatch, small=4)
    generation = Generation(drawing_model)
    for _ in range(4):
        generation.submit(Document((Text("draw", role="user"),)))
    list(generation.run())
    assert {number for tokens, number in seen if tokens >= 4} == {2}
    seen.clear()
    generation.submit(Document((Text("draw", role="user"),)))
    list(generation.run())
    assert {number for tokens, number in seen if tokens < 4} == {1}


def test_the_sizes_that_were_measured() -> None:
    """Of the shipped model: 6.2 M weights, two branches of guidance, 1 and 32 drawings."""
    assert threads.is_small(2 * 6.2e6 * 4), "a row of one image ends"
    assert not threads.is_small(2 * 6.2e6 * 2 * 32)
    assert threads.is_small(2 * 6.2e6 * 30, once=True) and not threads.is_small(2 * 6.2e6 * 30)


def test_one_image_is_decoded_by_one_thread_and_many_by_all(
    drawing_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    decode = type(drawing_model.image_tokenizer).decode

    def noted(*given):  # type: ignore[no-untyped-def]
        seen.append(torch.get_num_threads())
        return decode(*given)

    monkeypatch.setattr(type(drawing_model.image_tokenizer), "decode", noted)
    weights = sum(one.numel() for one in drawing_model.image_tokenizer.parameters())
    drawn = Chat(drawing_model)("draw").parts[-1]
    assert isinstance(drawn, Image) and drawn.grid is not None
    monkeypatch.setattr(threads, "SMALL_ONCE_FLOPS", 2 * weights * drawn.grid.size * 2)
    bare = replace(drawn, pixels=None)
    drawing_model.codec.decode([bare])
    drawing_model.codec.decode([bare, bare])
    assert seen[-2:] == [1, 2]


def test_an_error_gives_the_threads_back() -> None:
    with pytest.raises(KeyError), threads.enough_threads(1):
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2


def test_the_environments_number_is_kept(
    drawing_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    seen = counted(drawing_model, monkeypatch)
    Chat(drawing_model)("draw")
    fit_threads(LoopConfig(), drawing_model.transformer, 1)
    assert {number for _, number in seen} == {2} == {torch.get_num_threads()}


def test_training_chooses_by_size_and_the_config_is_kept() -> None:
    model = torch.nn.Linear(1000, 1000)  # 6 operations a weight and token
    fit_threads(LoopConfig(), model, 10)
    assert torch.get_num_threads() == 2
    fit_threads(LoopConfig(num_threads=2), model, 9)
    assert torch.get_num_threads() == 2
    fit_threads(LoopConfig(), model, 9)
    assert torch.get_num_threads() == 1


# --- waiting ------------------------------------------------------------------------------------


def chosen(environment: dict[str, str], before: str = "") -> str:
    """Return OMP_WAIT_POLICY of a process that imports unimodal."""
    code = f"{before}\nimport os, unimodal; print(os.environ.get('OMP_WAIT_POLICY'))"
    kept = {name: value for name, value in os.environ.items() if name not in threads.CHOSEN}
    env = {**kept, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(not threads.STAT.exists(), reason="no /proc/stat on this system")
def test_beside_neighbours_threads_sleep_and_the_users_choice_is_kept() -> None:
    busy = [
        subprocess.Popen(["nice", "-n", "10", sys.executable, "-c", "while True: pass"])
        for _ in range(2)
    ]
    try:
        assert chosen({}) == "PASSIVE"
        assert chosen({"OMP_WAIT_POLICY": "ACTIVE"}) == "ACTIVE"
        assert chosen({"OMP_NUM_THREADS": "2"}) == "None"
        assert chosen({"GOMP_SPINCOUNT": "1000"}) == "None"
        assert chosen({}, "import sys; sys.modules['torch'] = sys") == "None", "too late"
    finally:
        for one in busy:
            one.kill()
            one.wait()


def test_neighbours_are_counted_without_this_thread(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    for number in (1, 3):
        stat.write_text(f"cpu 1 2 3\nctxt 99\nprocs_running {number}\nprocs_blocked 7\n")
        assert threads.neighbours(stat) == number - 1
    stat.write_text("cpu 1 2 3\n")
    assert threads.neighbours(stat) == 0
    assert threads.neighbours(tmp_path / "none") == 0


def test_a_burst_of_a_few_milliseconds_is_no_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    at_work = iter([1, 1, 4, 4, 3, 1, 1, 1, 2, 3, 2, 2, 1, 1, 1])

    def look(_seconds: float) -> None:
        stat.write_text(f"procs_running {next(at_work)}\n")

    monkeypatch.setattr(threads.time, "sleep", look)
    assert threads.neighbours(stat) == 0
    at_work = iter([2, 1, 2, 3, 2, 1, 2, 2, 1, 2, 2, 2, 1, 2, 2])
    assert threads.neighbours(stat) == 1, "somebody at work pauses at times"


def test_alone_threads_go_on_spinning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")  # as before it is loaded
    stat = tmp_path / "stat"
    stat.write_text("procs_running 1\n")
    threads.sleep_beside_neighbours(stat)
    assert threads.WAITING not in os.environ
    stat.write_text("procs_running 2\n")
    threads.sleep_beside_neighbours(stat)
    assert os.environ[threads.WAITING] == "PASSIVE"
    monkeypatch.delenv(threads.WAITING)


def test_numpy_is_left_with_one_thread_unless_it_was_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (threads.NUM_THREADS, threads.NUMPY_THREADS):
        monkeypatch.delenv(name, raising=False)
    threads.keep_numpy_to_one_thread()
    assert threads.NUMPY_THREADS not in os.environ, "NumPy is loaded here: too late"
    monkeypatch.delitem(sys.modules, "numpy")
    threads.keep_numpy_to_one_thread()
    assert os.environ[threads.NUMPY_THREADS] == "1"
    monkeypatch.setenv(threads.NUMPY_THREADS, "3")
    threads.keep_numpy_to_one_thread()
    assert os.environ[threads.NUMPY_THREADS] == "3"
