"""HAM10000's 17 metadata columns, and the one column more that its table has for them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prepare import main as prepare

from lesions.config import SourceConfig
from lesions.data.columns import Report
from lesions.data.metadata import COLUMNS, encode_metadata, fit_metadata
from lesions.data.sources import read_source
from lesions.data.table import COLUMNS as COLUMNS_OF_A_TABLE
from lesions.data.table import load_table, table_hash
from lesions.errors import InputError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"


def write_rows(folder: Path, *rows: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"L{i},ISIC_{i},nv,histo,{row}\n" for i, row in enumerate(rows)]
    (folder / "HAM10000_metadata.csv").write_text(HEADER + "".join(lines))
    return folder


def rows_of(folder: Path, *rows: str) -> pd.DataFrame:
    source = SourceConfig(folder="")
    table = read_source("ham10000", source, write_rows(folder, *rows), Report(strict=True))
    return table.assign(bytes=1.0, images_per_patient=np.nan)


def test_there_are_17_columns_one_hot_without_the_first_level(tmp_path):
    rows = ["50,male,back", "80,female,abdomen", ",unknown,unknown", "0,male,back"]
    table = rows_of(tmp_path, *rows)
    encoded = encode_metadata(table, "ham10000", fit_metadata(table))
    names = COLUMNS["ham10000"]
    assert encoded.shape == (4, 17) and encoded.dtype == np.float32
    told = [dict(zip(names, row.tolist(), strict=True)) for row in encoded]
    seen = [{name: value for name, value in row.items() if value} for row in told]
    assert seen[0] == {"age/100": 0.5, "male": 1, "back": 1}
    assert seen[1] == {"age/100": pytest.approx(0.8)}
    assert seen[2] == {"age/100": -1, "sex unknown": 1, "place unknown": 1}
    assert seen[3] == {"male": 1, "back": 1}  # a newborn's age is 0, an unknown one -1


def test_a_place_that_no_training_row_showed_is_unknown(tmp_path):
    """Its own column would come with a weight that nothing has taught."""
    table = rows_of(tmp_path, *(f"50,male,{place}" for place in ("back", "ear", "abdomen", "nose")))
    encoded = encode_metadata(table, "ham10000", fit_metadata(table.iloc[:1]))
    places = encoded[:, 3:]
    unknown = COLUMNS["ham10000"].index("place unknown") - 3
    assert places.sum(axis=1).tolist() == [1, 1, 1, 1]
    assert places[:, unknown].tolist() == [0, 1, 1, 1]
    whole = encode_metadata(table, "ham10000", fit_metadata(table))
    assert whole[:, 3 + unknown].tolist() == [0, 0, 0, 1]


def test_a_table_without_places_is_told_what_to_take_instead(tmp_path):
    table = rows_of(tmp_path, "50,male,back").drop(columns="localization")
    assert fit_metadata(table).keys() == {"log_images_per_patient", "log_bytes"}
    with pytest.raises(InputError, match="no column localization: take data.metadata=clinical"):
        encode_metadata(table, "ham10000", fit_metadata(table))


def test_the_table_keeps_the_place_and_reads_it_back(root):
    write_rows(root / "input/ham10000", *["50,male,back", "50,male,unknown"] * 6)
    prepare(["--dataset", "ham10000", "--tables-only"])
    table, facts = load_table("ham10000")
    assert list(table.columns) == [*COLUMNS_OF_A_TABLE, "localization"]
    assert table["localization"].tolist() == ["back", ""] * 6
    assert table["site"].tolist() == ["torso", ""] * 6
    without = table.drop(columns="localization")
    assert table_hash(without) != facts["table_hash"] == table_hash(table)
