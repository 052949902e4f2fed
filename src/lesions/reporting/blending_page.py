"""docs/siim2020.md: public models of the 2020 competition, scored and blended on their own rows."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.markdown import interval, table

COMMAND = "python scripts/score_oof.py siim2020_oof/oof --groups isic2020/train.csv"
QUESTION = (
    "They were trained by others; what is measured here is how far their scores, and the gain of "
    "blending them, can be told apart from luck. Intervals are 95 %, over patients."
)
NESTED = (
    "In sample, weights are scored on the rows they were chosen on; nested, on patients they never "
    "saw: the difference is what a blend promises too much."
)


def blending_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/score_oof.py measured."""
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/siim2020.json: do not edit. -->",
        "# Public models of SIIM-ISIC 2020, scored and blended",
        f"Out-of-fold predictions of {len(results['members'])} public EfficientNet models on the "
        f"same {results['rows']:,} images of the 2020 set, {results['positives']:,} of them "
        f"melanomas, of {results['groups']:,} patients. {QUESTION}",
        f"```\n{COMMAND}\n```",
        "## The models",
        _members(results),
        "## Ways to blend them",
        _methods(results),
        _choice(results),
        "## Time",
        _speed(results["speed"]),
    ]
    return "\n\n".join(parts) + "\n"


def _choice(results: Mapping[str, Any]) -> str:
    chosen, methods = results["chosen"], results["methods"]
    return (
        f"Chosen: **{chosen}** ({results['reason']}). Its nested AUC is "
        f"{methods[chosen]['nested']:.4f}, that of equal weights on ranks "
        f"{methods['rank_mean']['nested']:.4f}. {NESTED}"
    )


def _members(results: Mapping[str, Any]) -> str:
    scores = results["member_scores"]
    names = sorted(results["members"], key=lambda name: -scores[name]["auc"]["value"])
    columns = {
        "auc": "AUC",
        "delong": "AUC, DeLong",
        "within_group": "AUC within patient",
        "partial_auc": "partial AUC above 80 % TPR",
        "average_precision": "average precision",
    }
    rows = [[f"`{name}`", *(_score(scores[name][key]) for key in columns)] for name in names]
    return table(["model", *columns.values()], rows)


def _score(found: Mapping[str, float]) -> str:
    return interval({"auc": found["value"], "low": found["low"], "high": found["high"]})


def _methods(results: Mapping[str, Any]) -> str:
    rows = []
    for name, found in results["methods"].items():
        low, high = found["interval"]
        nested = f"{found['nested']:.4f} ({low:.4f}–{high:.4f})"
        gain, p = "", ""
        if found["gain"] is not None:
            least, most = found["gain_interval"]
            gain = f"{found['gain']:+.4f} ({least:+.4f} to {most:+.4f})"
            p = f"{found['p_against_equal']:.3f}"
        rows.append([f"`{name}`", f"{found['in_sample']:.4f}", nested, gain, p])
    return table(["method", "in sample", "nested", "gain over `rank_mean`, nested", "p"], rows)


def _speed(speed: Mapping[str, Any]) -> str:
    bootstrap, climb = speed["bootstrap"], speed["hill_climb"]
    return (
        f"In CPU time: {bootstrap['replicates']:,} bootstrap replicates of AUC on "
        f"{bootstrap['rows']:,} rows take {bootstrap['seconds']:.1f} s; hill climbing over "
        f"{climb['columns']} columns of {climb['rows']:,} rows {climb['seconds']:.2f} s, and a "
        "loop over scikit-learn's `roc_auc_score`, for the same picks, "
        f"{climb['seconds_sklearn']:.1f} s: {climb['ratio']:.0f} times as long."
    )
