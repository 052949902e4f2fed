"""Which rows a blend is scored on and which of them belong together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from lesions.blending.members import Member
from lesions.errors import InputError, listed
from lesions.files import read_csv
from lesions.paths import at, shown


def prepared_table(members: Sequence[Member]) -> Path | None:
    """The prepared table of the first run among the members, or None where all are plain CSVs."""
    run = next((member.run for member in members if member.run), None)
    if run is None:
        return None
    config = yaml.safe_load((at("oof") / run / "config.yaml").read_text(encoding="utf-8"))
    path = at("input/prepared") / str(config["dataset"]) / "table.csv"
    if not path.is_file():
        raise InputError(
            f"{shown(path)}: missing, and patients are known from it: run "
            f"python scripts/prepare.py, or give --groups"
        )
    return path


def load_rows(
    members: Sequence[Member], groups: str | None = None, source: str | None = None
) -> tuple[pd.DataFrame, str]:
    """The scored rows, with image_name, target and group, and in words where groups came from.

    Of a table with several sources those rows count that are of the test set's source, or of
    `source`: merged sources differ in their share of positives, which lifts the AUC of any model.
    """
    rows = members[0].table[["image_name", "target"]]
    if not members[0].classes:
        rows = rows.astype({"target": int})
    path = Path(groups) if groups else prepared_table(members)
    if path is None:
        if source:
            raise InputError("--source needs a table with a source column: give --groups")
        return rows.assign(group=rows["image_name"]), "none: each image its own group"
    table = read_csv(path, ["image_name"], text=("image_name", "group", "patient_id"))
    column = next((name for name in ("group", "patient_id") if name in table.columns), None)
    if column is None:
        raise InputError(f"{shown(path)}: no column group or patient_id")
    known = table.drop_duplicates("image_name").set_index("image_name")
    strange = rows["image_name"][~rows["image_name"].isin(known.index)]
    if len(strange):
        raise InputError(f"{shown(path)}: lacks {len(strange):,} images ({listed(strange, 3)})")
    matched = known.loc[rows["image_name"]]
    # An image without a patient is its own group; the prefix keeps it apart from any id.
    group = np.where(matched[column].isna(), "image " + rows["image_name"], matched[column])
    rows, origin = rows.assign(group=group), f"{column} of {shown(path)}"
    if "source" in table.columns:
        return _of_source(rows.assign(source=matched["source"].to_numpy()), table, source, origin)
    if source:
        raise InputError(f"{shown(path)}: no column source, which --source asks for")
    return rows, origin


def _of_source(
    rows: pd.DataFrame, table: pd.DataFrame, source: str | None, origin: str
) -> tuple[pd.DataFrame, str]:
    found = sorted(rows["source"].dropna().unique())
    if source and source not in found:
        raise InputError(f"--source {source}: the members have {listed(found)}")
    wanted = {source} if source else set()
    if not source and "split" in table.columns:
        wanted = set(table.loc[table["split"] == "test", "source"]) & set(found)
    if not wanted or wanted == set(found):
        return rows, origin
    return rows[rows["source"].isin(wanted)], f"{origin}, rows of {listed(sorted(wanted))} alone"
