"""Whole files or none: everything is written beside its place, synced, and renamed into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesions.errors import InputError, listed

if TYPE_CHECKING:  # imported where it is used: an error message does not wait for it
    import pandas as pd

# What stands for a missing number in a CSV; in a column of names only an empty cell is missing.
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None"]


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends without an error.

    Whoever reads `path` sees the old file or the new one, never a part. A full disk is reported
    with the path and leaves the old file as it was.
    """
    path = Path(path)
    if not path.name:
        raise InputError(f"'{path}' names no file to write to")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic(path) as part:
        part.write_bytes(content)


def copy(file: Path, path: Path) -> None:
    """Copy a file to a path, all of it or nothing."""
    with atomic(path) as part:
        shutil.copyfile(file, part)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, keys: Collection[str] = ()) -> Any:
    """The file's content; InputError if it is missing, not JSON, or no object with those keys."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise InputError(f"{path}: not valid JSON ({error}): delete it, make it again") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise InputError(f"{path}: no {listed(missing)} in it: delete it, make it again")
    return content


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write without index and with every digit: rounding makes ties, and ties cost AUC."""
    with atomic(path) as part:
        table.to_csv(part, index=False)


def read_csv(
    path: Path, columns: Sequence[str] = (), text: Sequence[str] | None = ()
) -> pd.DataFrame:
    """The CSV with at least `columns`; cells of `text` columns are strings, NaN where empty.

    `text` None: all of them. An image, patient or group called NA or null keeps its name. A byte
    order mark is skipped; .tab and .tsv are separated by tabs. InputError for a missing file, one
    that is no comma-separated table in UTF-8, rows longer than the header, or missing columns; it
    says what was found.
    """
    import pandas as pd

    # The parser of pandas 2 may miss a number's last digit, and a tie costs AUC.
    exact: dict[str, Any] = {"float_precision": "round_trip"} if pd.__version__ < "3" else {}
    try:
        sep = "\t" if Path(path).suffix in (".tab", ".tsv") else ","
        header = pd.read_csv(path, nrows=0, sep=sep, encoding="utf-8-sig").columns
        text = list(header) if text is None else text
        table = pd.read_csv(
            path,
            sep=sep,
            dtype={name: str for name in text},
            na_values={name: [""] if name in text else MISSING for name in header},
            keep_default_na=False,
            encoding="utf-8-sig",
            **exact,
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason}): save it as CSV in UTF-8"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: not a comma-separated table: {error}") from error
    if len(header) == 1 and {";", "\t"} & {*header[0]}:
        raise InputError(f"{path}: separated by semicolons or tabs: save it with commas")
    if not isinstance(table.index, pd.RangeIndex):  # pandas has taken the first cells for names
        raise InputError(
            f"{path}: its rows have more cells than its header: quote text with commas"
        )
    for name in table:  # integers that are too long for any number of numpy
        if pd.api.types.is_object_dtype(table[name]) and any(type(c) is int for c in table[name]):
            table[name] = table[name].map(str, na_action="ignore")
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; it has {', '.join(header)}")
    return table


def sha256(path: Path) -> str:
    """Hex digest of the file's bytes, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
