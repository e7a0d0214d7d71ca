"""Classes of few images: whether the model finds them less often than the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import describe_problems
from ..evaluation.metrics import Predictions

UNEVEN = 3  # times as many images in the largest class
LOW = 0.1  # below the share of all images that are right


def balance_hint(sizes: np.ndarray, found: Predictions, names: Sequence[str]) -> str:
    """Names the small classes whose recall suffers.

    Args:
        sizes: int64 [C], training images of each class.
        found: of the validation images.
        names: of the classes.

    Returns:
        A line; "" if no class is small, or none suffers.
    """
    right = found.top[:, 0] == found.labels
    counts = np.bincount(found.labels, minlength=len(sizes))
    recall = np.bincount(found.labels[right], minlength=len(sizes)) / np.maximum(counts, 1)
    small = (sizes * UNEVEN <= sizes.max()) & (counts > 0)
    low = np.flatnonzero(small & (recall < right.mean() - LOW))
    if not len(low):
        return ""
    worst = [
        f"{names[c]} {recall[c]:.0%} ({sizes[c]} training images)"
        for c in low[np.argsort(recall[low], kind="stable")].tolist()
    ]
    return (
        f"classes of few images are found less often: {describe_problems(worst)}, all "
        f"{right.mean():.0%}; `balance` makes every class count the same"
    )
