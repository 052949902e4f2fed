"""The end of a study: one mean of models, two thresholds from validation, one test."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from lesions.config import Config
from lesions.data.table import load_table, task_targets
from lesions.evaluation.thresholds import Threshold, by_f_beta, by_recall
from lesions.files import read_csv, write_csv
from lesions.inference.accelerator import build_accelerator
from lesions.inference.submit import predict_test
from lesions.paths import at
from lesions.study.config import Study
from lesions.study.course import Chosen, pools
from lesions.study.leaderboard import (
    AT,
    auc_of,
    decided_scores,
    entry,
    ranked,
    scored_rows,
    with_groups,
)
from lesions.study.seal import fingerprint, open_test


class Final(NamedTuple):
    """Models whose mean is tested on one data set, and what validation told about them."""

    name: str
    dataset: str
    runs: list[str]
    validation: pd.DataFrame  # image_name, target, prob, group
    thresholds: list[Threshold]

    def facts(self) -> dict[str, Any]:
        """What can be said before the test."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "runs": self.runs,
            "auc": auc_of(self.validation),
            "decisions": self.decisions(self.validation),
        }

    def decisions(self, rows: pd.DataFrame) -> list[dict[str, Any]]:
        return [
            {"rule": cut.rule, "threshold": cut.value} | decided_scores(rows, cut.value)
            for cut in self.thresholds
        ]


def fit_final(study: Study, chosen: Chosen) -> tuple[Final, list[dict[str, Any]]]:
    """The mean of models that the rule takes, and all that it could have taken, best first."""
    dataset = study.config.official
    candidates = []
    for name, members in pools(chosen.final, study.config.pool).items():
        rows = mean_rows([run["run"] for run in members], dataset)
        scored = {"auc": auc_of(rows), **decided_scores(rows, AT)}
        runs = [run["run"] for run in members]
        candidates.append(entry(name, [scored]) | {"members": runs, "auc": scored["auc"]})
    order = ranked(candidates)
    final = _final(study, order[0]["name"], dataset, order[0]["members"])
    return final, [{key: one[key] for key in one if key != "runs"} for one in order]


def fit_grouped(study: Study, chosen: Chosen) -> Final | None:
    """The chosen configuration, trained and given thresholds anew where lesions are whole."""
    dataset = study.config.grouped
    if not chosen.grouped or dataset is None:
        return None
    return _final(study, chosen.final[0]["name"], dataset, chosen.grouped)


def mean_rows(runs: Sequence[str], dataset: str) -> pd.DataFrame:
    """Validation rows with the mean probability of `runs`."""
    rows = scored_rows(runs[0], dataset)
    probs = [
        rows[["image_name"]].merge(scored_rows(run, dataset), on="image_name", validate="1:1")
        for run in runs
    ]
    return rows.assign(prob=np.mean([one["prob"] for one in probs], axis=0))


def score_tests(
    study: Study, finals: Sequence[Final]
) -> tuple[list[dict[str, Any]], str, list[dict[str, Any]]]:
    """The scores on the test rows of each data set, this opening's mark, and all openings."""
    weights = [at("oof") / run / "fold0.safetensors" for final in finals for run in final.runs]
    cuts = [cut.value for final in finals for cut in final.thresholds]
    mark = fingerprint(weights, cuts)
    facts = {
        "form": study.form_name,
        "runs": [run for final in finals for run in final.runs],
        "thresholds": cuts,
    }
    openings = open_test(at("oof") / study.root / "seal.json", mark, facts)
    tests = []
    for final in finals:
        rows = predicted_rows(study, final, mark)
        tests.append(_score(final, final.dataset, rows))
        table = load_table(final.dataset)[0]
        seen = set(table.loc[table["split"] == "train", "group"])
        unseen = rows[~rows["group"].isin(seen)]
        if len(unseen) < len(rows):
            name = f"{final.dataset}, lesions that are not in training"
            tests.append(_score(final, name, unseen))
    return tests, mark, openings


def predicted_rows(study: Study, final: Final, mark: str) -> pd.DataFrame:
    """The test rows with the mean probability of the final's models; predicted once by `mark`."""
    path = at("oof") / study.folder / f"test_{final.dataset}_{mark}.csv"
    if not path.exists():
        members = [_predicted(run) for run in final.runs]
        mean = pd.concat(members).groupby("image_name")["prob"].mean()
        write_csv(path, pd.DataFrame(mean).reset_index())
    rows = read_csv(path, ["image_name", "prob"], text=("image_name",))
    table, facts = load_table(final.dataset)
    _, target = task_targets(table, facts, study.config.labels)
    label = table[["image_name"]].assign(target=target.astype(int))
    return with_groups(rows.merge(label, on="image_name", validate="1:1"), final.dataset)


def _config(run: str) -> Config:
    return Config.model_validate(yaml.safe_load((at("oof") / run / "config.yaml").read_text("utf-8")))


def _predicted(run: str) -> pd.DataFrame:
    config = _config(run)
    told = predict_test(run, config, build_accelerator(config.train.precision), [0])
    return told.rename(columns={"target": "prob"})


def _final(study: Study, name: str, dataset: str, runs: list[str]) -> Final:
    rows = mean_rows(runs, dataset)
    target, prob = rows["target"].to_numpy(), rows["prob"].to_numpy()
    cuts = [by_f_beta(target, prob, 2), by_recall(target, prob, study.config.recall)]
    return Final(name, dataset, runs, rows, cuts)


def _score(final: Final, name: str, rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "name": name,
        "rows": len(rows),
        "positives": int(rows["target"].sum()),
        "auc": auc_of(rows),
        "decisions": final.decisions(rows),
    }
