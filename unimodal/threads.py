"""Threads: how many compute a step on the CPU, and how they wait for one another.

Torch's threads (OpenMP's) meet after every operation, and who comes first spins until the others
are there. Where other processes want the same cores, the last one may be without a core for
milliseconds, at each of a reply's ten thousand operations.

1. A small step is computed by one thread, for which nobody waits. Size alone decides, never who
   else is running: another number of threads may add up in another order, and a seed or a resumed
   run would then not give the same bits.
2. Where other processes are running when torch is about to be loaded, its threads sleep while they
   wait instead of spinning: large steps are then computed by all of them, with the same bits.
3. Each thread that computes has OpenMP threads of its own. Where all of them are more than the
   cores, none spins any longer, and each operation of a drawing waits until a core is awake: a
   server's thread loads its model alone, so that those of the serving loop are the only ones.
4. NumPy's products (OpenBLAS's) are computed by one thread: they are small here, a picture's rows,
   and a second thread would spin for a tenth of a second after each.

OMP_NUM_THREADS takes all choices back, OMP_WAIT_POLICY (or GOMP_SPINCOUNT) the second one and
OPENBLAS_NUM_THREADS the last.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

NUM_THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
NUMPY_THREADS = "OPENBLAS_NUM_THREADS"  # read once, as NumPy is loaded
CHOSEN = (NUM_THREADS, WAITING, "GOMP_SPINCOUNT")  # read by OpenMP once, as torch is loaded
# Two quiet cores draw one image with guidance (6.2 M parameters; 25 MFLOP a step, 50 where a row of
# it ends) in 0.23 s with one thread and 0.24 with two; 32 images (800 MFLOP a step) take 1.9 and
# 1.2 s. Linear in between, both are about as fast at two images.
SMALL_FLOPS = 6e7
# What comes once a reply (reading a prompt, encoding or decoding an image) may take one thread some
# milliseconds more; all threads lose more than that as soon as one core is wanted elsewhere.
SMALL_ONCE_FLOPS = 4e8
STAT = Path("/proc/stat")
# A machine at rest has bursts of some 5 ms in which other threads run. Taken for neighbours, they
# would make hours of training 1.7 times slower, so half of the looks must see somebody.
LOOKS, LOOK_S = 15, 0.004


def sleep_beside_neighbours(stat: Path = STAT) -> None:
    """Choose, for this process and those that it starts, that threads sleep while they wait, where
    others leave too few cores for all of them. Nothing changes once torch is loaded, or where the
    environment has a choice already.
    """
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN):
        return
    if neighbours(stat) > 0:
        os.environ[WAITING] = "PASSIVE"


def keep_numpy_to_one_thread() -> None:
    """Choose, for this process and those that it starts, one thread for NumPy's products. Nothing
    changes once NumPy is loaded, or where the environment has a choice already.
    """
    if "numpy" not in sys.modules and not {NUM_THREADS, NUMPY_THREADS} & os.environ.keys():
        os.environ[NUMPY_THREADS] = "1"


def neighbours(stat: Path = STAT) -> int:
    """Return how many other threads of this machine are running or wait for a core, the median of
    some looks within 60 ms; 0 where the system does not tell.
    """
    try:
        looks = []
        for _ in range(LOOKS):
            time.sleep(LOOK_S)
            looks.append(_num_running(stat.read_text()))
    except OSError:  # no Linux
        return 0
    return sorted(looks)[LOOKS // 2] - 1


def _num_running(text: str) -> int:
    """Return the number in the line `procs_running N`, this thread included; 1 without it."""
    found = (line.split() for line in text.splitlines() if line.startswith("procs_running "))
    return int(next(found, ("", "1"))[1])


def is_small(flops: float, once: bool = False) -> bool:
    """Return whether one thread is to compute a step of so many operations; False where
    OMP_NUM_THREADS says how many do. `once`: no more steps of this kind follow.
    """
    return flops < (SMALL_ONCE_FLOPS if once else SMALL_FLOPS) and NUM_THREADS not in os.environ


def enough_threads(flops: float, once: bool = False) -> AbstractContextManager[None]:
    """Let a step of so many operations be computed by one thread where it is small, else by as many
    as torch has (see `is_small`).
    """
    return one_thread() if is_small(flops, once) else nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread: sums do not depend on the number of cores."""
    import torch  # not at the top: what this file chooses is chosen before

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
