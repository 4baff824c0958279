"""What launchers start, once for each rank: `torchrun -m unimodal.train lm CONFIG`, `deepspeed
--module unimodal.train lm CONFIG`, or `python -m unimodal.train lm CONFIG` with RANK, WORLD_SIZE
and LOCAL_RANK set.
"""

import sys

from unimodal.command import main

if __name__ == "__main__":
    # The launcher of deepspeed says by an option, too, what LOCAL_RANK says.
    main(["train", *(word for word in sys.argv[1:] if not word.startswith("--local_rank"))])
