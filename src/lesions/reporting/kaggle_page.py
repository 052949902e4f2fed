"""docs/kaggle.md: from an account to a leaderboard score, and what it costs."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.markdown import joined, table

WAY = """\
1. **Account.** Verify its phone number (GPUs need it), join the competition and accept its rules in
   a browser, make a token at kaggle.com/settings/api: `export KAGGLE_API_TOKEN=...`
2. **Small tables.** `python scripts/download.py isic2020 --tables-only`: listed duplicates, lesion
   ids and the sample submission, which Kaggle's notebooks lack or the check at home needs.
3. **Train.** `scripts/kaggle_run.sh {runs}`
   sends code and first weights, has the data prepared on a CPU, trains fold after fold, fetches
   each, predicts, blends. Stop it when you like; the same command goes on. It ends with 75 when the
   week's GPU quota is used up: give it again on Saturday.
4. **Score.** `python scripts/submit.py submissions/blend.csv -m "{count} configs"` checks the file,
   sends it, waits, and writes the score beside the cross-validated one."""

STEPS = """\
The same by hand; `--wait` stays until the output is here, `--write FOLDER` only writes what would
be sent:

```
python scripts/kaggle_push.py code
python scripts/kaggle_push.py weights effnet_b1                  # first weights, folds so far
python scripts/kaggle_push.py kernel prepare isic --size 256 --wait
python scripts/kaggle_push.py kernel train-fold effnet_b1 --fold 0 --wait
python scripts/kaggle_push.py kernel predict effnet_b1 --wait
python scripts/kaggle_push.py kernel blend effnet_b1 effnet_b3 --wait
```"""

WHERE = [
    ["data set `lesions-code`", "`src`, `scripts`, `configs`, small tables, the commit", "", ""],
    ["data set `lesions-weights-<run>`", "the backbone's first weights, trained folds", "", ""],
    ["kernel `lesions-prepare-<data set>`", "originals, code", "`prepared/`", "no GPU"],
    ["kernel `lesions-<run>-fold<k>`", "code, weights, prepared, its own last output",
     "`oof/<run>/`", "T4 x2"],
    ["kernel `lesions-predict-<run>`", "code, weights, prepared", "`submission.csv`", "T4 x2"],
    ["kernel `lesions-blend`", "code, weights, prepared, predictions", "`submission.csv`",
     "no GPU"],
]  # fmt: skip

NOTES = """\
Everything is private, and the kernels have no network: nothing is installed, the image's own
versions are those of `make test-kaggle`. A notebook knows its inputs by what they hold, so any copy
of the originals will do (`--attach owner/name`). Change a config or the code: push `code` again. A
session ends by itself before Kaggle ends it (`--max-hours`, {session:g}) and leaves a state; pushed
again, the kernel goes on from it. Folds trained at home and on Kaggle go into one run as long as
table and config are the same; the table that Kaggle made is fetched to `input/prepared/`.

**Colab**: write code, weights and a kernel with `--write`; put the folders
and a prepared data set anywhere in your Drive, open the notebook, choose a GPU. Results stay in
`MyDrive/lesions`, which is also where the next session goes on from. Opened in a checkout, the same
notebook works on the checkout."""


def kaggle_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/kaggle_hours.py worked out."""
    configs = results["configs"]
    way = WAY.format(runs=" ".join(configs), count=len(configs))
    parts = [
        "<!-- Written by scripts/docs.py from docs/results/kaggle_hours.json: do not edit. -->",
        "# Kaggle: from an account to a leaderboard score",
        way,
        STEPS,
        table(["on Kaggle", "of what", "leaves", "runs on"], WHERE),
        NOTES.format(session=results["session_hours"]),
        "## GPU hours",
        _hours_text(results),
        _hours_table(results),
        _inputs_table(results),
        f"## A plan for the {results['week_hours']:g}-hour week",
        _plan(results),
    ]
    return "\n\n".join(parts) + "\n"


def _hours_text(results: Mapping[str, Any]) -> str:
    published = joined(
        [
            f"{row['backbone']} at {row['pixels']} pixels {row['images_per_second']:,}/s"
            for row in results["published"]
        ]
    )
    return (
        "**Worked out, not measured**: no T4 was at hand. An image is taken to cost a time for "
        "each activation and one for each multiply-add, fitted to three rates that others measured "
        f"on one RTX 3090 ({published}; {results['published_source']}; largest miss "
        f"{results['fit']['largest_miss']:.1%}, with one rate more than unknowns), then carried "
        "over by the ratios below. Loading is not counted: it is taken to keep up. Trust it to a "
        "factor of two until `images_per_second` in your first `fold0.json` tells."
    )


def _hours_table(results: Mapping[str, Any]) -> str:
    rows = [
        [
            f"`{name}`",
            f"{part['pixels']}",
            f"{part['epochs']}",
            f"{part['t4_images_per_second']:.0f}",
            f"{part['two_t4_images_per_second']:.0f}",
            f"{part['fold_hours']:.2f}",
            f"{part['predict_hours']:.2f}",
            f"{part['run_hours']:.1f}",
        ]
        for name, part in results["configs"].items()
    ]
    header = ["config", "pixels", "epochs", "images/s, one T4", "images/s, T4 x2"]
    return table([*header, "h a fold", "h to predict", f"h, {results['folds']} folds"], rows)


def _inputs_table(results: Mapping[str, Any]) -> str:
    rows = [
        [name.replace("_", " "), item["how"], item["source"]]
        for name, item in results["inputs"].items()
    ]
    return table(["input", "value", "source"], rows)


def _plan(results: Mapping[str, Any]) -> str:
    """The configs in their order, as many as a week's quota holds, then the weeks after it."""
    week, used, number, rows = results["week_hours"], 0.0, 1, []
    for name, part in results["configs"].items():
        if used + part["run_hours"] > week:
            number, used = number + 1, 0.0
        used += part["run_hours"]
        rows.append([f"`{name}`", f"{number}", f"{part['run_hours']:.1f}", f"{week - used:.1f}"])
    longest = max(part["fold_hours"] for part in results["configs"].values())
    folds = int(results["session_hours"] / longest)
    total = sum(part["run_hours"] for part in results["configs"].values())
    return (
        f"All of it takes {total:.1f} h, {total / week:.0%} of a week's quota; at half the speed, "
        f"{2 * total:.1f} h. No fold needs more than one session ({longest:.2f} h of "
        f"{results['session_hours']:g}; {folds} would fit). Begin with fold 0 of the first config "
        f"(`FOLDS=0 scripts/kaggle_run.sh {next(iter(results['configs']))}`) and compare its rate "
        "with the table before the rest follows.\n\n"
        + table(["config", "week", "h", "h left that week"], rows)
    )
