"""Kill real training processes with SIGKILL, resume them, and compare every byte with a run that
nobody killed: weights, optimiser state, out-of-fold file, history.

    python scripts/kill_test.py                 # 20 points, 5 of them on two processes

Half of the points lie within a save, half between two. Writes docs/results/survival.json. Works in
a temporary folder, on the embedded sample, with the network of configs/demo/mobilenetv3.yaml.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--two-processes", type=int, default=5, help="of these, on two processes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LESIONS_ROOT"] = folder  # before anything imports lesions.paths

        from lesions.data.sample import write_sample
        from lesions.files import write_json
        from lesions.paths import CODE, at
        from lesions.training.killing import kill_points

        write_sample(at("input") / "sample", images=90)
        prepare = [str(CODE / "scripts/prepare.py"), "--dataset", "demo", "--size", "32"]
        subprocess.run([sys.executable, *prepare], check=True)
        outcome = kill_points(args.points, args.two_processes, args.seed)
    write_json(CODE / "docs/results/survival.json", outcome)
    print(f"{outcome['identical']} of {outcome['points']} identical")
    return int(outcome["identical"] < outcome["points"])


if __name__ == "__main__":
    run(main)
