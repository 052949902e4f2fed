#!/usr/bin/env bash
# HAM10000: the recipe on lesion-grouped folds and on the splits of systems 001, 002 and 004, the
# ablation, and docs/ham10000.md. Photographs and HAM10000_metadata.csv lie in input/ham10000.
#
#   studies/ham10000.sh
#
# Safe to stop and start again: finished folds are skipped, stopped ones resumed.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0; fi
python scripts/prepare.py --dataset ham10000 --size 112 64
python scripts/train.py --config configs/ham10000/mobilenetv2.yaml --fold all
for system in system001 system002 system004; do
    python scripts/prepare.py --dataset "ham10000_$system" --size 112
    python scripts/train.py --config "configs/ham10000/$system.yaml" --fold 0
done
python scripts/predict.py --run ham10000/system002
python scripts/predict.py --run ham10000/system004
python studies/ablation.py configs/ham10000/ablation.yaml --out docs/results/ham10000_ablation.json
python studies/ham10000.py configs/ham10000/published.yaml --out docs/results/ham10000.json
python scripts/docs.py
