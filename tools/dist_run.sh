#!/usr/bin/env bash
# Run a tool in several processes: tools/dist_run.sh SCRIPT PROCESSES [arguments of the script]
# dist_train.sh and dist_test.sh call it. For several machines set NNODES, NODE_RANK, MASTER_ADDR
# and PORT on each of them.
set -euo pipefail
script=$1 processes=$2
shift 2
if [ "${NNODES:-1}" -gt 1 ] || [ -n "${PORT:-}" ]; then
  where=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
else
  # One machine: any free port, so that two runs do not meet.
  where=(--standalone)
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${where[@]}" --nproc_per_node="$processes" \
  "$script" "$@" --launcher pytorch
