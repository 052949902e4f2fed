"""A blend from members to files: their scored rows, every method's outcome, and blend.json."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.blending.members import Tests, check_members
from lesions.blending.methods import methods_of
from lesions.blending.nested import Outcome, compare_methods, limits
from lesions.blending.pool import CONTEXT, Pool, build_pool
from lesions.errors import InputError
from lesions.evaluation.intervals import Interval, delong
from lesions.evaluation.scores import LABELS, names_of, score_rows
from lesions.files import atomic, sha256, write_csv, write_json
from lesions.oof import Oof
from lesions.paths import shown


@dataclass(frozen=True)
class Study:
    """Members on their scored rows, every method's outcome, and that of the choice among them.

    `rows` are the scored rows of the member whose table gives groups and sources.
    """

    members: list[Oof]
    rows: Oof
    pool: Pool
    scores: dict[str, Interval]  # the objective of each member; AUC by DeLong
    outcomes: dict[str, Outcome]
    chosen: str
    reason: str
    outcome: Outcome

    @property
    def weights(self) -> dict[str, float]:
        """The chosen weight of each member, and of the patient context if it is used."""
        return dict(zip((*self.pool.names, *CONTEXT), self.outcome.blend.weights, strict=False))

    @cached_property
    def nested_scores(self) -> dict[str, Interval]:
        """All scores of the chosen blend on rows that its weights did not see.

        Of yes or no none: nested scores are ranks, and the methods' table has their AUC.
        """
        if not self.pool.several:
            return {}
        scores, classes = self.outcome.scores[0], self.pool.classes
        return score_rows(self.pool.target, scores, classes, self.rows.groups).overall

    def apply(self, tests: Tests) -> pd.DataFrame:
        """The chosen blend of the test rows: image_name and target, or prob_<class>."""
        names, classes = self.pool.names, self.pool.classes
        pool = build_pool(tests.probs, names, classes, patients=tests.patients)
        blended = self.rows.task.as_frame(self.outcome.blend.apply(pool))
        blended.insert(0, "image_name", tests.names.to_numpy())
        return blended.rename(columns={"prob": "target"})

    def oof(self) -> pd.DataFrame:
        """image_name, target and prob, or prob_<class>: each row by weights that did not see it."""
        known = ["group"] + ["source"] * bool((self.rows.table["source"] != "").any())
        scores = self.rows.task.as_frame(self.outcome.scores[0], self.rows.codes)
        columns = ["image_name", "target", *known, *self.rows.task.columns]
        return pd.concat([self.rows.table[["image_name", *known]], scores], axis=1)[columns]

    def as_json(self) -> dict[str, Any]:
        """What blend.json holds of the out-of-fold rows, hashes of the files included."""
        pool, rows, facts = self.pool, self.rows, next(iter(self.rows.facts.values()), {})
        numbers = np.bincount(pool.target, minlength=max(2, len(pool.classes))).tolist()
        counts = dict(zip(pool.classes, numbers, strict=True)) if pool.several else numbers[1]
        nested = {name: score.as_json() for name, score in self.nested_scores.items()}
        return {
            "members": list(pool.names),
            "dataset": rows.dataset,
            "task": rows.task.name if rows.dataset else None,
            "chosen": self.chosen,
            "reason": self.reason,
            "weights": self.weights,
            "scale": self.outcome.blend.scale,
            "objective": pool.objective,
            "estimate": self.outcome.as_json(),  # of the choice; "methods" are each on its own
            "methods": {name: outcome.as_json() for name, outcome in self.outcomes.items()},
            "member_scores": {
                name: {pool.objective: score.as_json()["value"], "interval": limits(score)}
                for name, score in self.scores.items()
            },
            "rows": len(pool.target),
            "classes" if pool.several else "positives": counts,
            **({"nested_scores": nested} if nested else {}),
            "groups": len(set(rows.groups)),
            "groups_from": rows.groups_from,
            "table_hash": facts.get("table_hash"),
            "fold_hash": facts.get("fold_hash"),
            "hashes": {shown(file): sha256(file) for m in self.members for file in m.files},
        }

    def as_text(self) -> str:
        """The tables of members and methods, the choice and its weights."""
        pool, count = self.pool, f"{int(self.pool.target.sum()):,} positives"
        what = f"{len(pool.classes)} classes" if pool.several else count
        groups = f"{len(set(self.rows.groups)):,} groups ({self.rows.groups_from})"
        members = pd.DataFrame({f"{LABELS[pool.objective]} (95 %, by group)": self.scores})
        methods = {
            name: [f"{found.in_sample:.3f}", found.nested, found.against_equal or "-"]
            for name, found in self.outcomes.items()
        }
        columns = ["in sample", "nested (95 %)", "against equal weights"]
        used = sorted(self.weights.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {weight:.3f}" for name, weight in used if weight > 0)
        lines = [
            f"{len(pool.target):,} rows, {what}, {groups}\n",
            f"{members.to_string()}\n",
            f"{pd.DataFrame(methods, columns).T.to_string()}\n",
            f"chosen: {self.chosen}: {self.reason}",
            f"weights: {told}",
        ]
        if "patient_context" in self.outcomes:
            gain = self.outcomes["patient_context"].gains["stacking"]
            lines.append(f"patient context, gain over stacking without it: {gain}")
        lines += [f"{LABELS[name]}, nested: {s}" for name, s in self.nested_scores.items()]
        return "\n".join(lines)


def study_blend(
    members: list[Oof],
    source: str | None,
    method: str = "auto",
    objective: str | None = None,
    context: bool = False,
) -> Study:
    """Check and join the members, and score every method on groups it was not fitted on.

    `source` limits the scored rows, by default to those of the test set's source. `objective` is
    what blends of several classes are for, macro AUC if None; those of yes or no are for AUC.
    `context` tries what sets a row apart from its patient's others, too.
    """
    task = members[0].task
    objectives = names_of(len(task.classes)) if task.several else ("auc",)
    for name, given, known in (
        ("method", method, ("auto", *methods_of(task.several, context))),
        ("objective", objective or objectives[0], objectives),
    ):
        if given not in known:
            kind = "several" if task.several else "two"
            raise InputError(f"--{name} {given}: with {kind} classes one of {', '.join(known)}")
    check_members(members)
    base = next((member for member in members if member.dataset), members[0])
    rows = base.take(pd.Index(base.names).get_indexer(members[0].names)).of_source(source)
    places = [pd.Index(member.names).get_indexer(rows.names) for member in members]
    probs = np.stack([m.probs[place] for m, place in zip(members, places, strict=True)])
    names = [member.name for member in members]
    patients = rows.groups if context else None
    pool = build_pool(probs, names, rows.task.classes, rows.codes, objective, patients)
    scores = {}
    for name, each in zip(names, probs, strict=True):
        if task.several:
            overall = score_rows(rows.codes, each, pool.classes, rows.groups).overall
            scores[name], auc = overall[pool.objective], overall["macro_auc"]
        else:
            scores[name] = auc = delong(rows.codes, each[:, 0], rows.groups)
        if auc.value < 0.5:
            told = f"{name} is upside down: AUC {auc}"
            raise InputError(f"{told}: give 1 - prob of it, or leave it out")
    return Study(members, rows, pool, scores, *compare_methods(pool, rows.groups, method))


def write_blend(study: Study, tests: Tests | None, out: Path) -> list[str]:
    """Write blend.csv where there are `tests`, blend_oof.csv, blend.png and blend.json to `out`.

    blend.json comes last, so that one that is there speaks for the files beside it.
    """
    result, written = study.as_json(), []
    if tests is not None:
        write_csv(out / "blend.csv", study.apply(tests))
        result["hashes"] |= {shown(file): sha256(file) for file in tests.files}
        result["weights_files"] = tests.weights
        result["submission"] = {"rows": len(tests.names), "sha256": sha256(out / "blend.csv")}
        written.append("blend.csv")
    write_csv(out / "blend_oof.csv", study.oof())
    result["oof"] = {"rows": result["rows"], "sha256": sha256(out / "blend_oof.csv")}
    draw_blend(study, out / "blend.png")
    write_json(out / "blend.json", result)
    return [*written, "blend_oof.csv", "blend.png", "blend.json"]


def draw_blend(study: Study, path: Path) -> None:
    """Correlation of the members beside their weights in the chosen blend."""
    from matplotlib.figure import Figure

    pool, names = study.pool, study.pool.names
    side = 4.2 + 0.16 * len(names)
    figure = Figure(figsize=(2 * side + 1, side), layout="constrained")
    left, right = figure.subplots(1, 2)
    correlation = np.asarray(np.corrcoef(pool.added.reshape(len(names), -1)))
    image = left.imshow(correlation, cmap="Blues", vmin=1.1 * correlation.min() - 0.1, vmax=1)
    left.set_xticks([])  # the columns are in the order of the rows
    left.set_yticks(range(len(names)), names, fontsize=8)
    for (i, j), value in np.ndenumerate(correlation if len(names) <= 20 else correlation[:0]):
        colour = "white" if value > (correlation.min() + 1) / 2 else "black"
        left.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    what = "probabilities" if pool.several else "ranks"
    left.set_title(f"Correlation of the members' {what}", loc="left", fontsize=11)
    figure.colorbar(image, ax=left, shrink=0.75)
    right.barh(list(study.weights), list(study.weights.values()), color="#1f5fa8")
    right.invert_yaxis()  # in the order of the correlations
    right.tick_params(axis="y", labelsize=8)
    right.set_title(f"Weights of the chosen blend: {study.chosen}", loc="left", fontsize=11)
    with atomic(path) as part:
        figure.savefig(part, dpi=130, format="png")
