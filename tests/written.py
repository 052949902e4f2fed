"""A run as training and predicting leave it, of probabilities that a test draws."""

import numpy as np
import pandas as pd

from lesions.data.table import load_table
from lesions.data.tasks import build_task
from lesions.files import write_csv, write_json
from lesions.paths import at


def written_run(
    run: str, dataset: str, table: pd.DataFrame, probs: np.ndarray, task: str = "melanoma", **facts
) -> pd.DataFrame:
    """oof/<run> and submissions/<run>.csv of a row of `probs` for each row of the table.

    `facts` go into the folds' records. All rows are returned in the table's order; those of the
    files stand in an order that is the run's own.
    """
    asked, known = build_task(task), load_table(dataset)[1]
    codes = (table["diagnosis"] == "mel").to_numpy(int)
    if asked.several:
        codes = asked.codes(table["diagnosis"])
    rows = pd.concat([table[["image_name", "fold"]], asked.as_frame(probs, codes)], axis=1)
    config = {"dataset": dataset, "model": {"backbone": "mobilenetv2_100"}}
    config |= {"data": {"task": task, "image_size": 32}}
    config |= {"loss": {"kind": "cross_entropy" if asked.several else "bce"}}
    write_json(at("oof", run, "config.yaml"), config)
    mixed = rows.sample(frac=1, random_state=sum(map(ord, run)))
    for fold, part in mixed[mixed["fold"] >= 0].groupby("fold"):
        write_csv(at("oof", run, f"fold{fold}.csv"), part)
        record = {"run": run, "fold": fold, "task": task, "classes": asked.listed}
        record |= {key: known[key] for key in ("table_hash", "fold_hash")} | {"rows": len(part)}
        write_json(at("oof", run, f"fold{fold}.json"), record | facts)
    sent = mixed[table["split"][mixed.index] == "test"].drop(columns=["fold", "target"])
    write_csv(at("submissions", f"{run}.csv"), sent.rename(columns={"prob": "target"}))
    return rows
