#!/usr/bin/env bash
# Score a checkpoint on several GPUs, or in several CPU processes where there is no GPU.
set -euo pipefail
if [ "$#" -lt 3 ]; then
  echo "usage: $0 CONFIG CHECKPOINT PROCESSES [arguments of tools/test.py]" >&2
  exit 2
fi
here=$(dirname "${BASH_SOURCE[0]}")
exec "$here/dist_run.sh" "$here/test.py" "$3" "$1" "$2" "${@:4}"
