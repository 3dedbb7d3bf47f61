#!/bin/bash
# Minutes on a borrowed GPU: the headline trainings of ECC and VIn-Loc, the `gpu` tests, GPU slices, one after another
# or side by side, as fits. For a machine that has torch, numpy, safetensors and typer, and perhaps no network.
#
#   benchmarks/gpu.sh OUTPUT [MINUTES [DEVICE]]     weights and logs to OUTPUT; default: 7 minutes on cuda
#
# With `cpu` as DEVICE it is a trial of the script: one network of ECC, nothing else.
# Bring along, in folders that git ignores: `.gpu/paris-6*.npz`, path data to train on (made by `python -m
# sim.learn.compact training data/paris-6/shards/*.npz .gpu/paris-6.npz`, 31 MB), and in `.whl` the wheels that are
# missing there (bitarray; for GPU slices pyzmq, ray, …). The weights of ECC are 2.2 MB each, of VIn-Loc 12.5 MB.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" | head -n -1; exit 2; }
cd "$(dirname "$0")/.."
output=$1 minutes=${2:-7} device=${3:-cuda}
mkdir -p "$output" || exit 1
output=$(cd "$output" && pwd)
export PYTHONUNBUFFERED=1 PYTHONPATH="$output/site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=$(command -v python3 || command -v python)

if compgen -G '.whl/*.whl' >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$output/site" .whl/*.whl || exit 1
fi

failed=()
finish() { # finish NAME PID: wait for a step and remember whether it failed
  wait "$2" || failed+=("$1")
  printf '== %s: %s\n' "$1" "$(tail -n 1 "$output/$1.log" | tr '\r' '\n' | tail -n 1)"
}

paths=(.gpu/paris-6*.npz)
[ -e "${paths[0]}" ] || paths=(data/paris-6/paths.npz)
if [ "$device" = cpu ]; then
  "$python" cli.py train ecc --bits 4 --data "${paths[0]}" --device cpu --budget "$minutes" \
    --output "$output/ecc/ecc-b4.safetensors" >"$output/ecc.log" 2>&1 &
else
  "$python" -m sim.reproduce.ecc.campaign --jobs headline --paths "${paths[@]}" --device "$device" --budget "$minutes" \
    --output "$output/ecc" >"$output/ecc.log" 2>&1 &
fi
ecc=$!
if [ "$device" != cpu ]; then # a hall of 80 000 users is drawn in half a minute on a GPU
  "$python" cli.py train vinloc --job hall --device "$device" --budget "$minutes" \
    --output "$output/vinloc/hall.safetensors" >"$output/hall.log" 2>&1 &
  finish hall $!
fi
finish ecc "$ecc"
if [ "$device" != cpu ]; then
  "$python" -m pytest -q -n 0 -m gpu tests/sim/learn/test_gpu.py >"$output/tests.log" 2>&1 &
  finish tests $!
  if "$python" -c 'import ray, zmq' 2>/dev/null; then # the encoders of six base stations on slices of one GPU
    "$python" cli.py emulate --bs 6 --bits 4 --gpus-per-bs 0.1 --weights "$output/ecc/ecc-b4.safetensors" \
      --output "$output/runs" >"$output/slices.log" 2>&1 &
    finish slices $!
  fi
fi
[ ${#failed[@]} -eq 0 ] || { printf 'Failed: %s\n' "${failed[*]}"; exit 1; }
