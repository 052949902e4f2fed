"""docs/dermamnist.md: the study's leaderboards, its thresholds and its one test."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.markdown import table
from lesions.reporting.study_page import PROTOCOL, TRUTH, time_text
from lesions.reporting.study_tables import (
    candidate_table,
    data_table,
    label_text,
    phase_table,
    seal_text,
    seed_text,
    skipped_text,
    test_table,
    threshold_table,
    verdict_table,
)

Results = Mapping[str, Any]


def study_page(results: Results) -> str:
    """docs/dermamnist.md, from what scripts/study.py measured."""
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/dermamnist.json: do not edit. -->",
        "# DermaMNIST: which network, which threshold, one test",
        "Fourteen architectures and eight changes of the best, as an earlier system tried them"
        " (its published numbers stand in the table of the test), with inputs scaled as the weights"
        " expect and a rule that is followed. " + label_text(results),
        f"```\npython scripts/study.py configs/dermamnist/study.yaml --form {results['form']}\n```",
        f"**What was shortened:** {results['note']}",
        PROTOCOL,
        "## The test",
        seal_text(results),
        table(*verdict_table(results["verdicts"])),
        TRUTH,
        table(*test_table(results["tests"])),
        "## Phase 1: architectures",
        f"Rule: {results['rule']}. {seed_text(results)}",
        table(*phase_table(results["phase1"])),
        *filter(None, [skipped_text(results["phase1"])]),
        f"## Phase 2: one change of {results['architecture']}",
        table(*phase_table(results["phase2"])),
        "## The final models and their thresholds",
        table(*phase_table([results["chosen"]])),
        table(*candidate_table(results["candidates"])),
        table(*threshold_table(results["finals"])),
        "## Data and time",
        table(*data_table(results["data"])),
        f"{time_text(results)} Commit `{results['commit']}`.",
    ]
    return "\n\n".join(parts) + "\n"
