"""Trained runs at work; `lesions.inference.Predictor` is the way in from other code."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lesions.inference.predictor import Predictor  # not paid for by the other modules

    return Predictor
