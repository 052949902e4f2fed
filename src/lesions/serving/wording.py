"""A prediction in plain sentences."""

from lesions.data.tasks import DIAGNOSES
from lesions.inference.answers import DISCLAIMER
from lesions.inference.predictor import Prediction, Predictor, is_positive


def sentence(predictor: Predictor, told: Prediction) -> str:
    """What the run says of a photograph, how sure it is, and what speaks against believing it."""
    probs = told.calibrated or told.probs
    best = max(probs, key=probs.__getitem__)
    what = DIAGNOSES.get(best, best)
    if len(probs) == 1:
        parts = [f"The model gives {what} a probability of {percent(probs[best])}."]
    else:
        parts = [f"The model's first guess is {what}, with {percent(probs[best])}."]
    if told.percentile is not None:
        what = "That" if len(probs) == 1 else "Its score of malignancy"
        place = f"{told.percentile:.0f} % of the photographs it was trained on"
        parts.append(f"{what} is more than it gave {place}.")
    parts.append(_decision(predictor, told))
    if told.unusual:
        parts.append(f"Do not rely on it: {'; '.join(told.unusual)}.")
    return " ".join(part for part in parts if part)


def _decision(predictor: Predictor, told: Prediction) -> str:
    known = predictor.mix.calibration
    sure = f"Folds and views differ by {percent(told.spread)} (standard deviation)."
    if not known:
        return f"The run has no threshold. {sure}"
    called = "suspicious" if is_positive(told) else "not suspicious"
    return (
        f"By the run's threshold, which finds {percent(known.threshold.sensitivity)} of the"
        f" positives and clears {percent(known.threshold.specificity)} of the others, that is"
        f" {called}. {sure}"
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if 0.1 <= share <= 0.99 else f"{100 * share:.1f} %"


NOTICE = f"{DISCLAIMER} It does not replace a dermatologist. Photographs are not kept."
