"""A pair of ranks on this machine that lasts for all tests, for it takes seconds to launch one.

`torchrun --nproc-per-node 2 tests/pair.py FOLDER` does what FOLDER/call_0.json, call_1.json, ...
say, in order, and ends at FOLDER/stop. A call is a function of a module in tests/ and its
arguments; both ranks call it with their Ranks on top, and what it returns on rank 0 is the answer.
"""

import faulthandler
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import torch.distributed as dist

from unimodal.train.ranks import Ranks, connect

LIMIT_S = 120  # of a call; a rank that hangs ends with its stacks
POLL_S = 0.01


class Pair:
    """Two processes that call functions together, launched when they are first needed."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.root, self.environment = folder, environment
        self.launches = self.calls = 0
        self.process: subprocess.Popen | None = None

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `function(*arguments, ranks)` gives on rank 0; a failure ends the pair, and
        the next call launches another one.
        """
        if self.process is None:
            self._launch()
        assert self.process is not None
        call = {"function": [function.__module__, function.__name__], "arguments": arguments}
        answers = [self.folder / f"answer_{self.calls}_{rank}.json" for rank in range(2)]
        _write(self.folder / f"call_{self.calls}.json", call)
        self.calls += 1
        while not all(answer.exists() for answer in answers):
            if self.process.poll() is not None:
                self.process = None
                raise AssertionError((self.folder / "log").read_text()[-5000:])
            time.sleep(POLL_S)
        return json.loads(answers[0].read_text())

    def stop(self) -> None:
        """End both processes."""
        if self.process is not None:
            (self.folder / "stop").touch()
            assert self.process.wait(LIMIT_S) == 0, (self.folder / "log").read_text()[-5000:]

    def _launch(self) -> None:
        self.folder = self.root / f"launch_{self.launches}"
        self.folder.mkdir()
        self.launches, self.calls = self.launches + 1, 0
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
            __file__, str(self.folder),
        ]  # fmt: skip
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )


def serve(folder: Path) -> None:
    """Answer calls, as one of the ranks."""
    import counting

    counting.watch()  # before DeepSpeed takes hold of the collectives
    ranks = connect(LIMIT_S)
    for number in count():
        call = folder / f"call_{number}.json"
        while not call.exists():
            if (folder / "stop").exists():
                dist.destroy_process_group()
                return
            time.sleep(POLL_S)
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        answer = _answer(json.loads(call.read_text()), ranks)
        faulthandler.cancel_dump_traceback_later()
        _write(folder / f"answer_{number}_{ranks.rank}.json", answer)


def _answer(call: dict[str, Any], ranks: Ranks) -> Any:
    module, name = call["function"]
    return getattr(import_module(module), name)(*call["arguments"], ranks)


def _write(path: Path, value: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    os.replace(part, path)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
