"""The ways to launch a run of several ranks, each for real, with two ranks on the CPU."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("deepspeed") is None:
    pytest.skip("deepspeed is not installed: the extra `train`", allow_module_level=True)

from launching import ROOT, environment, tiny_run
from tiny_runs import metrics

LIMIT_S = 240
BIN = Path(sys.executable).parent

# SLURM's own programs, as far as the script needs them: tasks on this machine.
SRUN = """#!{python}
import os, signal, subprocess, sys
words = sys.argv[1:]
count = int(os.environ["SLURM_NTASKS"])
while words[0].startswith("--"):
    name, _, value = words.pop(0).partition("=")
    assert name in ("--ntasks", "--ntasks-per-node", "--kill-on-bad-exit", "--wait"), name
    count = int(value) if name == "--ntasks" else count
tasks = []
for rank in range(count):
    own = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}}
    tasks.append(subprocess.Popen(words, env={{**os.environ, **own}}))
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$SCONTROL_LOG"
if [ "$1" = show ]; then echo localhost; echo other; fi
"""


def until(there: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for something that a running process brings about."""
    started = time.monotonic()
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - started < LIMIT_S, "it takes too long"
        time.sleep(0.05)


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Start the script as a job of two tasks."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def start(*words: str, **more: str) -> subprocess.Popen:
        job = {
            "PATH": f"{programs}:{os.environ['PATH']}", "PYTHON": sys.executable,
            "SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
            "SLURM_JOB_NODELIST": "localhost,other", "SCONTROL_LOG": str(tmp_path / "scontrol"),
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", ROOT / "configs" / "slurm.sh", *words],
            cwd=tmp_path, env=environment(**(job | more)), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    return start


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on(tmp_path: Path, slurm: Callable[..., subprocess.Popen]):
    """SIGTERM: both tasks save, 75 puts the job back into the queue, and the next one finishes."""
    config = tiny_run(tmp_path, num_steps=5000)
    job = slurm("lm", str(config))
    until(lambda: len(metrics(tmp_path / "run")) >= 3, job)
    job.send_signal(signal.SIGTERM)
    said = "".join(job.communicate(timeout=LIMIT_S))
    assert job.returncode == 75, said
    done = len(metrics(tmp_path / "run"))
    assert (tmp_path / "run" / f"step_{done:08d}").is_dir()
    asked = (tmp_path / "scontrol").read_text().splitlines()
    assert asked == ["show hostnames localhost,other", f"requeue {os.getpid()}"]
    job = slurm("lm", str(config), f"schedule.num_steps={done + 2}", SLURM_RESTART_COUNT="1")
    said = "".join(job.communicate(timeout=LIMIT_S))
    assert job.returncode == 0, said
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(done + 2))
    assert "requeue" not in (tmp_path / "scontrol").read_text().splitlines()[-1]
    assert (tmp_path / "run" / "bundle" / "model.safetensors").exists()


def test_a_job_that_fails_is_not_put_back(tmp_path: Path, slurm: Callable[..., subprocess.Popen]):
    job = slurm("lm", str(tmp_path / "missing.yaml"))
    said = "".join(job.communicate(timeout=LIMIT_S))
    assert job.returncode == 2, said
    assert "requeue" not in (tmp_path / "scontrol").read_text()


def test_a_job_is_not_put_back_for_ever(tmp_path: Path, slurm: Callable[..., subprocess.Popen]):
    """A task that always ends with 75."""
    task = tmp_path / "task"
    task.write_text("#!/bin/bash\nexit 75\n")
    task.chmod(0o755)
    job = slurm("lm", "config", PYTHON=str(task), SLURM_RESTART_COUNT="3", MAX_RESTARTS="3")
    said = "".join(job.communicate(timeout=LIMIT_S))
    assert job.returncode == 75 and "not once more" in said
    assert "requeue" not in (tmp_path / "scontrol").read_text()


def test_the_script_is_sound():
    """shellcheck, where it is installed, and bash's own reading."""
    script = ROOT / "configs" / "slurm.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_container_file_copies_what_is_there():
    """And names no registry: its base is an official image."""
    text = (ROOT / "configs" / "Containerfile").read_text()
    copied = [
        word for line in re.findall(r"^COPY (.*) ", text, re.MULTILINE) for word in line.split()
    ]
    assert len(copied) >= 10 and [name for name in copied if not (ROOT / name).exists()] == []
    assert re.findall(r"^FROM (.*)$", text, re.MULTILINE) == ["python:3.11-slim"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        [str(BIN / "torchrun"), "--nproc-per-node", "2", "--standalone", "-m", "unimodal.train"],
        [str(BIN / "deepspeed"), "--num_gpus", "2", "--module", "unimodal.train"],
    ],
    ids=["torchrun", "deepspeed"],
)
def test_a_launcher(tmp_path: Path, launcher: list[str]):
    """Both ranks train, and one bundle is there at the end."""
    config = tiny_run(tmp_path, num_steps=3)
    path = f"{BIN}:{os.environ['PATH']}"
    done = subprocess.run(
        [*launcher, "lm", str(config)], cwd=tmp_path, env=environment(PATH=path),
        capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line["step"] for line in metrics(tmp_path / "run")] == [0, 1, 2]
    assert len(list((tmp_path / "run").glob("step_*/rank_*_of_00002.safetensors"))) == 2
    assert str(tmp_path / "run" / "bundle") in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_hosts(count: int):
    """Namespaces of this machine; needs root."""
    command = [sys.executable, ROOT / "tests" / "hosts.py", str(count)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout)
    assert f"4 steps over {count} hosts" in done.stdout


@pytest.mark.slow
def test_a_rank_that_waits_for_another_for_ever_ends(tmp_path: Path):
    """Rank 1 is frozen in the middle: rank 0 ends by itself, and its stacks say where it waited."""
    hang_s = 20
    config = tiny_run(tmp_path, num_steps=5000)
    ranks = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000)}
        words = ["-m", "unimodal.train", "lm", str(config), f"loop.hang_s={hang_s}"]
        ranks.append(subprocess.Popen(
            [sys.executable, *words], env=environment(**place), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
    first, second = ranks
    try:
        until(lambda: len(metrics(tmp_path / "run")) >= 3, first)
        second.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        first.communicate(timeout=LIMIT_S)
        assert time.monotonic() - stopped < 2 * hang_s
    finally:
        for one in ranks:
            one.kill()
            one.communicate()
    assert first.returncode == 1
    stacks = (tmp_path / "run" / "stacks_0.txt").read_text()
    assert stacks.startswith("Timeout") and "distributed" in stacks and "loop.py" in stacks


@pytest.mark.slow
def test_one_rank_that_cannot_save_ends_all_with_one_message(tmp_path: Path):
    config = tiny_run(tmp_path, num_steps=30)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "step_00000002").touch()  # rank 0 cannot name its directory so
    command = [
        BIN / "torchrun", "--nproc-per-node", "2", "--standalone",
        "-m", "unimodal.train", "lm", config, "loop.save_every_steps=2",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode != 0
    assert done.stderr.count("the checkpoint of step 2 cannot be written") == 1, done.stderr
    assert "[rank1]" not in done.stderr, "no traceback of the other"
