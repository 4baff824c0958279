"""A run over several hosts: network namespaces of this machine, joined by a virtual switch.

`make two-hosts` and `make four-hosts` (they need root and `ip`): one torchrun in each namespace,
ZeRO-3, a few steps; the losses must be those of a single process within 1e-5. Says
`skipped: REASON` where it cannot be.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from launching import environment, tiny_run
from tiny_runs import metrics

NUM_STEPS, LIMIT_S, TOLERANCE, PORT = 4, 240, 1e-5, 29400
SWITCH, BRIDGE, CABLE = "unimodal-switch", "bridge0", "cable0"  # CABLE: its end at a host


def host_name(number: int) -> str:
    """The namespace of a host."""
    return f"unimodal-{number}"


def address(number: int) -> str:
    """The address of a host, seen by no other network."""
    return f"10.231.7.{number + 1}"


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
def switched(count: int) -> Iterator[None]:
    """So many namespaces, and the switch between them, which are gone afterwards with all that
    runs in them.
    """
    names = [SWITCH, *map(host_name, range(count))]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", SWITCH, "link", "add", BRIDGE, "type", "bridge")
        ip("-n", SWITCH, "link", "set", BRIDGE, "up")
        for number in range(count):
            plug_in(host_name(number), address(number), f"port{number}")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def plug_in(host: str, address: str, port: str) -> None:
    """Join a host to the switch by a cable."""
    ends = ["name", CABLE, "netns", host, "type", "veth", "peer", "name", port, "netns", SWITCH]
    ip("link", "add", *ends)
    ip("-n", SWITCH, "link", "set", port, "master", BRIDGE, "up")
    ip("-n", host, "address", "add", f"{address}/24", "dev", CABLE)
    ip("-n", host, "link", "set", CABLE, "up")
    ip("-n", host, "link", "set", "lo", "up")


def over_hosts(config: Path, count: int) -> None:
    """Train with a rank on each."""
    started = []
    for number in range(count):
        command = [
            "ip", "netns", "exec", host_name(number), sys.executable, "-m", "torch.distributed.run",
            "--nnodes", str(count), "--node-rank", str(number), "--nproc-per-node", "1",
            "--master-addr", address(0), "--master-port", str(PORT),
            "-m", "unimodal.train", "lm", str(config), rows(count),
        ]  # fmt: skip
        started.append(subprocess.Popen(command, env=environment(GLOO_SOCKET_IFNAME=CABLE)))
    try:
        statuses = [one.wait(LIMIT_S) for one in started]
    finally:
        for one in started:
            one.kill()
    assert not any(statuses), f"the hosts ended with {statuses}"


def rows(count: int) -> str:
    """Two rows a step, or as many as there are ranks."""
    return f"loader.batch_rows={max(2, count)}"


def alone(config: Path, output: Path, count: int) -> None:
    """The same in one process."""
    words = [rows(count), "engine.deepspeed=null", f"output={output / 'run'}"]
    command = [sys.executable, "-m", "unimodal.train", "lm", str(config), *words]
    subprocess.run(command, env=environment(), check=True, timeout=LIMIT_S)


def main(words: Sequence[str]) -> None:
    """Run over so many hosts and alone, and compare."""
    count = int(words[0]) if words else 2
    if reason := obstacle():
        print(f"skipped: {reason}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = tiny_run(folder, NUM_STEPS)
        with switched(count):
            over_hosts(config, count)
        (folder / "alone").mkdir()
        alone(config, folder / "alone", count)
        ours, expected = metrics(folder / "run"), metrics(folder / "alone" / "run")
    assert len(ours) == len(expected) == NUM_STEPS
    names = ("loss", "loss_text", "loss_image", "gradient_norm")
    for one, other in zip(ours, expected, strict=True):
        for name in names:
            differs = abs(one[name] - other[name])
            assert differs <= TOLERANCE * max(1, abs(other[name])), (one["step"], name, differs)
    worst = max(abs(one["loss"] - other["loss"]) for one, other in zip(ours, expected, strict=True))
    print(f"{NUM_STEPS} steps over {count} hosts: losses differ by at most {worst:.1e}")


if __name__ == "__main__":
    main(sys.argv[1:])
