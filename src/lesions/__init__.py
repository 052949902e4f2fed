"""Dermoscopic lesion classification: data, models, training, honest scores, blends."""
