#!/usr/bin/env bash
# The competition's pipeline, script by script, on the embedded sample: make demo.
# Every command here is the one the real data take; only the data set and the configs are smaller.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*"; "$@"; }

step python scripts/make_sample.py --out input/sample
step python scripts/prepare.py --dataset demo --size 64
step python scripts/audit.py --dataset demo
for run in demo/resnet10t demo/mobilenetv3; do
    step python scripts/train.py --config configs/$run.yaml --fold all
    step python scripts/predict.py --run $run
done
step python scripts/blend.py demo/resnet10t demo/mobilenetv3 --out submissions/demo
step python scripts/submit.py submissions/demo/blend.csv --dry-run \
    --sample input/sample/isic2020/sample_submission.csv
step python scripts/report.py --run demo/resnet10t
step python scripts/report.py --run submissions/demo/blend.json
step python scripts/explain.py --run demo/resnet10t
cat <<'END'

submission  submissions/demo/blend.csv
reports     oof/demo/resnet10t/report.html and, of the blend, submissions/demo/blend_report.html
Grad-CAM    oof/demo/resnet10t/explain.html
The sample is drawn, not photographed: its scores say that the pipeline works, no more.

Next:  source .venv/bin/activate
       open oof/demo/resnet10t/report.html              xdg-open on Linux
       python scripts/serve.py --run demo/resnet10t     a page and a REST API for this model
       python scripts/prepare.py --dataset own --input own=lesions --size 64
                                                        train on your data: README.md, "Your own data"
END
