#!/usr/bin/env bash
# Run a tool on a SLURM cluster: tools/slurm_run.sh SCRIPT PARTITION JOB_NAME [its arguments]
# slurm_train.sh and slurm_test.sh call it. GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS change
# what is asked for; PORT is for two runs on one node.
set -euo pipefail
script=$1 partition=$2 job_name=$3
shift 3
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
export MASTER_PORT=${PORT:-29500}
# One process a GPU; each finds its place in what SLURM tells it.
# SRUN_ARGS is several words on purpose.
exec srun --partition="$partition" --job-name="$job_name" --gres="gpu:$gpus_per_node" \
  --ntasks="$gpus" --ntasks-per-node="$gpus_per_node" --cpus-per-task="${CPUS_PER_TASK:-8}" \
  --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$script" "$@" --launcher slurm
