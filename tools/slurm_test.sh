#!/usr/bin/env bash
# Score a checkpoint on a SLURM cluster; GPUS=16 for other than 8, see slurm_run.sh.
set -euo pipefail
if [ "$#" -lt 4 ]; then
  echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]" >&2
  exit 2
fi
here=$(dirname "${BASH_SOURCE[0]}")
exec "$here/slurm_run.sh" "$here/test.py" "$@"
