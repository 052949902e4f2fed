"""Which code a number was made by."""

import os
import platform
import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesions.errors import InputError
from lesions.files import write_json
from lesions.paths import CODE, shown


def commit() -> str:
    """The code's commit, "-dirty" appended if files differ from it; "unknown" where nothing tells.

    A copy without git, as on Kaggle, tells it in a file COMMIT.
    """
    if (CODE / "COMMIT").is_file():
        return (CODE / "COMMIT").read_text(encoding="utf-8").strip()
    try:
        command = ["git", "-C", str(CODE), "describe", "--always", "--dirty", "--exclude=*"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"


def clean_commit(allow_dirty: bool = False) -> str:
    """The commit that published results name; InputError if the code differs from it.

    Files of docs/ and README.md may differ: they are what results are written into.
    """
    found = commit()
    if not found.endswith("-dirty"):
        return found
    command = ["git", "-C", str(CODE), "status", "--porcelain", "--", ".", ":!docs", ":!README.md"]
    changed = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.split("\n")
    if not any(changed):
        return found.removesuffix("-dirty")
    if allow_dirty:
        print(f"warning: the results will name {found}: nobody else has that code")
        return found
    raise InputError(
        f"--out: {changed[0].strip()}: the code differs from commit {found.removesuffix('-dirty')},"
        " so nobody could measure this again: commit first, or give --allow-dirty"
    )


def machine() -> dict[str, str | int | float | None]:
    """CPU name, cores and memory of this machine."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
    }


@dataclass(frozen=True)
class Results:
    """The file that --out of a benchmark or a study names, and the commit that it will name."""

    path: Path | None
    commit: str

    @classmethod
    def parse(
        cls, parser: ArgumentParser, example: str, arguments: Sequence[str] | None
    ) -> tuple[Namespace, "Results"]:
        """The parsed arguments, --out and --allow-dirty among them, and the file that they name.

        InputError, before anything is measured, for --out from code that is not committed.
        """
        parser.add_argument("--out", type=Path, metavar="JSON",
                            help=f"also write them here: docs/results/{example}")  # fmt: skip
        parser.add_argument(
            "--allow-dirty", action="store_true", help="write them from code that is not committed"
        )
        args = parser.parse_args(arguments)
        return args, cls(args.out, clean_commit(args.allow_dirty) if args.out else "")

    def write(self, found: Mapping[str, Any]) -> None:
        """Write what was found, with commit and machine, if --out is given."""
        if self.path:
            write_json(self.path, {**found, "commit": self.commit, "machine": machine()})
            print(f"{shown(self.path)} written; next: python scripts/docs.py")
