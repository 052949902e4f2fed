"""A blend from names to files: what scripts/blend.py and the results of public models share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.blending.figure import draw_blend
from lesions.blending.members import Member, check_members, join_probs
from lesions.blending.methods import METHODS, Pool, build_pool
from lesions.blending.nested import Outcome, compare_methods, gain_curve
from lesions.blending.rows import load_rows
from lesions.errors import InputError
from lesions.evaluation.delong import delong
from lesions.evaluation.intervals import Interval, as_null, bootstrap
from lesions.evaluation.metrics import (
    average_precision,
    partial_auc,
    roc_auc,
    stratified_auc,
)
from lesions.files import sha256, write_csv, write_json
from lesions.paths import shown


@dataclass(frozen=True)
class Study:
    """Members on their scored rows, every method's outcome, and the one chosen."""

    members: list[Member]
    rows: pd.DataFrame
    origin: str
    pool: Pool
    scores: dict[str, Interval]
    outcomes: dict[str, Outcome]
    chosen: str
    reason: str

    @property
    def weights(self) -> dict[str, float]:
        """The chosen weight of each member."""
        return dict(zip(self.pool.names, self.outcomes[self.chosen].blend.weights, strict=True))

    def apply(self, probs: pd.DataFrame) -> pd.DataFrame:
        """The chosen blend of test probabilities, one column a member: image_name, target."""
        blended = self.outcomes[self.chosen].blend.apply(build_pool(probs[list(self.pool.names)]))
        return pd.DataFrame({"image_name": probs.index, "target": blended})

    def oof(self) -> pd.DataFrame:
        """image_name, target and prob of the scored rows: each by weights that did not see it."""
        return self.rows.assign(prob=self.outcomes[self.chosen].scores)

    def as_json(self) -> dict[str, Any]:
        """What blend.json holds, hashes of the inputs included."""
        blend = self.outcomes[self.chosen].blend
        return {
            "members": list(self.pool.names),
            "chosen": self.chosen,
            "reason": self.reason,
            "weights": self.weights,
            "scale": blend.scale,
            "power": blend.power,
            "methods": {name: outcome.as_json() for name, outcome in self.outcomes.items()},
            "member_scores": {
                name: {
                    "auc": as_null(score.value),
                    "interval": [as_null(score.low), as_null(score.high)],
                }
                for name, score in self.scores.items()
            },
            "rows": len(self.rows),
            "positives": int(self.rows["target"].sum()),
            "groups": int(self.rows["group"].nunique()),
            "groups_from": self.origin,
            "fold_hash": next(
                (m.facts["fold_hash"] for m in self.members if "fold_hash" in m.facts), None
            ),
            "hashes": {shown(file): sha256(file) for m in self.members for file in m.files},
        }

    def as_text(self) -> str:
        """The tables of members and methods, the choice and its weights."""
        wide = max(map(len, [*self.pool.names, "member"]))
        rows, positives = len(self.rows), int(self.rows["target"].sum())
        groups = self.rows["group"].nunique()
        lines = [
            f"{rows:,} rows, {positives:,} positives, {groups:,} groups ({self.origin})",
            "",
            f"{'member':{wide}}  AUC [95 %, by group]",
        ]
        lines += [f"{name:{wide}}  {score}" for name, score in self.scores.items()]
        lines += ["", f"{'method':12} in sample  nested [95 %]            against equal weights"]
        for name, outcome in self.outcomes.items():
            gain = outcome.against_equal or "-"
            lines.append(f"{name:12} {outcome.in_sample:.4f}     {outcome.nested}  {gain}")
        used = sorted(self.weights.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {weight:.3f}" for name, weight in used if weight > 0)
        return "\n".join([*lines, "", f"chosen: {self.chosen}: {self.reason}", f"weights: {told}"])


def study_blend(
    members: list[Member],
    groups: str | None = None,
    source: str | None = None,
    method: str = "auto",
) -> Study:
    """Check and join the members, and score every method on groups it was not fitted on.

    `groups` is a CSV's path, `source` limits the scored rows; see `load_rows`.
    """
    if method not in ("auto", *METHODS):
        raise InputError(f"--method {method}: one of auto, {', '.join(METHODS)}")
    check_members(members)
    rows, origin = load_rows(members, groups, source)
    probs = join_probs({member.name: member.table for member in members})
    pool = build_pool(probs.loc[rows["image_name"]], rows["target"])
    outcomes, chosen, reason = compare_methods(pool, rows["group"])
    if method != "auto":
        chosen, reason = method, f"asked for by --method; by itself: {chosen} ({reason})"
    scores = {
        name: delong(pool.target, pool.probs[:, i], rows["group"])
        for i, name in enumerate(pool.names)
    }
    return Study(members, rows, origin, pool, scores, outcomes, chosen, reason)


def score_members(study: Study) -> dict[str, dict[str, Any]]:
    """Of each member the metrics of the results page, with intervals by group."""
    target, groups = study.pool.target, study.rows["group"].to_numpy()
    metrics = {
        "auc": roc_auc,
        "within_group": stratified_auc(groups, nested=True),
        "partial_auc": partial_auc(),
        "average_precision": average_precision,
    }
    return {
        name: {
            "delong": study.scores[name].as_json(),
            **{
                key: bootstrap(metric, target, prob, groups).as_json()
                for key, metric in metrics.items()
            },
        }
        for name, prob in zip(study.pool.names, study.pool.probs.T, strict=True)
    }


def write_blend(
    study: Study, tests: tuple[pd.DataFrame, list[Path]] | None, out: Path
) -> list[str]:
    """Write blend.csv where there are `tests`, blend_oof.csv, blend.png and blend.json to `out`.

    blend.json comes last, so that one that is there speaks for the files beside it.
    """
    result, written = study.as_json(), []
    if tests is not None:
        probs, files = tests
        write_csv(out / "blend.csv", study.apply(probs))
        result["hashes"] |= {shown(file): sha256(file) for file in files}
        result["submission"] = {"rows": len(probs), "sha256": sha256(out / "blend.csv")}
        written.append("blend.csv")
    write_csv(out / "blend_oof.csv", study.oof())
    outcomes = {name: study.outcomes[name].nested.value for name in ("rank_mean", "single")}
    gains = gain_curve(study.pool, study.rows["group"])
    draw_blend(study.pool, gains, outcomes, out / "blend.png")
    write_json(out / "blend.json", result)
    return [*written, "blend_oof.csv", "blend.png", "blend.json"]
