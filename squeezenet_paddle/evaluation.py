"""A model over a list file: its scores."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm

from .dataset import ImageList, read_batches
from .errors import InputError, describe_problems
from .metrics import Scores
from .prediction import Predictor
from .preprocess import MAX_PIXELS


def evaluate(
    predictor: Predictor,
    images: ImageList,
    batch_size: int = 32,
    num_workers: int = 2,
    max_pixels: int = MAX_PIXELS,
    skip_unreadable: bool = False,
) -> dict[str, Any]:
    """Counts every picture of a list exactly once, with a progress bar on standard error.

    Returns:
        images (how many were counted), top1 and top5 in 0..1, loss (mean cross-entropy, nats),
        images_per_second, and unreadable (the messages of those that were left out).

    Raises:
        InputError: a picture cannot be read and `skip_unreadable` is not set, or none can.
    """
    scores, unreadable = Scores(), []
    start = time.perf_counter()
    with tqdm(total=len(images.paths), unit="image", disable=None) as bar:
        for batch in read_batches(
            images.paths, predictor.info.preprocess, batch_size, num_workers, max_pixels
        ):
            unreadable += [str(error) for error in batch.failures]
            # Without a score to give, the rest is only read, to name every bad picture at once.
            if len(batch.indices) and (skip_unreadable or not unreadable):
                scores.add(predictor.logits(batch.inputs), images.labels[batch.indices])
            bar.update(len(batch.indices) + len(batch.failures))
    seconds = time.perf_counter() - start
    if unreadable and not skip_unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(images.paths)} pictures cannot be read, and no score is "
            f"given that leaves pictures out without --skip_unreadable: "
            f"{describe_problems(unreadable)}"
        )
    if not scores.count:
        raise InputError(f"none of the {len(unreadable)} pictures can be read.")
    return {
        **scores.summary(),
        "images_per_second": scores.count / seconds,
        "unreadable": unreadable,
    }
