"""The training loop: from batches to a model directory, killed and resumed at will.

Everything random is a function of (seed, epoch, image): the order, the augmentation and the
dropout. A checkpoint between two updates therefore needs no random state, a resumed run repeats an
uninterrupted one bit for bit, and the number of processes changes nothing but the order of sums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..data.loader import Batches
from ..engines.dynamic import DynamicEngine
from ..errors import InputError, RunError
from ..evaluation.metrics import Scores
from ..model_dir import ModelInfo, write_model_dir
from ..network.heads import HEADS
from ..network.model import SqueezeNet, load_state
from ..parallel.group import Group
from ..run_dir import BEST, CHECKPOINTS, FINAL
from . import checkpoint
from .checkpoint import Checkpoint
from .log import TrainRecord, ValRecord
from .optim import Ema, LossScale, joint_norm, scale_gradients
from .recipe import Inputs, Intervals, Machine, Recipe
from .report import RunReport
from .solver import make_solver

STUCK_AFTER = 200  # updates
STUCK_WITHIN = 0.01  # of ln(classes), the loss of a network that has learnt nothing


@dataclass
class _Sums:
    """What the updates since the last line of progress add up to."""

    loss: float = 0.0
    hits: float = 0.0
    count: float = 0.0
    updates: int = 0
    seconds: float = 0.0
    wait: float = 0.0  # seconds of them without a batch to work on


class Trainer:
    """One run in one directory, which gets `checkpoints/`, `best/` and `final/`.

    Args:
        network: what is trained; its weights are the start, unless `restore` is called.
        info: what the model directories of the run say.
        recipe: how to train.
        machine: on what.
        intervals: what happens when.
        inputs: what to train and to validate on.
        output_dir: of the run.
        settings: what a checkpoint says of the hyper-parameters.
        group: the processes of the run.
    """

    def __init__(
        self,
        network: SqueezeNet,
        info: ModelInfo,
        recipe: Recipe,
        machine: Machine,
        intervals: Intervals,
        inputs: Inputs,
        output_dir: Path,
        settings: dict[str, Any],
        group: Group,
    ) -> None:
        self.network, self.info, self.recipe = network, info, recipe
        self.intervals, self.inputs = intervals, inputs
        self.output_dir, self.settings, self.group = output_dir, settings, group
        solver = make_solver(network, recipe, machine, inputs)
        self._parameters = list(solver.parameters.values())
        self._buffers = list(network.buffers())
        self._gradients, self._optimizer = solver.gradients, solver.optimizer
        self._engine = DynamicEngine(
            network, machine.device, trained_from=recipe.first, features_size=inputs.features_size
        )
        self._ema = None if recipe.ema_decay is None else Ema(solver.parameters, recipe.ema_decay)
        scaled = machine.amp is not None and machine.amp.dtype == "float16"
        self._loss_scale = LossScale() if scaled else None
        self._use_loss_scale()
        self.step = 0
        self.best: float | None = None
        self._not_better = 0  # evaluations since the best one
        self._sums = _Sums()
        self._saved: Path | None = None
        self._interrupted = False
        self._hinted = False

    @property
    def updates_per_epoch(self) -> int:
        """The last one of an epoch may have fewer images."""
        return -(-len(self.inputs.train.sampler) // self.recipe.iter_size)

    @property
    def is_finished(self) -> bool:
        """Whether all updates are done, or there is no more hope for a better score."""
        return self.recipe.is_done(self.step, self._not_better)

    def restore(self, found: Checkpoint) -> None:
        """Goes back to a checkpoint of this run."""
        groups: dict[str, dict[str, np.ndarray]] = {"network": {}, "optimizer": {}, "ema": {}}
        for name, array in found.arrays.items():
            group, _, key = name.partition("/")
            groups[group][key] = array
        load_state(self.network, groups["network"], "the checkpoint")
        self._optimizer.set_state_dict(groups["optimizer"])
        if self._ema is not None:
            self._ema.set_state_dict(groups["ema"])
        self.step, self.best = found.step, found.record["best"]
        self._not_better = found.record["not_better"]
        self._sums = _Sums(**found.record["sums"])
        if self._loss_scale is not None:
            self._loss_scale.set_state_dict(found.record["loss_scale"])
            self._use_loss_scale()
        self._saved = self.output_dir / CHECKPOINTS

    def _use_loss_scale(self) -> None:
        self._gradients.loss_scale = 1.0 if self._loss_scale is None else self._loss_scale.value

    def save(self) -> None:
        """Writes a checkpoint; the first process alone does.

        Raises:
            RunError: the weights are no longer finite, or the disk is full or fails.
        """
        if self.group.rank:
            return
        arrays = {f"network/{k}": v.numpy() for k, v in self.network.state_dict().items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise self._divergence("weights are no longer finite")
        arrays.update({f"optimizer/{k}": v for k, v in self._optimizer.state_dict().items()})
        if self._ema is not None:
            arrays.update({f"ema/{k}": v for k, v in self._ema.state_dict().items()})
        record = {
            "settings": self.settings,
            "best": self.best,
            "not_better": self._not_better,
            "sums": dataclasses.asdict(self._sums),
            "loss_scale": self._loss_scale.state_dict() if self._loss_scale else None,
        }
        self._saved = checkpoint.save(
            self.output_dir / CHECKPOINTS,
            Checkpoint(self.step, arrays, record),
            self.intervals.keep,
        )

    def run(self, log: RunReport | None) -> bool:
        """Trains to the end of the schedule or of the patience; False if a signal ended it before.

        SIGINT (Ctrl-C) and SIGTERM let the update end and save; a second one ends at once.

        Args:
            log: where to tell of it; None in all processes but the first.

        Raises:
            RunError: the loss is not finite, or a checkpoint cannot be written.
            ImageError: an image cannot be read.
            InputError: none of a list can be read, where single ones are left out.
        """
        previous = {
            number: signal.signal(number, self._interrupt)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            return self._run(log)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, *_: object) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _run(self, log: RunReport | None) -> bool:
        last, saved, stopped = self.recipe.schedule.max_steps, self.step, False
        while not (self.is_finished or stopped):
            epoch, done = divmod(self.step, self.updates_per_epoch)
            for stopped in self._updates(epoch, done, log):
                if log is not None:
                    log.tick(self.step)
                ended = self.step == last
                if self.step % self.intervals.log == 0 or ended:
                    self._log_training(log)
                if self.step % self.intervals.evaluate == 0 or ended:
                    self._evaluate(log)
                    ended = self.is_finished
                if self.step % self.intervals.save == 0 or ended:
                    self.save()
                    saved = self.step
                if ended or stopped:
                    break
        if saved != self.step:
            self.save()
        if not self.is_finished:
            return False
        with self._averaged():
            self._write_model_dir(FINAL, {})
        return True

    def _updates(self, epoch: int, done: int, log: RunReport | None) -> Iterator[bool]:
        """The updates of an epoch from the `done`-th on; each tells whether to stop after it."""
        parts, iter_size = len(self.inputs.train.sampler), self.recipe.iter_size
        batches = self.inputs.train.epoch(epoch, done * iter_size)
        start = time.perf_counter()
        readable = done > 0  # whether the epoch has images, as those before `done` may have been
        with contextlib.closing(batches):
            while done * iter_size < parts:
                loss = hits = count = 0.0
                self.network.train()
                for _ in range(min(iter_size, parts - done * iter_size)):
                    waiting = time.perf_counter()
                    batch = next(batches)
                    self._sums.wait += time.perf_counter() - waiting
                    first = self.step == 0 and not count and len(batch.labels)
                    if log is not None and first and self.inputs.features_size is None:
                        log.images(self.step, batch.inputs, batch.labels)
                    part_loss, part_hits = self._gradients.add(batch, epoch)
                    loss, hits, count = (
                        loss + part_loss,
                        hits + part_hits,
                        count + len(batch.labels),
                    )
                totals = [loss, hits, count, self._interrupted]
                loss, hits, count, stop = self.group.sum(np.array(totals, "float64")).tolist()
                if not math.isfinite(loss):
                    raise self._divergence(f"loss is {loss / count}")
                self._update(count)
                done += 1
                readable = readable or count > 0
                if not readable and done * iter_size >= parts:
                    raise _none_readable(self.inputs.train, "training")
                sums = self._sums
                sums.loss, sums.hits, sums.count = (
                    sums.loss + loss,
                    sums.hits + hits,
                    sums.count + count,
                )
                sums.updates += 1
                sums.seconds += time.perf_counter() - start
                yield bool(stop)
                start = time.perf_counter()

    @paddle.no_grad()
    def _update(self, count: float) -> None:
        """Divides the gradients by the number of images and lets the optimizer apply them."""
        self.group.sum_gradients(self._parameters)
        factor = 1.0 / (max(count, 1.0) * self._gradients.loss_scale)
        norm = joint_norm(self._parameters) * factor
        finite = math.isfinite(norm)
        if not finite and self._loss_scale is None:
            raise self._divergence("gradient is not finite")
        clip = self.recipe.clip_norm
        if clip is not None and norm > clip:
            factor *= clip / norm
        if finite and count:
            scale_gradients(self._parameters, factor)
            self._optimizer.step(self.recipe.schedule.lr(self.step))
            if self._ema is not None:
                self._ema.update()
        for parameter in self._parameters:
            parameter.clear_gradient(False)
        if self._loss_scale is not None:
            self._loss_scale.update(finite)
            self._use_loss_scale()
        if self._buffers and self.group.world_size > 1:
            self._average_buffers()
        self.step += 1

    def _average_buffers(self) -> None:
        """Batch statistics are of each process's images; all go on with their mean."""
        for buffer in self._buffers:
            total = self.group.sum(buffer.numpy().astype("float64"))
            buffer.set_value((total / self.group.world_size).astype("float32"))

    def _divergence(self, what: str) -> RunError:
        saved = f"the last good checkpoint is {self._saved}" if self._saved else "nothing was saved"
        return RunError(
            f"the {what} at update {self.step + 1}, at a learning rate of "
            f"{self.recipe.schedule.lr(self.step):g}; {saved}. A lower --lr, a longer "
            "--warmup_steps or --clip_norm may help."
        )

    def _log_training(self, log: RunReport | None) -> None:
        sums, self._sums = self._sums, _Sums()
        if log is None:
            return
        count, seconds = max(sums.count, 1.0), max(sums.seconds, 1e-9)
        loss = sums.loss / count
        remaining = self.recipe.schedule.max_steps - self.step
        log.train(
            TrainRecord(
                step=self.step,
                epoch=self.step / self.updates_per_epoch,
                loss=loss,
                top1=sums.hits / count,
                lr=self.recipe.schedule.lr(self.step - 1),
                images_per_second=sums.count / seconds,
                reader_wait=sums.wait / seconds,
                seconds_left=remaining * seconds / sums.updates,
            )
        )
        chance = math.log(self.network.config.num_classes)
        if (
            self.step >= STUCK_AFTER
            and not self._hinted
            and abs(loss - chance) < STUCK_WITHIN * chance
        ):
            self._hinted = True
            log.message(
                f"hint: after {self.step} updates the loss still is that of guessing, "
                f"ln({self.network.config.num_classes}) = {chance:.2f}; a lower --lr or a longer "
                "--warmup_steps may help"
            )

    def _evaluate(self, log: RunReport | None) -> None:
        """Scores the validation list and keeps the network in best/ if it is the best so far."""
        if self.inputs.val is not None:
            start = time.perf_counter()
            with self._averaged():
                summary = self._scores().summary()
                best = self.best is None or summary["top1"] > self.best
                self._not_better = 0 if best else self._not_better + 1
                if best:
                    self.best = summary["top1"]
                    self._write_model_dir(BEST, {"val": summary})
            if log is not None:
                record = ValRecord(
                    step=self.step,
                    epoch=self.step / self.updates_per_epoch,
                    loss=summary["loss"],
                    top1=summary["top1"],
                    top5=summary["top5"],
                    images=int(summary["images"]),
                    best=best,
                    seconds=time.perf_counter() - start,
                )
                log.validation(record)
        if log is not None:
            log.snapshot(self.step, self._weights())

    def _scores(self) -> Scores:
        """Of the whole validation list; each process counts its share."""
        assert self.inputs.val is not None
        self.network.eval()
        own = Scores()
        for batch in self.inputs.val.epoch():
            if len(batch.indices):
                own.add(self._engine.logits(batch.inputs), batch.labels)
        scores = Scores.of_array(self.group.sum(own.as_array()))
        if not scores.count:
            raise _none_readable(self.inputs.val, "validation")
        return scores

    def _averaged(self) -> contextlib.AbstractContextManager[object]:
        """The network with the averaged weights, where there are such."""
        return contextlib.nullcontext() if self._ema is None else self._ema.applied()

    def _weights(self) -> dict[str, np.ndarray]:
        """Weights of the first layer and the classifier."""
        state = self.network.state_dict()
        names = ("conv1.weight", f"{HEADS[self.network.config.head].classifier}.weight")
        return {name: state[name].numpy() for name in names}

    def _write_model_dir(self, name: str, scores: dict[str, Any]) -> None:
        if self.group.rank:
            return
        source = {**self.info.source, "step": self.step}
        info = replace(self.info, source=source, scores=scores)
        write_model_dir(self.output_dir / name, info, self.network.state_dict())


def _none_readable(batches: Batches, name: str) -> InputError:
    return InputError(f"none of the {len(batches.images)} images of the {name} list can be read.")
