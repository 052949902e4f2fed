"""The seal on the test set: who opened it, when, with which models and thresholds."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesions.files import read_json, sha256, write_json
from lesions.paths import shown
from lesions.provenance import commit


def fingerprint(weights: Sequence[Path], thresholds: Sequence[float]) -> str:
    """Twelve hex digits of what is about to be tested: the weights and the thresholds."""
    parts = [*(sha256(path) for path in weights), *(f"{value:.17g}" for value in thresholds)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def open_test(path: Path, mark: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """All openings of the test set so far, this one included; call it before a test row is scored.

    The same models and thresholds (`mark`) are one opening however often a killed study comes
    here; others are a new one, which is said aloud: who tests again has seen the first answer.
    """
    openings = read_json(path)["openings"] if path.exists() else []
    known = [opening["mark"] for opening in openings]
    if mark in known:
        return openings
    opened = {
        "mark": mark,
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        **facts,
    }
    openings.append(opened)
    write_json(path, {"openings": openings})
    if known:
        print(
            f"OPENED AGAIN: this is opening {len(openings)} of the test set, with other models or"
            f" thresholds than before ({shown(path)}): its score is no longer that of a first test"
        )
    else:
        print(f"the test set is opened, once: {shown(path)}")
    return openings
