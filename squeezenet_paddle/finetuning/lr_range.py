"""A learning rate from a short range test (Smith, arXiv:1506.01186, section 3.3).

The rate grows from update to update by the same factor; the loss falls or stays, and at some rate
it rises. A tenth of the last rate at which it was still near its lowest is taken. Near is measured
in the loss of guessing, so that the rule also holds where training starts with hardly any loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice

import numpy as np
import paddle

from ..data.loader import Batch, Batches
from ..network.model import SqueezeNet, load_state
from ..progress import track
from ..training.optim import scale_gradients
from ..training.plan import Plan
from ..training.recipe import Inputs, Machine
from ..training.solver import make_solver

LOWEST, HIGHEST = 1e-5, 1.0
UPDATES = 40
SAFETY = 10
SMOOTHING = 0.8
NEAR, FAR = 0.05, 0.5  # above the lowest loss, as shares of that of guessing


def rates() -> list[float]:
    """Those that are tried, one after the other."""
    return np.geomspace(LOWEST, HIGHEST, UPDATES).tolist()


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """Their moving average, in which all that came before an update counts."""
    means, mean = [], 0.0
    for step, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**step))
    return np.array(means)


def choose(losses: Sequence[float], num_classes: int) -> float:
    """The learning rate, from the loss of each of the first `rates`."""
    if not losses:
        return LOWEST
    curve = smoothed(losses)
    near = np.flatnonzero(curve <= curve.min() + NEAR * math.log(num_classes))
    found = rates()[near[-1]] / SAFETY
    return float(f"{max(found, LOWEST):.1g}")  # no more digits than it is worth


def find_lr(plan: Plan, network: SqueezeNet, device: str, inputs: Inputs) -> float:
    """Trains for a few updates, chooses a rate, and gives the network its weights back.

    Args:
        plan: of the run.
        network: with the weights that it starts from.
        device: "cpu", "gpu" or "gpu:N".
        inputs: of the run.
    """
    recipe, classes = plan.recipe, network.config.num_classes
    before = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    solver = make_solver(network, recipe, Machine(device), inputs)
    gradients, trained = solver.gradients, solver.parameters.values()
    network.train()
    losses: list[float] = []
    batches = _batches(inputs.train)
    for lr in track(rates(), "learning rate", "updates"):
        loss, images = 0.0, 0
        for part in islice(batches, recipe.iter_size):
            loss += gradients.add(part, epoch=0)[0]
            images += len(part.labels)
        if not images or not math.isfinite(loss):
            break
        losses.append(loss / images)
        curve = smoothed(losses)
        if curve[-1] > curve.min() + FAR * math.log(classes):
            break
        scale_gradients(trained, 1 / images)
        solver.optimizer.step(lr)
        _clear(trained)
    _clear(trained)
    load_state(network, before, "the start")
    return choose(losses, classes)


def _batches(train: Batches) -> Iterator[Batch]:
    """Those of epoch after epoch that have images, until an epoch has none."""
    for epoch in count():
        found = False
        for batch in train.epoch(epoch):
            if len(batch.labels):
                found = True
                yield batch
        if not found:
            return


def _clear(parameters: Iterable[paddle.Tensor]) -> None:
    for parameter in parameters:
        parameter.clear_gradient(False)
