#!/usr/bin/env bash
# The real run of docs/results.md: ISIC 2017 and ISIC 2019's HAM10000 part on two cores.
#
#   scripts/real.sh            # about 90 minutes; input/README.md says what goes into input/
#
# Safe to stop and start again.
set -euo pipefail
python scripts/prepare.py --dataset real --available-only --size 80 112
python scripts/audit.py --dataset real
python scripts/train.py --config configs/real/mobilenetv2.yaml --fold all
python scripts/train.py --config configs/real/resnet10t.yaml --fold all
python scripts/predict.py --run real/mobilenetv2
python scripts/predict.py --run real/resnet10t
python scripts/blend.py real/mobilenetv2 real/resnet10t --out submissions/real
python scripts/report.py --run real/mobilenetv2
python scripts/results.py --dataset real --runs real/mobilenetv2 real/resnet10t --blend submissions/real --commands scripts/real.sh
python scripts/docs.py
