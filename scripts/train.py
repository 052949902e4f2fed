"""Train a run fold by fold; an interrupted fold resumes, a finished one is skipped.

    accelerate launch --quiet scripts/train.py --config configs/effnet_b1.yaml --fold 0
    python scripts/train.py --config effnet_b1 --set train.epochs=3 --name quick_look

Writes oof/<run>/config.yaml and fold<k>.csv, .json, .safetensors, with the training's history in
history<k>.csv, metrics<k>.jsonl and training_curves.png; after the last fold calibration.json. With
exit code 75, 143 or 130 the same command continues. Several GPUs or machines, SLURM, what is
saved: docs/training.md.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--config", required=True, help="a file, or a name below configs/")
    parser.add_argument("--fold", default="all", help="a fold's number, or all (default)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="change the config, such as train.lr=1e-4")  # fmt: skip
    parser.add_argument("--pretrained", metavar="FILE|none", help="the backbone's first weights")
    parser.add_argument("--name", help="another name for the run")
    parser.add_argument("--max-hours", type=float, metavar="H", help="stop in time, exit with 75")
    args = parser.parse_args(arguments)
    begun = time.monotonic()

    from lesions.config import find_config, load_config, run_name
    from lesions.errors import InputError
    from lesions.runs import run_folder

    changes = list(args.set)
    if args.pretrained:
        weights = "false" if args.pretrained == "none" else args.pretrained
        changes.append(f"model.pretrained={weights}")
    config = load_config(args.config, changes)
    if args.fold != "all" and not args.fold.isdecimal():
        raise InputError(f"--fold {args.fold}: expected a number or all")
    name = args.name or run_name(find_config(args.config))
    folder = run_folder(name)

    from lesions.data.table import load_table

    known = range(int(load_table(config.dataset)[0]["fold"].max()) + 1)
    folds = [fold for fold in known if args.fold == "all" or int(args.fold) == fold]
    if not folds:
        raise InputError(f"--fold {args.fold}: data set {config.dataset} has folds 0 to"
                         f" {len(known) - 1}")  # fmt: skip

    # Not before: they import torch, and wrong input is answered without it.
    from lesions.inference.accelerator import build_accelerator
    from lesions.reporting.curves import draw_curves
    from lesions.training.run import train_folds
    from lesions.training.stop import StopRequest

    accelerator = build_accelerator(config.train.precision, config.train.tracker, folder)
    code = train_folds(config, name, folds, accelerator, StopRequest(args.max_hours, begun))
    if accelerator.is_main_process:
        draw_curves(folder)
        if not code and config.train.tracker != "none":
            from lesions.reporting.report import track_results

            track_results(accelerator, config, name)
    return code


if __name__ == "__main__":
    run(main)
