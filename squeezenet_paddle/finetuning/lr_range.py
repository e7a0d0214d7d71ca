"""A learning rate from a short range test (Smith, arXiv:1506.01186, section 3.3).

The rate grows from update to update by the same factor. The loss on validation images, which the
test does not train on, falls or stays, and at some rate it rises. A tenth of the last rate at which
it was still near its lowest is taken; a third, where the run has a warm-up, as it then comes to
that rate as slowly as the test did. Near is measured in the loss of guessing, so that the rule
also holds where training starts with hardly any loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Callable

import numpy as np

from ..data.loader import Batch, Batches
from ..engines.dynamic import DynamicEngine
from ..evaluation.metrics import Scores
from ..network.model import load_state
from ..network.stages import STAGES
from ..parallel.group import Group
from ..progress import track
from ..training.inputs import Inputs
from ..training.run import Run
from ..training.solver import Solver
from ..training.standardise import set_statistics
from .config import FOUND
from .lr_trials import Chosen, best_rate

LOWEST, HIGHEST = 1e-5, 1.0
UPDATES = 40
VAL_IMAGES = 64  # at most, by which a rate is judged
SAFETY, SAFETY_WITH_WARMUP = 10, 3
SMOOTHING = 0.8
NEAR, FAR = 0.05, 0.5  # above the lowest loss, as shares of that of guessing


def rates() -> list[float]:
    """The rates that are tried, one after the other."""
    return np.geomspace(LOWEST, HIGHEST, UPDATES).tolist()


def smoothed(losses: Sequence[float]) -> np.ndarray:
    """The exponential moving average of the losses, without the bias of its start."""
    means, mean = [], 0.0
    for step, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**step))
    return np.array(means)


def choose(losses: Sequence[float], num_classes: int, safety: float = SAFETY) -> float:
    """The learning rate, from the loss of each of the first `rates`.

    Args:
        losses: of the first of these, on images that are not trained on.
        num_classes: which say how large the loss of guessing is.
        safety: the last rate that was near the best is divided by it.
    """
    if not losses:
        return LOWEST
    curve = smoothed(losses)
    near = np.flatnonzero(curve <= curve.min() + NEAR * math.log(num_classes))
    rate = max(rates()[near[-1]] / safety, LOWEST)
    return float(f"{rate:.1g}")  # no more digits than it is worth


def find_lr(run: Run, inputs: Inputs, views: int) -> Chosen:
    """Trains for a few updates, chooses a rate, and gives the network its weights back.

    For a head alone, `lr_trials` compares whole trainings, and may give it other weights.

    Args:
        run: whose network has the weights that it starts from.
        inputs: what is trained on.
        views: of each training image, where there are features.
    """
    network, plan = run.network, run.plan
    classes = network.config.num_classes
    set_statistics(network, inputs, plan.solver.trained_from, run.group)
    if plan.solver.trained_from == STAGES[-1]:
        return best_rate(run, inputs, views)
    before = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    solver = Solver(network, plan, run.device, inputs, Group())
    judge = _judge(run, inputs)
    losses: list[float] = []
    batches = _batches(inputs.train)
    for lr in track(rates(), "learning rate", "updates"):
        network.train()
        trained, images = 0.0, 0
        for part in islice(batches, plan.solver.parts):
            trained += solver.gradients.add(part, epoch=0)[0]
            images += len(part.labels)
        if not images or not math.isfinite(trained) or not solver.update(images, lr):
            break
        losses.append(judge())
        curve = smoothed(losses)
        if not curve[-1] <= curve.min() + FAR * math.log(classes):
            break
    solver.clear_gradients()
    load_state(network, before, "the start")
    safety = SAFETY_WITH_WARMUP if plan.solver.warmup_steps else SAFETY
    return Chosen(choose(losses, classes, safety), FOUND)


def _judge(run: Run, inputs: Inputs) -> Callable[[], float]:
    """A function that gives the mean loss on some images of the validation list."""
    val = inputs.val
    assert val is not None
    step = -(-len(val.images) // VAL_IMAGES)
    # Copied from one batch after the other, as readers use their memory again.
    chosen = ((batch, batch.indices % step == 0) for batch in val.epoch())
    pairs = [(batch.inputs[rows], batch.labels[rows]) for batch, rows in chosen if rows.any()]
    engine = DynamicEngine(
        run.network,
        run.device,
        trained_from=run.plan.solver.trained_from,
        features_size=inputs.features_size,
    )

    def loss() -> float:
        run.network.eval()
        scores = Scores()
        for images, labels in pairs:
            scores.add(engine.logits(images), labels)
        return scores.loss_sum / max(scores.count, 1)

    return loss


def _batches(train: Batches) -> Iterator[Batch]:
    """The batches of epoch after epoch that have images, until an epoch has none."""
    for epoch in count():
        empty = True
        for batch in train.epoch(epoch):
            if len(batch.labels):
                empty = False
                yield batch
        if empty:
            return
