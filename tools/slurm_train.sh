#!/usr/bin/env bash
# Train on a SLURM cluster; GPUS=16 for other than 8, see slurm_run.sh.
set -euo pipefail
if [ "$#" -lt 3 ]; then
  echo "usage: $0 PARTITION JOB_NAME CONFIG [arguments of tools/train.py]" >&2
  exit 2
fi
here=$(dirname "${BASH_SOURCE[0]}")
exec "$here/slurm_run.sh" "$here/train.py" "$@"
