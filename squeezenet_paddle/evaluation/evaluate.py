"""A model over a list file: what it says of each image, and its scores."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.loader import Loader
from ..errors import InputError, describe_problems
from ..network.logits import softmax
from ..predict import Predictor
from ..progress import Progress
from .metrics import Predictions

if TYPE_CHECKING:
    from ..parallel.group import Group


_NONE = np.empty(0, "int64")


@dataclass(frozen=True)
class Evaluation:
    """What a model made of a list.

    Attributes:
        predictions: of every image that could be read, in the order of the list.
        unreadable: what was wrong with the others.
        seconds: that reading and predicting took.
    """

    predictions: Predictions
    unreadable: list[str]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """The scores as a program wants them.

        images (how many were counted), top1 and top5 in 0..1, loss (mean cross-entropy, nats),
        images_per_second, and unreadable.
        """
        return {
            **self.predictions.scores.summary(),
            "images_per_second": len(self.predictions) / self.seconds,
            "unreadable": self.unreadable,
        }


def evaluate(
    predictor: Predictor,
    loader: Loader,
    skip_unreadable: bool = False,
    group: Group | None = None,
) -> Evaluation:
    """Counts every image of a list exactly once, with a progress bar on standard error.

    Args:
        predictor: the model.
        loader: of the list, or of this process's share of it, with an `on_unreadable`, so that
            every bad image can be named at once; its transform may give ten crops, whose
            probabilities are averaged.
        skip_unreadable: give a score that leaves images out.
        group: the processes that share the list; each of them gets what all made of it.

    Raises:
        InputError: an image cannot be read and `skip_unreadable` is not set, or none can.
    """
    classes = predictor.info.network.num_classes
    parts = [Predictions.of(_NONE, np.empty((0, classes), "float32"), _NONE)]
    read, total = 0, len(loader.images)
    start = time.perf_counter()
    own_total = sum(map(len, loader.sampler.batches()))
    with Progress("evaluating", own_total) as progress:
        for batch in loader.epoch():
            # Without a score to give, the rest is only read, to name every bad image.
            if len(batch.indices) and (skip_unreadable or not loader.skipped):
                logits = _logits(predictor, batch.inputs)
                parts.append(Predictions.of(batch.indices, logits, batch.labels))
            read += len(batch.indices)
            progress.reach(read + len(loader.skipped))
    predictions, skipped = Predictions.joined(parts), loader.skipped
    if group is not None:
        predictions = Predictions.of_array(group.sum(predictions.as_array(total)))
        skipped = _union(skipped, group)
    seconds = time.perf_counter() - start
    unreadable = [skipped[index] for index in sorted(skipped)]
    if unreadable and not skip_unreadable:
        raise InputError(
            f"{len(unreadable)} of {total} images cannot be read, and no score is given that "
            f"leaves images out without --skip_unreadable: {describe_problems(unreadable)}"
        )
    if not len(predictions):
        raise InputError(f"none of the {total} images can be read.")
    return Evaluation(predictions, unreadable, seconds)


def _union(messages: dict[int, str], group: Group) -> dict[int, str]:
    """Those of all processes, sent as bytes that stand in a row for each process."""
    data = np.frombuffer(json.dumps(list(messages.items())).encode(), np.uint8)
    lengths = np.zeros(group.world_size)
    lengths[group.rank] = len(data)
    lengths = group.sum(lengths).astype(int)
    rows = np.zeros((group.world_size, lengths.max()))
    rows[group.rank, : len(data)] = data
    rows = group.sum(rows).astype("uint8")
    texts = [row[:length].tobytes() for row, length in zip(rows, lengths)]
    return dict(item for text in texts for item in json.loads(text))


def _logits(predictor: Predictor, inputs: np.ndarray) -> np.ndarray:
    """Logits [N, C] of [N, *input] or, for [N, 10, *input], the logarithm of mean probabilities."""
    if inputs.ndim == 4:
        return predictor.logits(inputs)
    count, crops = inputs.shape[:2]
    logits = predictor.logits(inputs.reshape(count * crops, *inputs.shape[2:]))
    return np.log(softmax(logits).reshape(count, crops, -1).mean(axis=1))
