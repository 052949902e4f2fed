"""AUC of one blend in well under a millisecond, exact with ties.

`roc_auc_score` sorts all N rows. Here the few positives are sorted, the many negatives are dropped
into equally wide buckets over the positives' range, and only those that share a bucket with a
positive are compared one by one: linear in N, and some twenty times faster at 58,457 rows.
"""

import numpy as np

from lesions.evaluation.metrics import Floats

MOST_BUCKETS = 2**16  # their counts fit the second-level cache


def fast_auc(positives: Floats, negatives: Floats) -> float:
    """Share of (positive, negative) pairs in order, ties half; both float64, finite, not empty."""
    count = len(positives)
    rising = np.sort(positives)
    low, width = rising[0], rising[-1] - rising[0]
    buckets = min(MOST_BUCKETS, max(1024, len(negatives)))
    # A rising function of the score: a higher bucket means a higher score, whatever the rounding.
    # Positives closer together than any bucket can be are compared one by one.
    scale = (buckets - 1) / width if width > 1e-290 else 0.0
    held = np.bincount(((rising - low) * scale).astype(np.int32), minlength=buckets)

    # Two more buckets: 0 for negatives below every positive, the last for those above.
    above = np.zeros(buckets + 2, dtype=np.int32)
    above[0], above[1:-1] = count, count - np.cumsum(held)
    shared = np.zeros(buckets + 2, dtype=bool)
    shared[1:-1] = held > 0

    place = negatives - low
    with np.errstate(over="ignore"):  # infinitely far is far enough for the last bucket
        place *= scale
    np.clip(place, -1, buckets, out=place)
    index = np.floor(place, out=place).astype(np.int32)
    index += 1
    beaten_by = above[index]
    close = shared[index]
    rest = negatives[close]
    lower = np.searchsorted(rising, rest, side="left").sum()
    not_higher = np.searchsorted(rising, rest, side="right").sum()
    settled = int(beaten_by.sum(dtype=np.int64)) - int(beaten_by[close].sum(dtype=np.int64))
    concordant = settled + count * len(rest) - (int(lower) + int(not_higher)) / 2
    return concordant / (count * len(negatives))
