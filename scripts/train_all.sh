#!/usr/bin/env bash
# Train every fold of every config, in order, then predict the test rows and blend.
#
#   scripts/train_all.sh                               # the four competition configs
#   scripts/train_all.sh configs/ham10000/002/*.yaml   # system 002's six models and their ensemble
#   scripts/train_all.sh --num_processes 2             # further words go to accelerate launch
#
# Safe to stop and start again: a finished fold is skipped, an interrupted one resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0; fi
configs=()
while [[ "${1:-}" == *.yaml ]]; do configs+=("$1"); shift; done
((${#configs[@]})) || configs=(configs/{effnet_b1,effnet_b3,effnet_b4,resnest50}.yaml)
runs=("${configs[@]#configs/}")
runs=("${runs[@]%.yaml}")
for run in "${runs[@]}"; do
    accelerate launch --quiet "$@" scripts/train.py --config "configs/$run.yaml" --fold all
    python scripts/predict.py --run "$run"
done
python scripts/blend.py "${runs[@]}"
