"""A learning rate for a head on features: of short trainings, the one that validates best.

With features an update takes milliseconds, so that whole trainings can be compared, each with the
schedule of the run. On a small folder a trial is the run itself, and the rate that is taken is
never worse than another of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count, islice

from ..data.loader import Batch, Batches
from ..engines.dynamic import DynamicEngine
from ..evaluation.metrics import Scores
from ..network.model import load_state
from ..parallel.group import Group
from ..progress import track
from ..training.inputs import Inputs
from ..training.run import Run
from ..training.solver import Solver

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
MOMENTUM_FACTOR = 10  # an update by momentum needs a larger rate than one by Adam
UPDATES = 240  # of a trial, at most

Score = tuple[float, float]  # top-1 and minus the loss, of which larger is better


def best_rate(run: Run, inputs: Inputs) -> float:
    """Tries each rate, and gives the network its weights back."""
    network, factor = run.network, MOMENTUM_FACTOR if run.plan.solver.optimizer == "momentum" else 1
    before = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    scores: dict[float, Score] = {}
    for rate in track([factor * rate for rate in RATES], "learning rate", "trials"):
        score = _trial(run.with_lr(rate), inputs)
        load_state(network, before, "the start")
        if score is not None:
            scores[rate] = score
    return max(scores, key=lambda rate: scores[rate], default=factor * RATES[0])


def _trial(run: Run, inputs: Inputs) -> Score | None:
    """The best score of a training of at most `UPDATES` updates; None if it diverges at once."""
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
    best: Score | None = None
    not_better = 0
    for step, (epoch, batch) in enumerate(islice(_batches(inputs.train), updates)):
        network.train()
        loss, _ = solver.gradients.add(batch, epoch)
        rate = plan.solver.rate(step, updates)
        if not (math.isfinite(loss) and solver.update(len(batch.labels), rate)):
            break
        if (step + 1) % interval == 0 or step + 1 == updates:
            with solver.averaged():
                network.eval()
                score = _score(engine, inputs.val)
            if best is None or score > best:
                best, not_better = score, 0
            else:
                not_better += 1
            if plan.is_done(step + 1, not_better):
                break
    solver.clear_gradients()
    return best


def _batches(train: Batches) -> Iterator[tuple[int, Batch]]:
    """The batches of epoch after epoch, each with the number of its epoch."""
    for epoch in count():
        for batch in train.epoch(epoch):
            yield epoch, batch


def _score(engine: DynamicEngine, val: Batches) -> Score:
    scores = Scores()
    for batch in val.epoch():
        if len(batch.labels):
            scores.add(engine.logits(batch.inputs), batch.labels)
    return scores.top1_hits / max(scores.count, 1), -scores.loss_sum / max(scores.count, 1)
