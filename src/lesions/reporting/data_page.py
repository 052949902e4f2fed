"""The data report: what a prepared data set holds, to look at before anything is trained on it."""

from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from lesions.data.near_duplicates import STOP
from lesions.data.table import load_table, prepared
from lesions.files import read_csv, write_text
from lesions.reporting import breakdown
from lesions.reporting.figures import plot_correlation
from lesions.reporting.gallery import PIXELS, nearest_images, pair_tiles, samples
from lesions.reporting.page import render
from lesions.reporting.style import drawing, svg

PAIRS = 2 * STOP  # of near-duplicates that are shown


def write_data_report(dataset: str) -> Path:
    """Write report.html beside the prepared table; its path."""
    table, facts = load_table(dataset)
    folder, words = prepared(dataset), breakdown.words_of(facts["config"]["task"])
    table = table.assign(row=np.arange(len(table)))
    known = table[(table["split"] == "train") & table["target"].notna()].reset_index(drop=True)
    positive, groups = (known["target"] == 1).to_numpy(), known["group"].to_numpy()
    named = known["diagnosis"] != ""
    known["label"] = known["diagnosis"].where(named, np.where(positive, words.kind, "benign"))
    images, no_images = nearest_images(dataset, table, PIXELS)
    listing, pairs = folder / "near_duplicates.csv", []
    if images is not None and listing.exists():
        rows = table.set_index("image_name")["row"]
        listed = read_csv(listing, text=("decision",)).fillna({"decision": ""}).head(PAIRS)
        pairs = pair_tiles(listed, rows, images)
    with drawing():
        drawn: dict[str, Figure] = {
            "diagnoses": breakdown.plot_diagnoses(known["diagnosis"], positive)
        }
        parts = breakdown.draw_parts(drawn, "data", breakdown.factors(known),
                                     breakdown.plot_factor, positive, groups, words)  # fmt: skip
        columns = breakdown.numbers(known, positive, None, words)
        if columns.shape[1] > 1:
            drawn["correlation"] = plot_correlation(columns)
        if images is not None:
            drawn["image_properties"] = breakdown.plot_properties(
                images, known["row"].to_numpy(), known["label"].to_numpy()
            )
        figures = {name: Markup(svg(figure, name)) for name, figure in drawn.items()}
    text = render(
        "data.html.j2", facts=facts, words=words, figures=figures, data_parts=parts,
        classes=_counts(known, ["label"]), sources=_counts(table, ["source", "split"]),
        galleries=[] if images is None else samples(known, images), no_images=no_images,
        pairs=pairs, stop=STOP,
    )  # fmt: skip
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _counts(table: pd.DataFrame, by: list[str]) -> dict[str, list[int]]:
    """Images, positives, groups, patients and lesions of each part, largest first."""
    found = {}
    for name, rows in table.groupby(by):
        ids = [rows[column][rows[column] != ""].nunique() for column in ("patient_id", "lesion_id")]
        positives = int((rows["target"] == 1).sum())
        found[", ".join(map(str, name))] = [len(rows), positives, rows["group"].nunique(), *ids]
    return dict(sorted(found.items(), key=lambda part: -part[1][0]))
