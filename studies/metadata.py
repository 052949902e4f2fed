"""Score runs by what is given of age, sex and site, and count photographs called unusual.

    python studies/metadata.py --run ham10000/mobilenetv2 --unseen df vasc --near isic2017=FOLDER

The warning is refitted on fold 0's held-out photographs without the classes `--unseen`, and asked
of those classes and of the folders `--near`, less the photographs that the run's table has.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, pairs, run
from lesions.data.decode import decode
from lesions.data.patients import find_photos
from lesions.errors import InputError
from lesions.evaluation.intervals import Interval, bootstrap
from lesions.evaluation.metrics import Floats, mean, sensitivity, specificity
from lesions.evaluation.scores import score_rows
from lesions.evaluation.thresholds import by_recall
from lesions.inference.calibrate import given_probs
from lesions.inference.calibration import cross_fit
from lesions.inference.ensemble import Run, load_run
from lesions.inference.unusual import QUANTILE, Typical, fit_typical, image_features
from lesions.oof import Oof, load_oof
from lesions.provenance import Results
from lesions.runs import find_run

MOST = 1000  # photographs of a kind that the warning is asked of


def scores_by_given(trained: Run) -> list[dict[str, Any]]:
    """A row a state of the metadata: scores with intervals over groups."""
    name, files, config, oof = trained.name, trained.files, trained.config, load_oof(trained.files)
    people = trained.calibration.people if trained.calibration else []
    if not (config.data.metadata_dropout or people):
        raise InputError(f"{name}: run python scripts/calibrate.py --run {name} first")
    states = {"all": oof.probs} | given_probs(files, oof, config)
    return [{"given": given, **_scores(oof, probs)} for given, probs in states.items()]


def _scores(oof: Oof, probs: Floats) -> dict[str, Any]:
    """Of these probabilities (N, C), at their own threshold and at that of the rows as they are."""
    other, positive, folds = replace(oof, probs=probs), oof.positive, oof.table["fold"].to_numpy()
    scores = score_rows(oof.codes, probs, oof.task.classes, oof.groups)
    kept = cross_fit(other, by_recall).flagged
    as_given = np.zeros(len(positive), bool)
    for fold in np.unique(folds):
        own = folds == fold
        rest = ~own if (~own).any() else own  # one fold alone
        cut = by_recall(positive[rest].astype(int), oof.score[rest])
        as_given[own] = cut.apply(other.score[own]) == 1
    found = dict(scores.overall)
    if "mel" in scores.classes:
        found["melanoma_recall"] = scores.classes["mel"]["recall"]
    for name, flagged in (("own", kept), ("all", as_given)):
        found[f"sensitivity_{name}"] = bootstrap(sensitivity, positive, flagged, oof.groups)
        found[f"specificity_{name}"] = bootstrap(specificity, positive, flagged, oof.groups)
    return {name: interval.as_json() for name, interval in found.items()}


def unusual_by_kind(
    trained: Run, unseen: list[str], near: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """A row a kind of photographs: the share called unlike the training's, by either distance."""
    fold, config = trained.folds[0], trained.config
    table, images = trained.load_data()
    held = table[(table["fold"] == fold.number) & (table["width"] > 0)]
    odd = held["diagnosis"].str.lower().isin(unseen)
    home = held[~odd].sample(min(MOST, int((~odd).sum())), random_state=0).sort_index()
    features = image_features(fold, images[home.index.to_numpy()])
    typical, flagged = fit_typical(features, home["group"].to_numpy())
    spread = features.std(axis=0)
    plain = Typical(mean=features.mean(axis=0).tolist(), limit=0,
                    scale=np.maximum(spread, 1e-3 + 0.01 * spread.max()).tolist())  # fmt: skip
    plain.limit = float(np.quantile(plain.distance(features), QUANTILE))
    kinds: dict[str, tuple[Floats, Any]] = {}
    for name in unseen:
        part = held[held["diagnosis"].str.lower() == name]
        if part.empty:
            raise InputError(f"--unseen {name}: none in fold {fold.number}")
        found = image_features(fold, images[part.index.to_numpy()])
        kinds[f"held-out {name}"] = found, part["group"]
    known = set(table["image_name"])
    for name, folders in near.items():
        photos = [photo for photo in find_photos(folders) if photo.stem not in known]
        if not photos:
            raise InputError(f"--near {name}: all its photographs are in the run's own table")
        drawn = np.random.default_rng(0).permutation(len(photos))[:MOST]
        size, preprocess = config.data.image_size, trained.preprocess
        pixels = [decode(photos[at], size, preprocess)[0] for at in sorted(drawn)]
        kinds[name] = image_features(fold, np.stack(pixels)), np.arange(len(pixels))
    return [
        _shares("held-out rows", flagged, plain.unlike(features), home["group"]),
        *(_shares(name, typical.unlike(found), plain.unlike(found), groups)
          for name, (found, groups) in kinds.items()),
    ]  # fmt: skip


def _shares(kind: str, flagged: np.ndarray, plain: np.ndarray, groups: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "photographs": len(flagged),
        "flagged": bootstrap(mean, flagged, flagged, groups).as_json(),
        "flagged_by_spread_alone": bootstrap(mean, plain, plain, groups).as_json(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--run", nargs="+", required=True, help="runs")
    parser.add_argument("--unseen", nargs="+", default=[], metavar="DIAGNOSIS",
                        help="such as df vasc: left out of the warning's fit")  # fmt: skip
    parser.add_argument("--near", nargs="+", default=[], metavar="NAME=FOLDER",
                        help="photographs of other data sets")  # fmt: skip
    args, results = Results.parse(parser, "metadata.json", arguments)
    near, runs = pairs("--near", args.near), []
    for name in args.run:
        trained = load_run(find_run(name, takes=("run",)))
        found = {
            "run": name,
            "folds": len(trained.folds),
            "backbone": trained.config.model.backbone,
            "scores": scores_by_given(trained),
            "unusual": unusual_by_kind(trained, args.unseen, near),
        }
        runs.append(found)
        for row in found["scores"]:
            told = {key: Interval(**known) for key, known in row.items() if key != "given"}
            print(f"{name}, {row['given']} given:", *(f"  {key} {known}" for key, known in
                  told.items()), sep="\n")  # fmt: skip
        for row in found["unusual"]:
            print(f"{row['kind']}: {row['flagged']['value']:.1%} of {row['photographs']:,} called"
                  f" unusual, {row['flagged_by_spread_alone']['value']:.1%} before")  # fmt: skip
    results.write({"runs": runs})


if __name__ == "__main__":
    run(main)
