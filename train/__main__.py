"""What launchers start, once for each rank: `torchrun -m unimodal.train lm CONFIG`, `deepspeed
--module unimodal.train lm CONFIG`, or `python -m unimodal.train lm CONFIG` with RANK, WORLD_SIZE
and LOCAL_RANK set.
"""

import sys

import torch.distributed as dist

from unimodal.command import main

if __name__ == "__main__":
    # The launcher of deepspeed says by an option, too, what LOCAL_RANK says.
    words = ["train", *(word for word in sys.argv[1:] if not word.startswith("--local_rank"))]
    try:
        main(words)
    except SystemExit as end:
        # Its threads are joined here: a process that leaves them to its exit may abort in it. One
        # that failed does not wait for others that may wait for it.
        if not end.code and dist.is_initialized():
            dist.destroy_process_group()
        raise
