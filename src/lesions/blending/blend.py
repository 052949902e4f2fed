"""A blend from names to files: members, their scored rows and test rows, the choice, blend.json."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesions.blending.methods import methods_of
from lesions.blending.nested import Outcome, compare_methods, gain_curve
from lesions.blending.pool import Pool, build_pool
from lesions.errors import InputError, listed
from lesions.evaluation.intervals import Interval, as_null
from lesions.evaluation.metrics import Floats
from lesions.evaluation.scores import LABELS, names_of, score_rows
from lesions.files import atomic, read_json, sha256, write_csv, write_json
from lesions.oof import Oof, load_oof, load_test
from lesions.paths import at, shown
from lesions.runs import find_run

KIND_OF_FILE = re.compile(r"(^|[ _.-])(oof|submissions?|sub|test|pred(iction)?s?)(?=[ _.-]|$)")


@dataclass(frozen=True)
class Tests:
    """Test rows of all members, by name: probabilities (K, N, C), and what they came from."""

    names: pd.Series
    probs: Floats
    files: list[Path]
    weights: dict[str, dict[str, str]]  # of each run: weights file -> sha256


def load_members(specs: Sequence[str], groups: Path | None = None) -> list[Oof]:
    """The members that the command names: runs, CSV files, or folders of either kind.

    A folder with fold*.csv is one member; any other folder is one member for each CSV in it.
    `groups` is a CSV that load_oof takes.
    """
    members: list[Oof] = []
    for spec in specs:
        path = Path(spec)
        if path.is_file() and path.suffix == ".csv":
            members.append(load_oof(path, groups))
        elif files := [] if any(path.glob("fold*.csv")) else sorted(path.glob("*.csv")):
            members += [load_oof(file, groups) for file in files]
        else:
            members.append(load_oof(find_run(spec, takes=("run",)), groups))
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        members = [replace(member, name=str(member.files[0])) for member in members]
        names = [member.name for member in members]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"given twice: {listed(doubled)}: name each member once")
    return members


def check_members(members: Sequence[Oof]) -> None:
    """InputError where members do not answer the same question on the same rows; it names them."""
    if len(members) < 2:
        raise InputError("a blend takes two or more members")
    facts = {m.name: next(iter(m.facts.values())) for m in members if m.facts}
    for key in ("task", "fold_hash"):
        found = {name: fact.get(key) for name, fact in facts.items()}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{name}: {value}" for name, value in found.items())
            raise InputError(f"members differ in {key} ({told}): blend those that agree")
    if len({tuple(member.task.listed) for member in members}) > 1:
        told = "; ".join(f"{m.name}: {', '.join(m.task.listed) or 'one score'}" for m in members)
        raise InputError(f"members differ in classes ({told}): blend those that agree")
    for member in members:
        _check_scores(member.name, member.probs)
    _check_rows({member.name: member.names for member in members})
    first = pd.Series(members[0].codes, members[0].names)
    for member in members[1:]:
        unequal = member.names[first.reindex(member.names).to_numpy() != member.codes]
        if len(unequal):
            raise InputError(
                f"{members[0].name} and {member.name} disagree on the target of {len(unequal):,} "
                f"images ({listed(unequal, 3)}): another task or other labels"
            )


def load_tests(members: Sequence[Oof], given: Sequence[str]) -> Tests:
    """The members' test rows: a run's are submissions/<run>.csv, `given` those of CSV members.

    Given files belong to the member of the same name, but for words such as oof and submission:
    submission_b3.csv to oof_b3.csv. InputError for predictions that are not those of the weights
    that a run has now, and for rows that are out-of-fold rows.
    """
    paths = _pair(members, given)
    tables, weights = {}, {}
    for member in members:
        path = paths[member.name]
        names, probs = load_test(path, member.task)
        _check_scores(shown(path), probs)
        tables[member.name] = pd.DataFrame(probs, index=pd.Index(names))
        inside = names[names.isin(member.names)]
        if len(inside):
            raise InputError(
                f"{shown(path)}: {len(inside):,} of its images are out-of-fold rows of"
                f" {member.name} ({listed(inside, 3)}): give predictions of the test set"
            )
        if member.run:
            weights[member.name] = _weights_behind(path, member)
    old = [name for name, files in weights.items() if not files]
    if old:
        print(f"warning: no record of the weights behind the test predictions of {listed(old)},"
              " which an older version made", file=sys.stderr)  # fmt: skip
    _check_rows({name: table.index.to_series() for name, table in tables.items()})
    order = tables[members[0].name].index
    probs = np.stack([table.loc[order].to_numpy() for table in tables.values()])
    return Tests(order.to_series(), probs, list(paths.values()), weights)


def _pair(members: Sequence[Oof], given: Sequence[str]) -> dict[str, Path]:
    """The test file of each member, by name."""
    files = [file for spec in map(Path, given)
             for file in (sorted(spec.glob("*.csv")) if spec.is_dir() else [spec])]  # fmt: skip
    plain = [member for member in members if member.run is None]
    owners = {_key(member.name): member.name for member in plain}
    found = {owners.get(_key(file.stem)): file for file in files}
    if len(files) != len(plain) or set(found) != {member.name for member in plain}:
        raise InputError(
            f"members that are CSV files: {listed([m.name for m in plain], 30) or 'none'}; --test"
            f" files: {listed([file.name for file in files], 30) or 'none'}: give one of the same"
            " name for each (oof_b3.csv: submission_b3.csv), or --no-test"
        )
    for member in members:
        if member.run:
            found[member.name] = path = at("submissions", f"{member.run.name}.csv")
            if not path.is_file():
                raise InputError(
                    f"{shown(path)}: no test predictions: run python scripts/predict.py "
                    f"--run {member.run.name}, or leave the test set out with --no-test"
                )
    return {member.name: found[member.name] for member in members}


def _key(name: str) -> str:
    return KIND_OF_FILE.sub("", Path(name).stem.lower()).strip(" _.-")


def _weights_behind(path: Path, member: Oof) -> dict[str, str]:
    """sha256 of the weights files that a run's test predictions are of; empty if not recorded."""
    record = path.with_suffix(".json")
    if not record.is_file():
        return {}
    assert member.run
    facts, again = read_json(record), f"python scripts/predict.py --run {member.run.name}"
    if facts["sha256"] != sha256(path):
        raise InputError(f"{shown(path)} is not the file that {record.name} names: run {again}")
    known = {Path(file).name: digest for file, digest in facts["weights"].items()}
    here = {file.name: sha256(file) for file in member.run.folder.glob("fold*.safetensors")}
    changed = sorted(name for name in here if here[name] != known.get(name))
    if changed:
        raise InputError(
            f"{shown(path)}: {listed(changed)} of {shown(member.run.folder)} changed since it was"
            f" predicted: run {again}"
        )
    return known


def _check_scores(name: str, probs: Floats) -> None:
    if (probs == probs[:1]).all():
        raise InputError(f"{name}: its column is constant, so it ranks nothing: leave it out")


def _check_rows(names: dict[str, pd.Series]) -> None:
    """InputError unless all have the same images."""
    everything = pd.Index(pd.unique(pd.concat(names.values())))
    short = {
        name: everything.difference(pd.Index(own))
        for name, own in names.items()
        if len(own) < len(everything)
    }
    if short:
        told = "; ".join(
            f"{name} lacks {len(ids):,} of {len(everything):,} images ({listed(ids, 3)})"
            for name, ids in short.items()
        )
        raise InputError(f"{told}: train the missing folds, or leave the member out")


@dataclass(frozen=True)
class Study:
    """Members on their scored rows, every method's outcome, and the one chosen.

    `rows` are the scored rows of the member whose table gives groups and sources.
    """

    members: list[Oof]
    rows: Oof
    pool: Pool
    scores: dict[str, Interval]
    outcomes: dict[str, Outcome]
    chosen: str
    reason: str

    @property
    def weights(self) -> dict[str, float]:
        """The chosen weight of each member."""
        return dict(zip(self.pool.names, self.outcomes[self.chosen].blend.weights, strict=True))

    def apply(self, tests: Tests) -> pd.DataFrame:
        """The chosen blend of the test rows: image_name and target, or prob_<class>."""
        pool = build_pool(tests.probs, self.pool.names, self.pool.classes)
        blended = self.rows.task.as_frame(self.outcomes[self.chosen].blend.apply(pool))
        blended.insert(0, "image_name", tests.names.to_numpy())
        return blended.rename(columns={"prob": "target"})

    def oof(self) -> pd.DataFrame:
        """image_name, target and prob, or prob_<class>: each row by weights that did not see it."""
        known = ["group"] + ["source"] * bool((self.rows.table["source"] != "").any())
        scores = self.rows.task.as_frame(self.outcomes[self.chosen].scores, self.rows.codes)
        columns = ["image_name", "target", *known, *self.rows.task.columns]
        return pd.concat([self.rows.table[["image_name", *known]], scores], axis=1)[columns]

    def nested_scores(self) -> dict[str, Interval]:
        """All scores of the chosen blend on rows that its weights did not see.

        Of yes or no none: nested scores are ranks, and the methods' table has their AUC.
        """
        if not self.pool.several:
            return {}
        scores = self.outcomes[self.chosen].scores
        return score_rows(self.pool.target, scores, self.pool.classes, self.rows.groups).overall

    def as_json(self) -> dict[str, Any]:
        """What blend.json holds of the out-of-fold rows, hashes of the files included."""
        codes, names = self.pool.target, self.pool.classes
        counts: dict[str, Any] = {"positives": int((codes == 1).sum())}
        if self.pool.several:
            numbers = np.bincount(codes, minlength=len(names)).tolist()
            counts = {"classes": dict(zip(names, numbers, strict=True))}
        nested = {name: score.as_json() for name, score in self.nested_scores().items()}
        facts = next(iter(self.rows.facts.values()), {})
        return {
            "members": list(self.pool.names),
            "dataset": self.rows.dataset,
            "task": self.rows.task.name if self.rows.dataset else None,
            "chosen": self.chosen,
            "reason": self.reason,
            "weights": self.weights,
            "scale": self.outcomes[self.chosen].blend.scale,
            "objective": self.pool.objective,
            "methods": {name: outcome.as_json() for name, outcome in self.outcomes.items()},
            "member_scores": {
                name: {
                    self.pool.objective: as_null(score.value),
                    "interval": [as_null(score.low), as_null(score.high)],
                }
                for name, score in self.scores.items()
            },
            "rows": len(codes),
            **counts,
            **({"nested_scores": nested} if nested else {}),
            "groups": len(set(self.rows.groups)),
            "groups_from": self.rows.groups_from,
            "table_hash": facts.get("table_hash"),
            "fold_hash": facts.get("fold_hash"),
            "hashes": {shown(file): sha256(file) for m in self.members for file in m.files},
        }

    def as_text(self) -> str:
        """The tables of members and methods, the choice and its weights."""
        what = f"{len(self.pool.classes)} classes"
        if not self.pool.several:
            what = f"{int(self.pool.target.sum()):,} positives"
        groups = len(set(self.rows.groups))
        label = f"{self.pool.label} (95 %, by group)"
        methods = {
            name: {
                "in sample": f"{outcome.in_sample:.3f}",
                "nested (95 %)": outcome.nested,
                "against equal weights": outcome.against_equal or "-",
            }
            for name, outcome in self.outcomes.items()
        }
        used = sorted(self.weights.items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {weight:.3f}" for name, weight in used if weight > 0)
        scores = [f"{LABELS[name]}, nested: {s}" for name, s in self.nested_scores().items()]
        return "\n".join(
            [
                f"{len(self.pool.target):,} rows, {what}, {groups:,} groups"
                f" ({self.rows.groups_from})\n",
                pd.DataFrame({label: self.scores}).to_string() + "\n",
                pd.DataFrame.from_dict(methods, orient="index").to_string() + "\n",
                f"chosen: {self.chosen}: {self.reason}",
                f"weights: {told}",
                *scores,
            ]
        )


def study_blend(
    members: list[Oof], source: str | None, method: str = "auto", objective: str | None = None
) -> Study:
    """Check and join the members, and score every method on groups it was not fitted on.

    `source` limits the scored rows, by default to those of the test set's source. `objective` is
    what blends of several classes are for, macro AUC if None; those of yes or no are for AUC.
    """
    task = members[0].task
    objectives = names_of(len(task.classes)) if task.several else ("auc",)
    for name, given, known in (
        ("method", method, ("auto", *methods_of(task.several))),
        ("objective", objective or objectives[0], objectives),
    ):
        if given not in known:
            kind = "several" if task.several else "two"
            raise InputError(f"--{name} {given}: with {kind} classes one of {', '.join(known)}")
    check_members(members)
    base = next((member for member in members if member.dataset), members[0])
    order = pd.Index(base.names).get_indexer(pd.Index(members[0].names))
    rows = base.take(order).of_source(source)
    places = [pd.Index(member.names).get_indexer(pd.Index(rows.names)) for member in members]
    probs = np.stack([m.probs[place] for m, place in zip(members, places, strict=True)])
    names = [member.name for member in members]
    pool = build_pool(probs, names, rows.task.classes, rows.codes, objective)
    scores = pool.intervals(rows.groups)
    for name, score in scores.items():
        if not task.several and score.high < 0.5:
            raise InputError(
                f"{name} is upside down: AUC {score}: give 1 - prob of it, or leave it out"
            )
    outcomes, chosen, reason = compare_methods(pool, rows.groups)
    if method != "auto":
        chosen, reason = method, f"asked for by --method; by itself: {chosen} ({reason})"
    return Study(members, rows, pool, scores, outcomes, chosen, reason)


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
    """Correlation of the members beside what each pick of hill climbing gains, nested and not."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pool, names = study.pool, list(study.pool.names)
    side = 4.2 + 0.16 * len(names)
    figure = Figure(figsize=(2 * side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    correlation = pool.correlation()
    low = correlation.min()
    image = left.imshow(correlation, cmap="Blues", vmin=low - 0.1 * (1 - low), vmax=1)
    left.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    left.set_yticks(range(len(names)), names, fontsize=8)
    for (i, j), value in np.ndenumerate(correlation if len(names) <= 20 else correlation[:0]):
        colour = "white" if value > (low + 1) / 2 else "black"
        left.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    what = "probabilities" if pool.several else "ranks"
    left.set_title(f"Correlation of the members' {what}", loc="left", fontsize=11)
    figure.colorbar(image, ax=left, shrink=0.75)

    gains = gain_curve(pool, study.rows.groups)
    right.plot(
        gains["picks"], gains["in_sample"], color="#9aa5b1", label="hill climbing, in sample"
    )
    right.plot(
        gains["picks"], gains["nested"], color="#1f5fa8", marker="o", markersize=3.5,
        label="hill climbing, on held-out groups",
    )  # fmt: skip
    equal = next(iter(study.outcomes))
    for name, label, style in ((equal, "equal weights", "-"), ("single", "best member", ":")):
        value = study.outcomes[name].nested.value
        right.axhline(value, color="#c0392b", linestyle=style, linewidth=1, label=label)
    right.set(xlabel="members picked, with replacement", ylabel=pool.label)
    right.xaxis.get_major_locator().set_params(integer=True)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=9)
    right.set_title("What each pick gains", loc="left", fontsize=11)
    with atomic(path) as part:
        figure.savefig(part, dpi=130, format="png")
