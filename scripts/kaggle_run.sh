#!/usr/bin/env bash
# Train runs on Kaggle from here, fold by fold, to submissions/: push, wait, fetch, next; blend.
#
#   scripts/kaggle_run.sh effnet_b1 effnet_b3        # configs by name
#   FOLDS="0 1" scripts/kaggle_run.sh effnet_b1      # only these folds, no predictions
#
# Stops with 75 at the weekly GPU quota. Whenever it was stopped, give the same command again: what
# is fetched is not trained again, a session that still runs is waited for. docs/kaggle.md
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# == 0 || "$1" == -h || "$1" == --help ]]; then sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0; fi
push() { python scripts/kaggle_push.py "$@"; }
needs() { python -c 'import sys; sys.path.insert(0, "src")
from lesions.config import load_config
config = load_config(sys.argv[1])
print(config.dataset, config.data.image_size, bool(config.model.pretrained))' "configs/$1.yaml"; }
root=${LESIONS_ROOT:-.}

push code
for run in "$@"; do
    read -r data size pretrained <<<"$(needs "$run")"
    push kernel prepare "$data" --size "$size" --wait
    for fold in ${FOLDS:-0 1 2 3 4}; do
        [[ -e $root/oof/$run/fold$fold.json ]] && continue
        if [[ $pretrained == True ]]; then push weights "$run"; pretrained=sent; fi
        push kernel train-fold "$run" --fold "$fold" --wait
    done
    [[ ${FOLDS:-} || -e $root/submissions/$run.csv ]] && continue
    push weights "$run"
    push kernel predict "$run" --wait
done
if [[ ! ${FOLDS:-} && $# -gt 1 ]]; then python scripts/blend.py "$@"; fi
