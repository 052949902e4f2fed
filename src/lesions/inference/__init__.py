"""Trained runs at work; `Predictor` and `Patient` are the way in from other code."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("Predictor", "Patient"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lesions.inference import predictor  # not paid for by the other modules

    return getattr(predictor, name)
