"""A picture sheet of what each preprocessing makes of some photographs, side by side."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lesions.config import PreprocessConfig
from lesions.data.decode import UnreadableImage, decode
from lesions.errors import InputError
from lesions.files import write_bytes

SIZE = 224
_CAPTION = 22  # pixels above the sheet


def write_preview(path: Path, table: pd.DataFrame, config: PreprocessConfig, rows: int = 6) -> None:
    """Write a PNG: a row for each of `rows` photographs spread over the table, a column an option.

    The last column is what the data set's config asks for.
    """
    options = {
        "squash": PreprocessConfig(),
        "pad": PreprocessConfig(fit="pad"),
        "crop": PreprocessConfig(fit="crop"),
        "circle": PreprocessConfig(circle=True),
        "hair": PreprocessConfig(hair=True),
        "shades_of_gray": PreprocessConfig(shades_of_gray=True),
        "clahe": PreprocessConfig(clahe=True),
        "as configured": config,
    }
    found = table.loc[table["path"] != "", "path"].tolist()
    chosen = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, rows, dtype=int))]
    try:
        lines = [[decode(Path(p), SIZE, option)[0] for option in options.values()] for p in chosen]
    except UnreadableImage as error:
        raise InputError(f"{', '.join(chosen)}: {error}: prepare says which") from error
    sheet = np.vstack([np.hstack(line) for line in lines])
    caption = np.full((_CAPTION, sheet.shape[1], 3), 255, np.uint8)
    for column, name in enumerate(options):
        place = (column * SIZE + 4, _CAPTION - 6)
        cv2.putText(caption, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    packed = cv2.imencode(".png", np.vstack([caption, sheet])[..., ::-1])[1]
    write_bytes(path, packed.tobytes())
