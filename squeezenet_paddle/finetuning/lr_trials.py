"""A learning rate for a head on features: of short trainings, the one that validates best.

With features an update takes milliseconds, so that whole trainings can be compared, each with the
schedule of the run. On a small folder a trial is the run itself, and the rate that is taken is
never worse than another of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import count, islice

from ..data.loader import Batch, Batches
from ..engines.dynamic import DynamicEngine
from ..evaluation.metrics import Scores
from ..network.model import load_state
from ..parallel.group import Group
from ..progress import track
from ..training.best import Best
from ..training.inputs import Inputs
from ..training.run import Run
from ..training.solver import Solver

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
# The inputs of a hidden unit are 2,560 standardised numbers, and an update by Adam moves the weight
# of each by the rate: the unit by some 6 of its deviations. A higher rate has to have a higher
# score, as by its loss a model may look good that is only sure of itself.
HIGHEST_OF_EQUALS = 3e-3
MOMENTUM_FACTOR = 10  # an update by momentum needs a larger rate than one by Adam
UPDATES = 240  # of a trial, at most


def best_rate(run: Run, inputs: Inputs) -> float:
    """Tries each rate, and gives the network its weights back."""
    network, factor = run.network, MOMENTUM_FACTOR if run.plan.solver.optimizer == "momentum" else 1
    before = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    trials: dict[float, Best] = {}
    for rate in track(RATES, "learning rate", "trials"):
        trials[rate] = trial(run.with_lr(factor * rate), inputs)
        load_state(network, before, "the start")
    return factor * choose(trials)


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
