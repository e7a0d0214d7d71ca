"""A learning rate for a head on features: of short trainings, the one that validates best.

With features an update takes milliseconds, so that whole trainings can be compared, each with the
schedule of the run. On a small folder a trial is the run itself. There a new head of two layers may
also start as the linear discriminant and stay there: a few validation images tell little of ten
trainings, and it classifies other images better than what does best on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import paddle

from ..data.loader import Batch, Batches
from ..engines.dynamic import DynamicEngine
from ..evaluation.metrics import Scores
from ..model_dir import read_info
from ..network.heads import HEADS
from ..network.model import load_state
from ..parallel.group import Group
from ..progress import track
from ..training.best import Best
from ..training.inputs import Inputs
from ..training.run import Run
from ..training.solver import Solver
from ..training.standardise import head_inputs
from .config import FOUND
from .discriminant import discriminant, with_discriminant

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
# The inputs of a hidden unit are 2,560 standardised numbers, and an update by Adam moves the weight
# of each by the rate: the unit by some 6 of its deviations. A higher rate has to have a higher
# score, as by its loss a model may look good that is only sure of itself.
HIGHEST_OF_EQUALS = 3e-3
STILL = 1e-7  # moves logits by less than 0.1 in a whole run
MOMENTUM_FACTOR = 10  # an update by momentum needs a larger rate than one by Adam
UPDATES = 240  # of a trial, at most
MOST_IMAGES = 512  # of training, of which the discriminant is tried
DISCRIMINANT = (
    "which keeps the head the linear discriminant of the training images, as no training validates "
    "better by more than chance"
)


@dataclass(frozen=True)
class Chosen:
    """A learning rate, and how it was found."""

    rate: float
    how: str


def best_rate(run: Run, inputs: Inputs, views: int) -> Chosen:
    """Tries each rate, and gives the network the weights that training is to start from.

    Args:
        run: of a head.
        inputs: features.
        views: of each training image.
    """
    network, factor = run.network, MOMENTUM_FACTOR if run.plan.solver.optimizer == "momentum" else 1
    before = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    trials: dict[float, Best] = {}
    for rate in track(RATES, "learning rate", "trials"):
        trials[rate] = trial(run.with_lr(factor * rate), inputs)
        load_state(network, before, "the start")
    rate = choose(trials)
    start = discriminant_start(run, inputs, views)
    if start is not None:
        load_state(network, start, "the linear discriminant")
        assert inputs.val is not None
        still = trial(run.with_lr(factor * STILL), inputs)
        if prefers_discriminant(still, trials[rate], len(inputs.val.images)):
            load_state(network, start, "the linear discriminant")
            return Chosen(factor * STILL, DISCRIMINANT)
        load_state(network, before, "the start")
    return Chosen(factor * rate, FOUND)


def prefers_discriminant(still: Best, trained: Best, images: int) -> bool:
    """Whether a trained head validates no better than the discriminant but for chance.

    The difference has to be above its standard error, which is at most the root of the number of
    images that one of the two mistakes.

    Args:
        still: the discriminant's best evaluation.
        trained: that of the best training.
        images: that validate.
    """
    if still.top1 is None or trained.top1 is None:
        return trained.top1 is None
    mistaken = [round(images * (1 - top1)) for top1 in (still.top1, trained.top1)]
    return mistaken[0] - mistaken[1] <= math.sqrt(sum(mistaken))


def discriminant_start(run: Run, inputs: Inputs, views: int) -> dict[str, np.ndarray] | None:
    """The state of the network whose head is the linear discriminant of the training images.

    None where there are many images, the trials are shorter than the run, the head is not a new one
    of two layers, or its hidden units are too few.
    """
    plan, network = run.plan, run.network
    config, head = network.config, HEADS[network.config.head]
    assert plan.config.network.pretrained is not None
    is_new = read_info(plan.config.network.pretrained).network.head != config.head
    fits = head.pools_fires and config.activation == "relu" and is_new
    is_small = len(plan.train) <= MOST_IMAGES and plan.max_steps <= UPDATES
    if not (fits and is_small) or 2 * config.num_classes > network.fc10.bias.shape[0]:
        return None
    rows, labels = [], []
    for batch in (batch for view in range(views) for batch in inputs.train.epoch(view)):
        if len(batch.labels):
            values = head_inputs(network, batch.inputs, inputs, plan.solver.trained_from)
            with paddle.no_grad():
                standardised = network.bn_pools(paddle.to_tensor(values.astype("float32")))
            rows.append(standardised.numpy())
            labels.append(batch.labels)
    present = {label for each in labels for label in each.tolist()}
    if len(present) < max(config.num_classes, 2):
        return None
    fitted = discriminant(np.concatenate(rows), np.concatenate(labels), config.num_classes)
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    return with_discriminant(state, *fitted)


def choose(trials: Mapping[float, Best]) -> float:
    """The rate of the highest top-1 and, of equal ones, of the lowest loss."""

    def score(rate: float) -> tuple[float, bool, float]:
        best = trials[rate]
        top1 = -1.0 if best.top1 is None else best.top1
        return top1, rate <= HIGHEST_OF_EQUALS, -best.loss

    return max(trials, key=score)


def trial(run: Run, inputs: Inputs) -> Best:
    """The best evaluation of a training of at most `UPDATES` updates; none if it diverges."""
    plan, network = run.plan, run.network
    assert inputs.val is not None
    solver = Solver(network, plan, run.device, inputs, Group())
    engine = DynamicEngine(
        network,
        run.device,
        trained_from=plan.solver.trained_from,
        features_size=inputs.features_size,
    )
    updates = min(plan.max_steps, UPDATES)
    interval = min(plan.updates(plan.config.run.eval_interval), updates)
    best = Best()
    for step, (epoch, batch) in enumerate(islice(_batches(inputs.train), updates)):
        network.train()
        loss, _ = solver.gradients.add(batch, epoch)
        rate = plan.solver.rate(step, updates)
        if not (math.isfinite(loss) and solver.update(len(batch.labels), rate)):
            break
        if (step + 1) % interval == 0 or step + 1 == updates:
            with solver.averaged():
                network.eval()
                scores = _scores(engine, inputs.val)
            if not scores.count:
                break  # which training will tell
            best.add(scores.summary())
            if plan.is_done(step + 1, best.not_better):
                break
    solver.clear_gradients()
    return best


def _batches(train: Batches) -> Iterator[tuple[int, Batch]]:
    """The batches of epoch after epoch, each with the number of its epoch."""
    for epoch in count():
        for batch in train.epoch(epoch):
            yield epoch, batch


def _scores(engine: DynamicEngine, val: Batches) -> Scores:
    scores = Scores()
    for batch in val.epoch():
        if len(batch.labels):
            scores.add(engine.logits(batch.inputs), batch.labels)
    return scores
