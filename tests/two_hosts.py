"""A run over two hosts: two network namespaces of this machine, joined by a virtual cable.

`make two-hosts` (needs root and `ip`): one torchrun in each namespace, ZeRO-3, a few steps; the
losses must be those of a single process within 1e-5. Says `skipped: REASON` where it cannot be.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launching import environment, tiny_run
from tiny_runs import metrics

NUM_STEPS, LIMIT_S, TOLERANCE, PORT = 4, 240, 1e-5, 29400
HOSTS = {"unimodal-a": "10.231.7.1", "unimodal-b": "10.231.7.2"}  # seen by nobody else
CABLE = {"unimodal-a": "unimodal0", "unimodal-b": "unimodal1"}


def obstacle() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is not there"
    name = "unimodal-try"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode:
        return f"no network namespace can be made here: {done.stderr.strip()}"
    ip("netns", "delete", name)
    return None


def ip(*words: str) -> None:
    """Run `ip`; its own message where it fails."""
    subprocess.run(["ip", *words], check=True)


@contextmanager
def hosts() -> Iterator[None]:
    """Both namespaces, which are gone afterwards with all that runs in them."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        first, second = HOSTS
        ip("link", "add", CABLE[first], "type", "veth", "peer", "name", CABLE[second])
        for host, address in HOSTS.items():
            ip("link", "set", CABLE[host], "netns", host)
            ip("-n", host, "address", "add", f"{address}/30", "dev", CABLE[host])
            ip("-n", host, "link", "set", CABLE[host], "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], capture_output=True)


def over_two_hosts(config: Path) -> None:
    """Train with a rank on each."""
    first = next(iter(HOSTS.values()))
    started = []
    for number, host in enumerate(HOSTS):
        command = [
            "ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run",
            "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1",
            "--master-addr", first, "--master-port", str(PORT),
            "-m", "unimodal.train", "lm", str(config),
        ]  # fmt: skip
        started.append(subprocess.Popen(command, env=environment(GLOO_SOCKET_IFNAME=CABLE[host])))
    try:
        statuses = [one.wait(LIMIT_S) for one in started]
    finally:
        for one in started:
            one.kill()
    assert statuses == [0, 0], f"the hosts ended with {statuses}"


def alone(config: Path, output: Path) -> None:
    """The same in one process."""
    words = ["engine.deepspeed=null", f"output={output / 'run'}"]
    command = [sys.executable, "-m", "unimodal.train", "lm", str(config), *words]
    subprocess.run(command, env=environment(), check=True, timeout=LIMIT_S)


def main() -> None:
    """Run both and compare."""
    if reason := obstacle():
        print(f"skipped: {reason}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = tiny_run(folder, NUM_STEPS)
        with hosts():
            over_two_hosts(config)
        (folder / "alone").mkdir()
        alone(config, folder / "alone")
        ours, expected = metrics(folder / "run"), metrics(folder / "alone" / "run")
    assert len(ours) == len(expected) == NUM_STEPS
    names = ("loss", "loss_text", "loss_image", "gradient_norm")
    for one, other in zip(ours, expected, strict=True):
        for name in names:
            differs = abs(one[name] - other[name])
            assert differs <= TOLERANCE * max(1, abs(other[name])), (one["step"], name, differs)
    worst = max(abs(one["loss"] - other["loss"]) for one, other in zip(ours, expected, strict=True))
    print(f"{NUM_STEPS} steps over two hosts: losses differ by at most {worst:.1e}")


if __name__ == "__main__":
    main()
