"""Trained runs at work; `lesions.inference.Predictor` is the way in from other code."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesions.inference.predictor import Predictor as Predictor


def __getattr__(name: str) -> Any:
    # Importing lesions.inference.submit must not pay for what it does not use.
    if name == "Predictor":
        from lesions.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
