#!/bin/bash
# A run of many nodes under SLURM, one task for each GPU:
#
#   sbatch --nodes 8 configs/slurm.sh lm configs/lm_7b.yaml
#
# Start it in the repository's folder, on a file system that all nodes see. Five minutes before the
# time limit, and when the job is preempted, every task gets SIGTERM: the step in hand ends, a
# checkpoint is written, and the exit status 75 puts the job into the queue again, which then goes on
# from there. Another number of nodes goes on too, with the same rows: sbatch --nodes 4 ...
#
#SBATCH --job-name=unimodal
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%j.log

set -euo pipefail

GO_ON=75  # of a run that was asked to stop and has saved
MAX_RESTARTS=${MAX_RESTARTS:-100}
PYTHON=${PYTHON:-.venv/bin/python}

if [ $# -lt 2 ]; then
  echo "usage: sbatch --nodes N $0 lm CONFIG [OVERRIDES]" >&2
  exit 2
fi

# The first node is where the ranks meet. The port follows from the job: two jobs may share a node.
if [ -z "${MASTER_ADDR:-}" ]; then
  hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
  MASTER_ADDR=${hosts%%$'\n'*}
fi
export MASTER_ADDR
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
export WORLD_SIZE=$SLURM_NTASKS

# A NCCL operation that fails ends its process at once; how long ranks wait for one another is
# engine.timeout_s, and how long a step may take loop.hang_s (then stacks_RANK.txt says where it hung).
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1
# When a collective times out, each rank writes its last ones: who was where.
export TORCH_FR_BUFFER_SIZE=2000
export TORCH_NCCL_DUMP_ON_TIMEOUT=1
# Only what goes wrong is said; INFO shows which network NCCL has found.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
# The network that hosts meet on, where several are there: NCCL_SOCKET_IFNAME=ib0 (and
# GLOO_SOCKET_IFNAME, for small things on the CPU). NCCL takes InfiniBand by itself; NCCL_IB_HCA=mlx5
# keeps it to these cards.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # the loader has processes of its own
# Memory that packed rows leave in pieces can be used again.
export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}

# A node with a sick GPU would stop everybody, minutes later: better before.
# shellcheck disable=SC2016  # the variables are each node's own
check='
if ! command -v nvidia-smi >/dev/null; then
  [ -z "${SLURM_GPUS_ON_NODE:-}" ] && exit 0
  echo "$(hostname): no nvidia-smi, but GPUs were asked for" >&2; exit 1
fi
if ! nvidia-smi --query-gpu=index --format=csv,noheader >/dev/null; then
  echo "$(hostname): nvidia-smi fails" >&2; exit 1
fi
broken=$(nvidia-smi --query-gpu=ecc.errors.uncorrected.volatile.total --format=csv,noheader,nounits |
  awk "\$1 ~ /^[0-9]+\$/ && \$1 > 0" | wc -l)
if [ "$broken" -gt 0 ]; then
  echo "$(hostname): $broken GPUs with uncorrected memory errors" >&2; exit 1
fi
'
if ! srun --ntasks-per-node=1 --ntasks="${SLURM_NNODES:-1}" bash -c "$check"; then
  echo "a node is not fit: leave it out with sbatch --exclude=NODE" >&2
  exit 1
fi

# --kill-on-bad-exit=0: the first task that ends with 75 must not cost the others their save.
# shellcheck disable=SC2016  # the variables are each task's own
srun --kill-on-bad-exit=0 --wait=300 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
  exec "$0" -m unimodal.train "$@"
' "$PYTHON" "$@" &
tasks=$!
# With --signal SLURM tells the tasks itself; what this script is told goes on to them.
trap 'kill -TERM "$tasks" 2>/dev/null || true' TERM
while kill -0 "$tasks" 2>/dev/null; do
  wait "$tasks" || true  # a trapped signal ends it early
done
wait "$tasks" && status=0 || status=$?

if [ "$status" -eq "$GO_ON" ]; then
  if [ "${SLURM_RESTART_COUNT:-0}" -ge "$MAX_RESTARTS" ]; then
    echo "stopped, and restarted $MAX_RESTARTS times before: not once more" >&2
  else
    echo "stopped and saved: back into the queue" >&2
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$status"
