"""The mean and variance that a standardisation has from the first update on, of the training data.

They take the place of a batch's own, which are poor where a batch has few images, and which differ
with the number of processes that share it.
"""

from __future__ import annotations

import contextlib
import math
from itertools import islice

import numpy as np
import paddle

from ..network.config import FIRES
from ..network.heads import HEADS
from ..network.model import SqueezeNet, unpacked
from ..parallel.group import Group
from .inputs import Inputs

IMAGES = 1024  # that are looked at: a deviation is then right to 2 %
_LEAST = 0.1  # of the mean deviation of a fire's channels, which each of its channels has at least


def set_statistics(network: SqueezeNet, inputs: Inputs, trained_from: str, group: Group) -> None:
    """Sets the statistics of a new head, where it has such, from the first epoch's first images.

    Those of a head that was trained before stay as they are.

    Args:
        network: its buffers are set.
        inputs: what is trained on.
        trained_from: the first stage that is trained.
        group: the processes of the run, each of which reads its share of the images.
    """
    name = HEADS[network.config.head].standardised
    if name is None:
        return
    layer = getattr(network, name)
    if layer._mean.numpy().any():
        return
    sums = np.zeros((2, layer._mean.shape[0]))
    count = 0
    batches = inputs.train.epoch()
    with contextlib.closing(batches):
        for batch in islice(batches, math.ceil(IMAGES / inputs.train.sampler.batch_size)):
            if len(batch.labels):
                values = head_inputs(network, batch.inputs, inputs, trained_from)
                sums += values.sum(0), np.square(values).sum(0)
                count += len(values)
    count = group.sum(np.array([count])).item()
    if not count:
        return
    mean, square = group.sum(sums) / count
    layer._mean.set_value(mean.astype("float32"))
    layer._variance.set_value(_variance(square - mean**2).astype("float32"))


@paddle.no_grad()
def head_inputs(
    network: SqueezeNet, images: np.ndarray, inputs: Inputs, trained_from: str
) -> np.ndarray:
    """float64 [N, F]: what the head reads."""
    x = paddle.to_tensor(images)
    if inputs.features_size is None:
        return network.forward_features(x).numpy().astype("float64")
    tensors = unpacked(network.config, x, trained_from, inputs.features_size)
    return network.features(tensors, trained_from).numpy().astype("float64")


def _variance(variance: np.ndarray) -> np.ndarray:
    """Variances without those near 0, which few images may show, and which would blow up others."""
    fires = np.split(variance, np.cumsum([2 * expand for _, expand in FIRES.values()])[:-1])
    least = [np.square(_LEAST * np.sqrt(fire.clip(0)).mean()) for fire in fires]
    return np.concatenate([fire.clip(low) for fire, low in zip(fires, least)])
