"""Dermoscopic lesion classification: data, models, training, honest scores, blends."""

__version__ = "0.2.0"
