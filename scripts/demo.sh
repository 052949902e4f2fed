#!/usr/bin/env bash
# The competition's pipeline, script by script, on the embedded sample: make demo.
# Every command here is the one the real data take; only the data set and the configs are smaller.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s\n' "$*"; "$@"; }
launch="accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"

step python scripts/make_sample.py --out input/sample
step python scripts/prepare.py --dataset demo --size 64
step python scripts/audit.py --dataset demo
for run in demo/resnet10t demo/mobilenetv3; do
    for fold in 0 1 2; do
        step $launch scripts/train.py --config configs/$run.yaml --fold $fold
    done
    step python scripts/predict.py --run $run
done
step python scripts/blend.py demo/resnet10t demo/mobilenetv3 --out submissions/demo
step python scripts/submit.py submissions/demo/blend.csv --dry-run \
    --sample input/sample/isic2020/sample_submission.csv
step python scripts/report.py --run demo/resnet10t
cat <<'END'

submission  submissions/demo/blend.csv
report      oof/demo/resnet10t/report.html
The sample is drawn, not photographed: its scores say that the pipeline works, no more.

Next:  source .venv/bin/activate
       python scripts/serve.py --run demo/resnet10t     a page and a REST API for this model
       python scripts/train.py --help                   train on your own data: README.md
END
