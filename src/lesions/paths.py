"""Where things are: the only module that knows the repository's folders."""

import os
from pathlib import Path

# A Kaggle kernel mounts the code read-only and writes elsewhere: LESIONS_ROOT says where.
CODE = Path(__file__).resolve().parents[2]
ROOT = Path(os.environ.get("LESIONS_ROOT", CODE)).resolve()

CONFIGS = CODE / "configs"
INPUT = ROOT / "input"
PREPARED = INPUT / "prepared"
OOF = ROOT / "oof"
SUBMISSIONS = ROOT / "submissions"


def shown(path: Path) -> str:
    """The path as a message prints it: relative to the repository where it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
