"""Which code a number was made by."""

import subprocess

from lesions.paths import CODE


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
