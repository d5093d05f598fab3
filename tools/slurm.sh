#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Any script with its flags, on two nodes of 8 GPUs. Flags of sbatch itself come before the file:
#
#     sbatch tools/slurm.sh grpo.py --ckpt out/4B.pt
#     sbatch --nodes=1 --time=4:00:00 tools/slurm.sh evaluate.py --ckpt out/4B.rl.pt
#
# A run may be longer than a job may be. Here it gets up to 4 jobs, one after the other, and each
# continues where the last one stopped:
#
#     sbatch --array=1-4%1 tools/slurm.sh pretrain.py --preset 4B
#
# Submit from the repository's folder, which has to lie, with out/, on a file system that all nodes
# see.
#
# 600 s before the time limit, and at preemption, Slurm sends SIGTERM to srun's tasks: the run saves
# after the step it is in, and leaves. A step and a save have to fit into that time; at preemption
# it is the partition's GraceTime. Slurm itself queues a preempted job again (--requeue), and the
# same command continues. --signal=B:TERM would not do: it would reach this shell alone, and srun
# answers the SIGTERM that a shell passes on with SIGKILL to all tasks.
set -eu
if [ $# = 0 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "slurm.sh: submit it with a script and its flags:" \
        "sbatch tools/slurm.sh grpo.py --ckpt out/4B.pt" >&2
    exit 2
fi
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # since 22.05 srun does not take it over by itself
srun "${PYTHON:-.venv/bin/python}" -m torch.distributed.run \
    --nnodes="$SLURM_NNODES" --nproc_per_node="${SLURM_GPUS_ON_NODE:-1}" \
    --max_restarts=3 --shutdown_timeout=600 --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" \
    --rdzv_endpoint="${nodes[0]}:$((29400 + SLURM_JOB_ID % 1000))" "$@"
