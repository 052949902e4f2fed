#!/usr/bin/env bash
# The runs of docs/results.md: ISIC 2017 and ISIC 2019's HAM10000 part on two cores.
#
#   studies/real.sh            # about 2 hours; input/README.md says what goes into input/
#
# Safe to stop and start again: finished folds are skipped, stopped ones resumed.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0; fi
python scripts/prepare.py --dataset real --available-only --size 160 112
python scripts/audit.py --dataset real
python scripts/train.py --config configs/real/lite0.yaml --fold all
python scripts/train.py --config configs/real/frozen_lite0.yaml --fold all
python scripts/predict.py --run real/lite0
python scripts/predict.py --run real/frozen_lite0
python scripts/blend.py real/lite0 real/frozen_lite0 --out submissions/real
python scripts/report.py --run real/lite0
python studies/real.py --dataset real --runs real/lite0 real/frozen_lite0 --blend submissions/real/blend.json --commands studies/real.sh --out docs/results/real.json
python scripts/docs.py
