#!/usr/bin/env bash
# Every fold of every config, in order, then predictions and the blend.
#
#   scripts/train_all.sh                               # the four competition configs
#   scripts/train_all.sh configs/ham10000/002/*.yaml   # system 002's six models and their ensemble
#   scripts/train_all.sh --num_processes 2             # further words go to accelerate launch
#
# Safe to stop and start again: a finished fold is skipped, a broken-off one goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0; fi
configs=()
while [[ "${1:-}" == *.yaml ]]; do configs+=("$1"); shift; done
((${#configs[@]})) || configs=(configs/{effnet_b1,effnet_b3,effnet_b4,resnest50}.yaml)
runs=()
for config in "${configs[@]}"; do
    run=${config#configs/}
    runs+=("${run%.yaml}")
    accelerate launch "$@" scripts/train.py --config "$config" --fold all
    python scripts/predict.py --run "${run%.yaml}"
done
python scripts/blend.py "${runs[@]}"
