"""What each variant of an ablation scored beside its base, on the same rows."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from lesions.config import Config
from lesions.data.table import load_table
from lesions.evaluation.multiclass import LABELS, class_scores, compare_classes
from lesions.files import read_csv, read_json
from lesions.paths import at
from lesions.provenance import commit
from lesions.reporting.markdown import table
from lesions.reporting.summary import machine
from lesions.training.ablation import AblationConfig

Results = Mapping[str, Any]


def compare_variants(
    runs: Mapping[str, tuple[str, Config]], ablation: AblationConfig
) -> dict[str, Any]:
    """Scores of the base and, of each variant, its differences from it with intervals by group."""
    name, config = runs["base"]
    classes = read_json(at("oof") / name / f"fold{ablation.folds[0]}.json")["classes"]
    groups = load_table(config.dataset)[0].set_index("image_name")["group"]
    tables = {variant: _read(run, ablation.folds) for variant, (run, _) in runs.items()}
    base = tables.pop("base")
    group = groups.loc[base.index].to_numpy()
    columns = [f"prob_{label}" for label in classes]
    target, probs = base["target"].to_numpy(), base[columns].to_numpy()
    return {
        "config": ablation.model_dump(),
        "rows": len(base),
        "classes": classes,
        "commit": commit(),
        "machine": machine(),
        "seconds": {variant: _seconds(run, ablation) for variant, (run, _) in runs.items()},
        "base": {
            key: score.as_json()
            for key, score in class_scores(target, probs, classes, group).items()
        },
        "variants": {
            variant: {
                key: found.difference.as_json() | {"p": found.p}
                for key, found in compare_classes(
                    target, other.loc[base.index, columns].to_numpy(), probs, classes, group
                ).items()
            }
            for variant, other in tables.items()
        },
    }


def ablation_section(results: Results) -> str:
    """The table of differences, with what is noise called noise."""
    keys = list(LABELS)
    level = 0.05 / max(1, len(results["variants"]))
    rows = [["base", *(_number(results["base"][key]) for key in keys), ""]]
    for variant, scores in results["variants"].items():
        sure = [LABELS[key] for key in keys if scores[key]["p"] < level]
        rows.append([
            f"{variant}: `{', '.join(results['config']['variants'][variant])}`",
            *(_number(scores[key], signed=True) for key in keys),
            ", ".join(sure) or "noise",
        ])  # fmt: skip
    folds = ", ".join(map(str, results["config"]["folds"]))
    shared = ", ".join(f"`{change}`" for change in results["config"]["shared"])
    return (
        f"Base is `configs/ham10000/{results['config']['base']}` with {shared}, fold(s) {folds} of"
        f" the lesion-grouped five, {results['rows']:,} images that no model was trained on. The"
        " other rows are differences from it, paired by image, with 95 % intervals by lesion; the"
        f" last column names those with p < {level:.4f} (5 %, Bonferroni-corrected for the number"
        " of variants). One seed each: a difference that is no noise over images may still be one"
        " of the seed.\n\n" + table(["variant", *LABELS.values(), "beyond noise"], rows)
    )


def _read(run: str, folds: list[int]) -> pd.DataFrame:
    parts = [read_csv(at("oof") / run / f"fold{fold}.csv", ["image_name", "target"]) for fold in folds]
    return pd.concat(parts).set_index("image_name")


def _seconds(run: str, ablation: AblationConfig) -> float:
    return sum(read_json(at("oof") / run / f"fold{fold}.json")["seconds"] for fold in ablation.folds)


def _number(score: Results, signed: bool = False) -> str:
    if score["value"] is None:
        return "n/a"
    form = "{:+.3f}" if signed else "{:.3f}"
    value, low, high = (form.format(score[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
