"""A learning rate from a short range test (Smith, arXiv:1506.01186, section 3.3).

The rate grows from update to update by the same factor; the loss falls, then rises. A tenth of the
rate at which the smoothed loss is lowest is taken.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import paddle
from tqdm import tqdm

from ..loader import Batches
from ..model import SqueezeNet, load_state
from ..training.gradients import Gradients
from ..training.optim import Optimizer, scale_gradients

LOWEST, HIGHEST = 1e-5, 1.0
UPDATES = 60
SMOOTHING = 0.8
DIVERGED = 3.0  # times the lowest loss


def rates() -> list[float]:
    """Those that are tried, one after the other."""
    return np.geomspace(LOWEST, HIGHEST, UPDATES).tolist()


def choose(losses: list[float]) -> float:
    """The learning rate, from the loss of each of the first `rates`."""
    smoothed, mean = [], 0.0
    for step, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**step))
    lowest = rates()[int(np.argmin(smoothed))]
    return float(f"{max(lowest / 10, LOWEST):.1g}")  # no more digits than it is worth


def range_test(
    network: SqueezeNet, gradients: Gradients, optimizer: Optimizer, batches: Batches
) -> float:
    """Trains for a few updates, chooses a rate, and gives the network its weights back.

    Args:
        network: what is trained.
        gradients: of the network.
        optimizer: of its trained parameters, as it is before the first update.
        batches: of the training list.
    """
    before = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    trained = [p for p in network.parameters() if not p.stop_gradient]
    losses: list[float] = []
    source = ((epoch, batch) for epoch in count() for batch in batches.epoch(epoch))
    network.train()
    bar = tqdm(rates(), "learning rate", unit="update", disable=None, dynamic_ncols=True)
    for lr, (epoch, batch) in zip(bar, source):
        if not len(batch.labels):  # none of its pictures can be read
            continue
        loss = gradients.add(batch, epoch)[0] / len(batch.labels)
        if not math.isfinite(loss) or loss > DIVERGED * min([loss, *losses]):
            break
        losses.append(loss)
        with paddle.no_grad():
            scale_gradients(trained, 1 / len(batch.labels))
            optimizer.step(lr)
        for parameter in trained:
            parameter.clear_gradient(False)
    bar.close()
    for parameter in trained:
        parameter.clear_gradient(False)
    load_state(network, before, "the start")
    return choose(losses)
