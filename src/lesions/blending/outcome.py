"""A blend from names to files: what scripts/blend.py and the results of public models share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lesions.blending.class_pool import AnyPool, build_class_pool
from lesions.blending.figure import draw_blend
from lesions.blending.members import Member, check_members, join_probs
from lesions.blending.methods import methods_of
from lesions.blending.nested import Outcome, compare_methods, gain_curve
from lesions.blending.pool import build_pool
from lesions.blending.rows import load_rows
from lesions.errors import InputError
from lesions.evaluation.intervals import Interval, as_null, bootstrap
from lesions.evaluation.metrics import (
    average_precision,
    partial_auc,
    roc_auc,
    stratified_auc,
)
from lesions.evaluation.multiclass import LABELS, SCORES, class_scores
from lesions.files import sha256, write_csv, write_json
from lesions.paths import shown


@dataclass(frozen=True)
class Study:
    """Members on their scored rows, every method's outcome, and the one chosen."""

    members: list[Member]
    rows: pd.DataFrame
    origin: str
    pool: AnyPool
    scores: dict[str, Interval]
    outcomes: dict[str, Outcome]
    chosen: str
    reason: str

    @property
    def weights(self) -> dict[str, float]:
        """The chosen weight of each member."""
        return dict(zip(self.pool.names, self.outcomes[self.chosen].blend.weights, strict=True))

    def apply(self, probs: pd.DataFrame) -> pd.DataFrame:
        """The chosen blend of test probabilities: image_name and target, or prob_<class>.

        `probs` has one column a member, or a member and class.
        """
        pool = join_pool(probs[list(self.pool.names)], self.pool.classes)
        blended = self.outcomes[self.chosen].blend.apply(pool)
        columns = self.pool.columns(blended, "target")
        return pd.DataFrame({"image_name": probs.index, **columns})

    def oof(self) -> pd.DataFrame:
        """image_name, target and prob, or prob_<class>: each row by weights that did not see it."""
        return self.rows.assign(**self.pool.columns(self.outcomes[self.chosen].scores, "prob"))

    def class_scores(self) -> dict[str, Interval]:
        """With several classes the chosen blend's nested scores, and not the objective alone."""
        scores, groups = self.outcomes[self.chosen].scores, self.rows["group"]
        if not self.pool.classes:
            return {}
        return class_scores(self.rows["target"], scores, self.pool.classes, groups)

    def as_json(self) -> dict[str, Any]:
        """What blend.json holds, hashes of the inputs included."""
        blend = self.outcomes[self.chosen].blend
        nested = {name: score.as_json() for name, score in self.class_scores().items()}
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
                    self.pool.objective: as_null(score.value),
                    "interval": [as_null(score.low), as_null(score.high)],
                }
                for name, score in self.scores.items()
            },
            "rows": len(self.rows),
            **self.pool.counts(),
            **({"nested_scores": nested} if nested else {}),
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
        groups = self.rows["group"].nunique()
        what = f"{len(self.pool.classes)} classes"
        if not self.pool.classes:
            what = f"{int(self.rows['target'].sum()):,} positives"
        lines = [
            f"{len(self.rows):,} rows, {what}, {groups:,} groups ({self.origin})",
            "",
            f"{'member':{wide}}  {self.pool.label} [95 %, by group]",
        ]
        lines += [f"{name:{wide}}  {score}" for name, score in self.scores.items()]
        lines += ["", f"{'method':12} in sample  nested [95 %]            against equal weights"]
        for name, outcome in self.outcomes.items():
            gain = outcome.against_equal or "-"
            lines.append(f"{name:12} {outcome.in_sample:.4f}     {outcome.nested}  {gain}")
        used = sorted(self.weights.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {weight:.3f}" for name, weight in used if weight > 0)
        lines += ["", f"chosen: {self.chosen}: {self.reason}", f"weights: {told}"]
        scores = [f"{LABELS[name]}, nested: {score}" for name, score in self.class_scores().items()]
        return "\n".join(lines + scores)


def join_pool(
    probs: pd.DataFrame, classes: Sequence[str], target: Any = None, objective: str = "macro_auc"
) -> AnyPool:
    """The pool of joined probabilities, `target` None for test rows."""
    if classes:
        return build_class_pool(probs, classes, target, objective)
    return build_pool(probs, target)


def study_blend(
    members: list[Member],
    groups: str | None = None,
    source: str | None = None,
    method: str = "auto",
    objective: str = "macro_auc",
) -> Study:
    """Check and join the members, and score every method on groups it was not fitted on.

    `groups` is a CSV's path, `source` limits the scored rows; see `load_rows`. `objective` is what
    several classes are blended for; two are for AUC.
    """
    classes = members[0].classes
    for name, given, known in (
        ("method", method, ("auto", *methods_of(classes))),
        ("objective", objective, SCORES if classes else ("macro_auc",)),
    ):
        if given not in known:
            kind = "several" if classes else "two"
            raise InputError(f"--{name} {given}: with {kind} classes one of {', '.join(known)}")
    check_members(members)
    rows, origin = load_rows(members, groups, source)
    probs = join_probs({member.name: member.table for member in members})
    pool = join_pool(probs.loc[rows["image_name"]], classes, rows["target"], objective)
    outcomes, chosen, reason = compare_methods(pool, rows["group"])
    if method != "auto":
        chosen, reason = method, f"asked for by --method; by itself: {chosen} ({reason})"
    scores = pool.intervals(rows["group"])
    return Study(members, rows, origin, pool, scores, outcomes, chosen, reason)


def score_members(study: Study) -> dict[str, dict[str, Any]]:
    """Of each two-class member the metrics of the results page, with intervals by group."""
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
    baselines = {
        "equal weights": next(iter(study.outcomes.values())).nested.value,
        "best single model": study.outcomes["single"].nested.value,
    }
    gains = gain_curve(study.pool, study.rows["group"])
    draw_blend(study.pool, gains, baselines, out / "blend.png")
    write_json(out / "blend.json", result)
    return [*written, "blend_oof.csv", "blend.png", "blend.json"]
