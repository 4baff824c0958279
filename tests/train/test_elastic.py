"""A machine of a run is lost under torchrun, and those that are left go on by themselves."""

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("deepspeed") is None:
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from launching import environment, tiny_run
from tiny_runs import metrics

STEPS, BEFORE, LIMIT_S = 40, 6, 400
NAMES = ("loss", "loss_text", "loss_image", "gradient_norm")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def agent(config: Path, port: int, log: Path) -> subprocess.Popen:
    """torchrun as one machine of one or two starts it, with a rank of its own."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "1:2", "--nproc-per-node", "1",
        "--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-id", "elastic",
        "--rdzv-endpoint", f"localhost:{port}", "--rdzv-conf",
        "last_call_timeout=25,keep_alive_interval=1,keep_alive_max_attempt=3",
        "-m", "unimodal.train", "lm", str(config), "loop.save_every_steps=2",
    ]  # fmt: skip
    with log.open("w") as stream:
        return subprocess.Popen(
            command, env=environment(), stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def ranks_of(run: Path) -> list[int]:
    """How many ranks took each step; one alone waits for none."""
    return [len(line.get("data_waits_s", [0])) for line in metrics(run)]


def end(agent: subprocess.Popen) -> None:
    """Kill an agent and its ranks, as a machine ends that loses its power."""
    for group in {os.getpgid(process) for process in descendants(agent.pid)}:
        if group != os.getpgid(0):
            os.killpg(group, signal.SIGKILL)
    agent.wait()


def descendants(process: int) -> list[int]:
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in task.read_text().split():
            found += descendants(int(child))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc to find the ranks")
def test_one_of_two_machines_is_lost(tmp_path: Path):
    config, port = tiny_run(tmp_path, num_steps=STEPS), free_port()
    logs = [tmp_path / "log_0", tmp_path / "log_1"]
    first = agent(config, port, logs[0])  # holds the store where they meet
    time.sleep(3)
    second = agent(config, port, logs[1])
    try:
        started = time.monotonic()
        while len(metrics(tmp_path / "run")) < BEFORE:
            assert first.poll() is None and second.poll() is None, logs[0].read_text()[-5000:]
            assert time.monotonic() - started < LIMIT_S, logs[0].read_text()[-5000:]
            time.sleep(0.1)
        end(second)
        assert first.wait(LIMIT_S) == 0, logs[0].read_text()[-5000:]
    finally:
        for one in (first, second):
            if one.poll() is None:
                end(one)
    counts = ranks_of(tmp_path / "run")
    assert len(counts) == STEPS and counts == sorted(counts, reverse=True)
    assert counts[0] == 2 and counts[-1] == 1
    assert (tmp_path / "run" / "bundle" / "manifest.json").exists()
    alone = tmp_path / "alone"
    command = [
        sys.executable, "-m", "unimodal.train", "lm", str(config),
        "engine.deepspeed=null", f"output={alone}",
    ]  # fmt: skip
    subprocess.run(command, env=environment(), check=True, timeout=LIMIT_S)
    for one, other in zip(metrics(tmp_path / "run"), metrics(alone), strict=True):
        for name in NAMES:
            assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-5), one["step"]
