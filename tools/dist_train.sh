#!/usr/bin/env bash
# Train on several GPUs, or in several CPU processes where there is no GPU.
set -euo pipefail
if [ "$#" -lt 2 ]; then
  echo "usage: $0 CONFIG PROCESSES [arguments of tools/train.py]" >&2
  exit 2
fi
here=$(dirname "${BASH_SOURCE[0]}")
exec "$here/dist_run.sh" "$here/train.py" "$2" "$1" "${@:3}"
