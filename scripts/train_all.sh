#!/usr/bin/env bash
# Every fold of every competition config, in order, then predictions and the blend.
#
#   scripts/train_all.sh                        # one process, or what `accelerate config` says
#   scripts/train_all.sh --num_processes 2      # further words go to accelerate launch
#
# Safe to stop and start again: a finished fold is skipped, a broken-off one goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0; fi
runs=(effnet_b1 effnet_b3 effnet_b4 resnest50)
for run in "${runs[@]}"; do
    for fold in 0 1 2 3 4; do
        accelerate launch "$@" scripts/train.py --config "configs/$run.yaml" --fold "$fold"
    done
    python scripts/predict.py --run "$run"
done
python scripts/blend.py "${runs[@]}"
