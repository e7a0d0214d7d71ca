"""A model over a list file: its scores."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from tqdm import tqdm

from .errors import InputError, describe_problems
from .loader import Loader
from .metrics import Scores, softmax
from .prediction import Predictor


def evaluate(predictor: Predictor, loader: Loader, skip_unreadable: bool = False) -> dict[str, Any]:
    """Counts every picture of a list exactly once, with a progress bar on standard error.

    Args:
        predictor: the model.
        loader: of the whole list, with an `on_unreadable`, so that every bad picture can be named
            at once; its transform may give ten crops, whose probabilities are averaged.
        skip_unreadable: give a score that leaves pictures out.

    Returns:
        images (how many were counted), top1 and top5 in 0..1, loss (mean cross-entropy, nats),
        images_per_second, and unreadable (the messages of those that were left out).

    Raises:
        InputError: a picture cannot be read and `skip_unreadable` is not set, or none can.
    """
    scores, total = Scores(), len(loader.images)
    start = time.perf_counter()
    with tqdm(total=total, unit="image", disable=None) as bar:
        for batch in loader.epoch():
            # Without a score to give, the rest is only read, to name every bad picture.
            if len(batch.indices) and (skip_unreadable or not loader.skipped):
                scores.add(_logits(predictor, batch.inputs), batch.labels)
            bar.update(scores.count + len(loader.skipped) - bar.n)
    seconds = time.perf_counter() - start
    unreadable = [loader.skipped[index] for index in sorted(loader.skipped)]
    if unreadable and not skip_unreadable:
        raise InputError(
            f"{len(unreadable)} of {total} pictures cannot be read, and no score is given that "
            f"leaves pictures out without --skip_unreadable: {describe_problems(unreadable)}"
        )
    if not scores.count:
        raise InputError(f"none of the {total} pictures can be read.")
    return {
        **scores.summary(),
        "images_per_second": scores.count / seconds,
        "unreadable": unreadable,
    }


def _logits(predictor: Predictor, inputs: np.ndarray) -> np.ndarray:
    """Logits [N, C] of [N, *input] or, for [N, 10, *input], the logarithm of mean probabilities."""
    if inputs.ndim == 4:
        return predictor.logits(inputs)
    count, crops = inputs.shape[:2]
    logits = predictor.logits(inputs.reshape(count * crops, *inputs.shape[2:]))
    return np.log(softmax(logits).reshape(count, crops, -1).mean(axis=1))
