#!/usr/bin/env bash
# Checks a machine with a GPU, Python, torch and numpy alone, in under ten minutes:
#
#     tools/gpu_check.sh OUT
#
# The doctor without the stack, time and peak memory of attention in float32 and bfloat16, and time
# of the voxelizer. A part that fails or exceeds its time does not stop the others, but makes the
# exit status 1. All output goes to the folder OUT. It has never been run on a GPU.
set -uo pipefail

if [ $# -ne 1 ]; then
  echo "usage: $0 OUT" >&2
  exit 2
fi
out=$1
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
mkdir -p "$out"
failed=0

# part NAME SECONDS COMMAND...; the seconds of all parts add up to less than 600.
part() {
  local name=$1 seconds=$2 status=0 start=$SECONDS
  shift 2
  timeout --kill-after=5 "$seconds" "$@" >"$out/$name.txt" 2>"$out/$name.log" || status=$?
  echo "$name: status $status after $((SECONDS - start)) s" | tee -a "$out/summary.txt"
  [ "$status" -eq 0 ] || failed=1
}

: >"$out/summary.txt"
part machine 10 nvidia-smi
part doctor 180 "$python" "$here/doctor.py" --torch-only --json "$out/doctor.json"
for size in r50 vov; do
  for dtype in float32 bfloat16; do
    part "attention_${size}_${dtype}" 75 "$python" "$here/benchmark.py" attention \
      --sizes "$size" --dtype "$dtype" --layers 1 --rounds 5 --warmup 2 \
      --json "$out/attention_${size}_${dtype}.json"
  done
done
part voxels 60 "$python" "$here/benchmark.py" voxels --points 30000 100000 300000 \
  --json "$out/voxels.json"
exit "$failed"
