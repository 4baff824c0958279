"""Measure a server: one client against many, the memory, /health meanwhile, seeds, turns of a
conversation, and how soon a drawing is seen.

    python tests/benchmarks/serving.py --clients 32 --seconds 300
    python tests/benchmarks/serving.py --only turns --times 10

Many clients ask for images, words about images and edits in turns; every answer is compared with
what the same request gave alone. Before that, and alone: conversations of ten drawings, whose tenth
turn should cost what the second did, each word being as often the one as the other; and streams,
whose first partial image should come when the model alone, without a server, has a quarter of the
codes. Prints Markdown. Other processes of the machine are in the times of the clock, and not in
those of the processor. The server gets --batch CLIENTS, and no limit of requests a minute.
"""

import argparse
import hashlib
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.extend(map(str, Path(__file__).resolve().parents[2:0:-1]))  # launched by its path
from api_server import CHAT, EDITS, IMAGES, Served, data_url, png

import unimodal
from unimodal.document import Document, Text
from unimodal.events import ImageProgress
from unimodal.generation import stream
from unimodal.model import Model

KINDS = 12  # different requests
TURNS = 10  # of a conversation
CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the time that all threads of a process have run
PARTS = ("turns", "seen", "crowd")
DRAWN = "draw a red circle"
ADDED = "add a green star", "remove the green star"
OTHERS = (
    "draw a red circle", "draw two blue stars", "draw a green ring", "draw a pink heart",
    "draw three black squares", "draw a white cross", "draw a yellow star and a blue ring",
    "draw an orange triangle", "draw two purple diamonds", "draw a brown heart",
)  # fmt: skip
TALKS = {  # what the conversation of a seed says
    "one thing recoloured": lambda seed: (DRAWN, "make it blue") * (TURNS // 2),
    "a thing added and removed": lambda seed: (DRAWN, *ADDED * (TURNS // 2))[:TURNS],
    "ten other drawings": lambda seed: OTHERS[seed % TURNS :] + OTHERS[: seed % TURNS],
}
PARTIAL_IMAGES = 3  # and the whole one: each comes a quarter later
Asked = tuple[str, dict[str, Any]]


def request(number: int) -> Asked:
    """One of KINDS requests."""
    shown = data_url(png(seed=number % 3))
    if number % 4 == 1:
        content = [{"type": "image_url", "image_url": {"url": shown}},
                   {"type": "text", "text": "what do you see?"}]  # fmt: skip
        return CHAT, {"messages": [{"role": "user", "content": content}], "seed": number}
    if number % 4 == 3:
        return EDITS, {"prompt": "make it blue", "image": shown, "seed": number}
    return IMAGES, {"prompt": f"draw {number % 3 + 1} red circles", "seed": number}


def answered(served: Served, asked: Asked) -> tuple[str, int]:
    """The SHA-256 of an answer's words and images, and how many images they are."""
    status, body = served.ask(*asked)
    assert status == 200, body
    images = [one["b64_json"] for one in body.get("data", ())]
    words = [one["message"]["content"] for one in body.get("choices", ())]
    return hashlib.sha256(json.dumps([images, words]).encode()).hexdigest(), len(images)


def resident_bytes(process: int) -> int:
    """The memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def processor_s(process: int) -> float:
    """The seconds that a process has had of processors."""
    return time.clock_gettime((~process << 3) | CPUCLOCK_SCHED)


def turn_costs(served: Served, process: int, seed: int, talk: Sequence[str]) -> list[float]:
    """The processor's seconds of each turn of a conversation of drawings, sent whole each time."""
    messages: list[dict[str, Any]] = []
    costs = []
    for words in talk:
        messages.append({"role": "user", "content": words})
        before = processor_s(process)
        body = {"messages": messages, "modalities": ["image"], "seed": seed}
        status, answer = served.ask(CHAT, body)
        assert status == 200, answer
        costs.append(processor_s(process) - before)
        messages.append(answer["choices"][0]["message"])
    return costs


def seen_after_s(served: Served, seed: int) -> tuple[float, float]:
    """The seconds to the first of three partial images of a drawing, and to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    body = {"prompt": DRAWN, "seed": seed, "stream": True, "partial_images": PARTIAL_IMAGES}
    start = time.monotonic()
    connection.request("POST", IMAGES, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    first = next(time.monotonic() for line in answer if b"partial_image" in line)
    answer.read()
    connection.close()
    return first - start, time.monotonic() - start


def quarter_s(model: Model, seed: int) -> float:
    """The seconds in which the model alone has a quarter of the codes of the same drawing."""
    document = Document((Text(DRAWN, role="user"),))
    start = time.monotonic()
    for event in stream(model, [document], replace(model.sampling, seed=seed), "image"):
        if isinstance(event, ImageProgress) and event.done * (PARTIAL_IMAGES + 1) >= event.total:
            return time.monotonic() - start
    raise AssertionError("the drawing ended before its first quarter")


def measure_turns(served: Served, process: int, times: int) -> None:
    """Print what turns of so many conversations of each kind cost: medians, and of ten other
    drawings means, since each drawing costs something else.
    """
    print("| conversations | turn 2, CPU s | turn 10 | ratio |\n| --- | --- | --- | --- |")
    for kind, talk in TALKS.items():
        costs = [turn_costs(served, process, seed, talk(seed)) for seed in range(times)]
        chosen = statistics.mean if talk(0) != talk(1) else statistics.median
        second, last = (chosen(one[turn - 1] for one in costs) for turn in (2, TURNS))
        print(f"| {kind} ({times}) | {second:.3f} | {last:.3f} | {last / second:.2f} |", flush=True)
    print()


def measure_seen(served: Served, times: int) -> None:
    """Print how soon a drawing is seen."""
    model = unimodal.load()
    quarter_s(model, 0)  # the first one prepares
    seen = [(*seen_after_s(served, seed), quarter_s(model, seed)) for seed in range(times)]
    ratio = statistics.median(first / alone for first, _, alone in seen)
    first_s, whole_s, alone_s = map(statistics.median, zip(*seen, strict=True))
    print(f"The first partial image came after {first_s:.3f} s of {whole_s:.3f}, {ratio:.2f} times"
          f" the {alone_s:.3f} s that the model alone takes for the plan and a quarter of the codes"
          f" (medians of {len(seen)}).\n")  # fmt: skip


class Crowd:
    """Clients that ask until a time."""

    def __init__(self, served: Served, expected: list[str], until: float) -> None:
        self._served, self._expected, self._until = served, expected, until
        self._lock = threading.Lock()
        self.num_answers = self.num_images = self.num_others = 0
        self.errors: list[str] = []

    def ask(self, first: int) -> None:
        """Be one client."""
        number = first
        while time.monotonic() < self._until:
            number += 1
            try:
                digest, num_images = answered(self._served, request(number % KINDS))
            except (AssertionError, OSError) as error:
                self.errors.append(repr(error))
                continue
            with self._lock:
                self.num_answers += 1
                self.num_images += num_images
                self.num_others += digest != self._expected[number % KINDS]

    def run(self, clients: int) -> None:
        """Ask with so many clients."""
        threads = [threading.Thread(target=self.ask, args=(7 * k,)) for k in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main() -> None:
    """Start the command, measure, and stop it."""
    options = argparse.ArgumentParser()
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--only", action="append", choices=PARTS, help="may be given repeatedly")
    options.add_argument("--times", type=int, default=10, help="of conversations and streams")
    given = options.parse_args()
    parts = given.only or PARTS
    command = subprocess.Popen(
        [sys.executable, "-m", "unimodal", "serve", "--port", "0", "--requests-a-minute", "1000000",
         "--batch", str(given.clients)], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert command.stdout is not None
    line = command.stdout.readline()
    served = Served(None, int(line.split(":")[2].split("/")[0]))  # type: ignore[arg-type]
    try:
        if "turns" in parts:
            measure_turns(served, command.pid, given.times)
        if "seen" in parts:
            measure_seen(served, given.times)
        if "crowd" in parts:
            measure_crowd(served, command.pid, given.clients, given.seconds)
    finally:
        command.terminate()
        command.wait()


def measure_crowd(served: Served, process: int, clients: int, seconds: float) -> None:
    """Print the table."""
    expected = [answered(served, request(number))[0] for number in range(KINDS)]
    alone = Crowd(served, expected, time.monotonic() + seconds / 3)
    alone.run(1)
    per_s = alone.num_answers / (seconds / 3)
    many = Crowd(served, expected, time.monotonic() + seconds)
    working = threading.Thread(target=many.run, args=(clients,))
    working.start()
    health, memory, start = [], [], time.monotonic()
    while working.is_alive():
        before = time.monotonic()
        served.get("/health")
        health.append(time.monotonic() - before)
        memory.append((before - start, resident_bytes(process)))
        time.sleep(0.2)
    took = time.monotonic() - start
    later = [size for at, size in memory if at > seconds / 5]
    print("| clients | answers | a second | errors | others than alone |")
    print("| --- | --- | --- | --- | --- |")
    print(f"| 1 | {alone.num_answers} | {per_s:.2f} | {len(alone.errors)} | {alone.num_others} |")
    rate = many.num_answers / took
    print(f"| {clients} | {many.num_answers} | {rate:.2f} | {len(many.errors)} |"
          f" {many.num_others} |")  # fmt: skip
    print(f"\n/health: median {sorted(health)[len(health) // 2] * 1e3:.0f} ms, worst"
          f" {max(health) * 1e3:.0f} ms, of {len(health)}.")  # fmt: skip
    print(f"Memory after a fifth of the time: {min(later) / 2**20:.0f} to"
          f" {max(later) / 2**20:.0f} MiB.")  # fmt: skip
    print("\n".join(sorted(set(many.errors))[:5]))


if __name__ == "__main__":
    main()
