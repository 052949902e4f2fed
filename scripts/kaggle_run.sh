#!/usr/bin/env bash
# Train runs on Kaggle from here, to submissions/: prepare, train two at once, fetch, predict, blend.
#
#   scripts/kaggle_run.sh effnet_b1 effnet_b3        # configs by name
#   FOLDS="0 1" scripts/kaggle_run.sh effnet_b1      # only these folds, no predictions
#
# Stops with 75 at the weekly GPU quota. Whenever it was stopped, run the same command again: what is
# fetched is not trained again, a session that is still running is waited for. docs/kaggle.md
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# == 0 || "$1" == -h || "$1" == --help ]]; then sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0; fi
kernel() { python scripts/kaggle_push.py kernel "$@" --wait; }
needs() { python -c 'import sys; sys.path.insert(0, "src")
from lesions.config import load_config
config = load_config(sys.argv[1])
print(config.dataset, config.data.image_size)' "$1"; }

for run in "$@"; do
    read -r data size <<<"$(needs "$run")"
    kernel prepare "$data" --size "$size"
done
code=0 running=0 at_once=$(($# < 2 ? $# : 2))
finish() { wait -n || { last=$?; ((last == 75 && code)) || code=$last; }; running=$((running - 1)); }
for run in "$@"; do
    ((running < at_once)) || finish
    kernel train "$run" --sharing "$at_once" ${FOLDS:+--fold $FOLDS} &
    running=$((running + 1))
done
while ((running)); do finish; done
((code == 0)) || exit "$code"
if [[ ${FOLDS:-} ]]; then exit 0; fi
for run in "$@"; do
    [[ -e ${LESIONS_ROOT:-.}/submissions/$run.csv ]] || kernel predict "$run"
done
if [[ $# -gt 1 ]]; then python scripts/blend.py "$@"; fi
