#!/usr/bin/env bash
# Everything that only a card can show: bash benchmarks/gpu.sh (meant to take eight minutes, not timed yet)
# PYTHON names the interpreter, DATA a dataset in YOLO layout for what needs 640 px (left out without it).
# Each part may fail by itself; the last line says which did.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH=$PWD OMP_NUM_THREADS=1
FAILED=()

part() { # seconds, title, command
    local seconds=$1 title=$2
    shift 2
    printf '\n== %s\n' "$title"
    timeout "$seconds" "$@" || FAILED+=("$title")
}

$PYTHON -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__)' || exit 2

part 90 "a step at 128 px" $PYTHON benchmarks/gpu_step.py --image_size 128
part 90 "a step at 512 px, bf16" $PYTHON benchmarks/gpu_step.py --image_size 512 --mixed_precision bf16
part 120 "four times as many images, bf16" \
    $PYTHON benchmarks/gpu_step.py --image_size 512 --n_way 32 --mixed_precision bf16 --steps 20
part 150 "trials that share the card, and what a trial's time is spent on" \
    $PYTHON -m sweeps.run stage2_clip_dfl.yaml --check --probe --set resources.gpus=auto
if [ -n "${DATA:-}" ]; then
    part 90 "a step at 640 px, bf16" \
        $PYTHON benchmarks/gpu_step.py --image_size 640 --mixed_precision bf16 --data_root "$DATA"
    part 120 "Ultralytics, 640 px" $PYTHON benchmarks/against_ultralytics.py "$DATA" \
        --device cuda --image_size 640 --batch 16 --mixed_precision bf16 --workers 8
fi
part 240 "the tests that need a card" $PYTHON -m pytest -q tests -m gpu

printf '\nparts that failed: %s\n' "${FAILED[*]:-none}"
[ ${#FAILED[@]} -eq 0 ]
