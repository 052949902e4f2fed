#!/usr/bin/env bash
# Train every fold of every config, in order, then predict the test rows and blend.
#
#   scripts/train_all.sh                               # the four competition configs
#   scripts/train_all.sh configs/ham10000/002/*.yaml   # system 002's six models and their ensemble
#   scripts/train_all.sh --dataset isic_deotte         # the four on other data, as deotte/<config>
#   scripts/train_all.sh --num_processes 2             # further words go to accelerate launch
#   HOURS=11 scripts/train_all.sh                      # stop in time, with exit code 75
#
# Safe to stop and start again: a finished fold is skipped, an interrupted one resumes. Exit codes
# are those of scripts/train.py (docs/training.md); of several processes it is 1 whatever happened.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0; fi
dataset=
if [[ "${1:-}" == --dataset ]]; then dataset=$2; shift 2; fi
configs=()
while [[ "${1:-}" == *.yaml ]]; do configs+=("$1"); shift; done
((${#configs[@]})) || configs=(configs/{effnet_b1,effnet_b3,effnet_b4,resnest50}.yaml)
runs=("${configs[@]#configs/}")
runs=("${runs[@]%.yaml}")
into=${dataset:+${dataset#isic_}/}
train=(python)
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || true
((gpus < 2 && $# == 0)) || train=(accelerate launch --quiet "$@")
left() { awk "BEGIN { print ${HOURS:-0} - $SECONDS / 3600 }"; }
trap 'exit 143' TERM  # once train.py, which gets the signal as well, has saved its state
for run in "${runs[@]}"; do
    "${train[@]}" scripts/train.py --config "configs/$run.yaml" --name "$into$run" --fold all \
        ${dataset:+--set "dataset=$dataset"} ${HOURS:+--max-hours "$(left)"}
    python scripts/predict.py --run "$into$run"
done
python scripts/blend.py "${runs[@]/#/$into}"
