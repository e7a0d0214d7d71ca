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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.loader import Batch, Batches
from ..engines.dynamic import DynamicEngine
from ..errors import InputError, RunError
from ..evaluation.metrics import Scores
from ..model_dir import write_model_dir
from ..network.heads import HEADS
from ..network.model import FEW_CLASSES, load_state
from ..processes import handled_signals, leave_terminal
from ..progress import track
from ..run_dir import BEST, CHECKPOINTS, FINAL
from . import checkpoint
from .best import Best
from .checkpoint import Checkpoint
from .inputs import Inputs
from .log import TrainRecord, ValRecord
from .provenance import write_settings
from .report import RunReport
from .run import Run, TrainResult, changes_since
from .solver import Solver
from .staging import staged
from .standardise import set_statistics

# A loss within 1 % of ln(classes), that of guessing, gets a hint after so many updates, or after
# so many epochs, which come first on a short list.
STUCK_AFTER, STUCK_EPOCHS, STUCK_WITHIN = 200, 10, 0.01
FEWEST_STUCK = 20  # updates
# Dropout and label smoothing may give a good network that loss, but not a top-1 of guessing: of at
# most so often the share of the largest class.
STUCK_TOP1 = 1.5


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
    """Trains the network of a run, whose directory gets `checkpoints/`, `best/` and `final/`.

    Args:
        run: the run; where it has a checkpoint, training goes on from there.
        inputs: what to train and to validate on.
    """

    def __init__(self, run: Run, inputs: Inputs) -> None:
        self.run, self.inputs, plan = run, inputs, run.plan
        self._plan, self._group, self._network = plan, run.group, run.network
        self._solver = Solver(run.network, plan, run.device, inputs, run.group)
        self._engine = DynamicEngine(
            run.network,
            run.device,
            trained_from=plan.solver.trained_from,
            features_size=inputs.features_size,
        )
        config = plan.config.run
        self._log_interval = plan.updates(config.log_interval)
        self._eval_interval = plan.updates(config.eval_interval)
        self._save_interval = plan.updates(config.save_interval)
        self.step = 0
        self._best = Best()
        self._sums = _Sums()
        self._saved: Path | None = None
        self._interrupted = False
        self._hinted = False
        if run.checkpoint is not None:
            with checkpoint.of_a_run(self._plan.output_dir):
                self._restore(run.checkpoint)
        else:
            set_statistics(run.network, inputs, plan.solver.trained_from, run.group)

    @property
    def is_finished(self) -> bool:
        """Whether all updates are done, or there is no more hope for a better score."""
        return self._plan.is_done(self.step, self._best.not_better)

    def train(self) -> TrainResult:
        """Trains to the end of the schedule or of the patience, or until a signal.

        SIGINT (Ctrl-C), SIGTERM and SIGHUP let the update end and save. A second SIGINT ends at
        once; the others may come more than once, from whoever ends a job and from the launcher.

        Raises:
            RunError: the loss is not finite, or a checkpoint cannot be written.
            ImageError: an image cannot be read.
            InputError: none of a list can be read, where single ones are left out.
        """
        if self._group.rank:
            self._train(None)
            self._count_skipped()
            return self._result()
        plan, run = self._plan, self.run
        last = plan.max_steps
        settings = write_settings(run)
        with RunReport(
            plan.output_dir, plan.info, _hyper_parameters(run), last, self.step
        ) as report:
            for line in settings:
                report.note(line)
            report.message(run.headline)
            for note in plan.notes:
                report.message(note)
            if run.checkpoint is not None:
                report.message(f"goes on after update {run.checkpoint.step}")
                for change in changes_since(run.checkpoint, plan):
                    report.message(f"changed: {change}")
            self._train(report)
            if skipped := self._count_skipped():
                report.message(f"{skipped} images could not be read and were left out")
            result = self._result()
            if not result.finished:
                report.message(
                    f"stopped after update {self.step} of {last} and saved; the same command goes "
                    "on from there"
                )
            elif self.step < last:
                report.message(
                    f"finished; after update {self.step}, {plan.solver.patience} evaluations "
                    f"without a better score; {result}"
                )
            else:
                report.message(f"finished; {result}")
            return result

    def _result(self) -> TrainResult:
        folder, finished = self._plan.output_dir, self.is_finished
        best = self._best.top1
        model_dir = folder / BEST if best is not None else folder / FINAL if finished else None
        return TrainResult(folder, model_dir, best, self.step, finished)

    def _restore(self, newest: Checkpoint) -> None:
        """Goes back to a checkpoint of this run."""
        arrays: dict[str, dict[str, np.ndarray]] = {"network": {}, "optimizer": {}, "ema": {}}
        for name, array in newest.arrays.items():
            part, _, key = name.partition("/")
            arrays[part][key] = array
        load_state(self._network, arrays["network"], "the checkpoint")
        self._solver.restore(arrays, newest.record["loss_scale"])
        self.step, record = newest.step, newest.record
        self._best = Best(record["best"], record.get("best_loss", 0.0), record["not_better"])
        self._sums = _Sums(**newest.record["sums"])
        self._saved = self._plan.output_dir / CHECKPOINTS

    def _save(self) -> None:
        """Writes a checkpoint; the first process alone does.

        Raises:
            RunError: the weights are no longer finite, or the disk is full or fails.
        """
        if self._group.rank:
            return
        arrays = {f"network/{k}": v.numpy() for k, v in self._network.state_dict().items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise self._divergence("weights are no longer finite")
        arrays.update(self._solver.arrays())
        record = {
            "settings": dataclasses.asdict(self._plan.settings),
            "best": self._best.top1,
            "best_loss": self._best.loss,
            "not_better": self._best.not_better,
            "sums": dataclasses.asdict(self._sums),
            "loss_scale": self._solver.record(),
        }
        self._saved = checkpoint.save(
            self._plan.output_dir / CHECKPOINTS,
            Checkpoint(self.step, arrays, record),
            self._plan.config.run.keep_checkpoints,
        )

    def _train(self, report: RunReport | None) -> None:
        """Trains; `report` is None in all processes but the first."""
        previous = {number: signal.signal(number, self._interrupt) for number in handled_signals()}
        try:
            self._run_epochs(report)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, _: object) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        if self._interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._interrupted = True

    def _run_epochs(self, report: RunReport | None) -> None:
        last, saved, stopped = self._plan.max_steps, self.step, False
        while not (self.is_finished or stopped):
            epoch, done = divmod(self.step, self._plan.updates_per_epoch)
            for stopped in self._updates(epoch, done, report):
                if report is not None:
                    report.tick(self.step)
                ended = self.step == last
                if self.step % self._log_interval == 0 or ended:
                    self._report_training(report)
                if self.step % self._eval_interval == 0 or ended:
                    self._evaluate(report)
                    ended = self.is_finished
                if self.step % self._save_interval == 0 or ended:
                    self._save()
                    saved = self.step
                if ended or stopped:
                    break
        if saved != self.step:
            self._save()
        if self.is_finished:
            if report is not None:  # the last model comes last, as it tells that all is there
                report.finish()
            with self._solver.averaged():
                self._write_model_dir(FINAL, {})

    def _updates(self, epoch: int, done: int, report: RunReport | None) -> Iterator[bool]:
        """The updates of an epoch from the `done`-th on; each tells whether to stop after it."""
        parts, iter_size = len(self.inputs.train.sampler), self._plan.solver.parts
        batches = staged(self.inputs.train.epoch(epoch, done * iter_size), self.run.device)
        start = time.perf_counter()
        readable = done > 0  # whether the epoch has images, as those before `done` may have been
        with contextlib.closing(batches):
            while done * iter_size < parts:
                count, results = 0, []
                self._network.train()
                for _ in range(min(iter_size, parts - done * iter_size)):
                    waiting = time.perf_counter()
                    batch = next(batches)
                    self._sums.wait += time.perf_counter() - waiting
                    is_first = self.step == 0 and not count and len(batch.labels)
                    if report is not None and is_first and self.inputs.features_size is None:
                        report.images(self.step, np.asarray(batch.inputs), batch.labels)
                    results.append(self._solver.gradients.start(batch, epoch))
                    count += len(batch.labels)
                part_losses, part_hits = zip(*(result() for result in results))
                totals = [sum(part_losses), sum(part_hits), count, self._interrupted]
                loss, hits, count, stop = self._group.sum(np.array(totals, "float64")).tolist()
                if not math.isfinite(loss):
                    raise self._divergence(f"loss is {loss / count}")
                if not self._solver.update(count, self._plan.lr(self.step)):
                    raise self._divergence("gradient is not finite")
                self.step += 1
                done += 1
                readable = readable or count > 0
                if not readable and done * iter_size >= parts:
                    raise _none_readable(self.inputs.train, "training")
                sums = self._sums
                sums.loss, sums.hits = sums.loss + loss, sums.hits + hits
                sums.count += count
                sums.updates += 1
                sums.seconds += time.perf_counter() - start
                yield bool(stop)
                start = time.perf_counter()

    def _divergence(self, what: str) -> RunError:
        saved = f"the last good checkpoint is {self._saved}" if self._saved else "nothing was saved"
        return RunError(
            f"the {what} at update {self.step + 1}, at a learning rate of "
            f"{self._plan.lr(self.step):g}; {saved}. A lower `lr` may help."
        )

    def _report_training(self, report: RunReport | None) -> None:
        sums, self._sums = self._sums, _Sums()
        if report is None:
            return
        count, seconds = max(sums.count, 1.0), max(sums.seconds, 1e-9)
        remaining = self._plan.max_steps - self.step
        report.train(
            TrainRecord(
                step=self.step,
                epoch=self.step / self._plan.updates_per_epoch,
                loss=sums.loss / count,
                top1=sums.hits / count,
                lr=self._plan.lr(self.step - 1),
                images_per_second=sums.count / seconds,
                reader_wait=sums.wait / seconds,
                seconds_left=remaining * seconds / sums.updates,
            )
        )
        hint = self._hint(sums.loss / count, sums.hits / count)
        if hint and not self._hinted:
            self._hinted = True
            report.message(hint)

    def _hint(self, loss: float, top1: float) -> str:
        """What may help where the loss stays at that of guessing; "" where it does not."""
        config, epochs = self._network.config, STUCK_EPOCHS * self._plan.updates_per_epoch
        chance = math.log(config.num_classes)
        if self.step < min(STUCK_AFTER, max(epochs, FEWEST_STUCK)):
            return ""
        labels = self.inputs.train.images.labels
        if top1 > STUCK_TOP1 * np.bincount(labels).max() / len(labels):
            return ""
        if abs(loss - chance) >= STUCK_WITHIN * chance:
            return ""
        help = "a lower `lr` may help"
        bias = self._plan.config.network.classifier_bias
        starts_alive = bias is None and config.num_classes <= FEW_CLASSES
        if HEADS[config.head].has_conv10 and not (bias or starts_alive):
            help = "a run from scratch with `classifier_bias` 3 keeps conv10's ReLU from dying"
        return (
            f"hint: after {self.step} updates the loss still is that of guessing, "
            f"ln({config.num_classes}) = {chance:.2f}; {help}"
        )

    def _evaluate(self, report: RunReport | None) -> None:
        """Scores the validation list and keeps the network in best/ if it is the best so far."""
        if self.inputs.val is not None:
            start = time.perf_counter()
            with self._solver.averaged():
                summary = self._scores(self.inputs.val).summary()
                best = self._best.add(summary)
                if best:
                    self._write_model_dir(BEST, {"val": summary})
            if report is not None:
                report.validation(
                    ValRecord(
                        step=self.step,
                        epoch=self.step / self._plan.updates_per_epoch,
                        loss=summary["loss"],
                        top1=summary["top1"],
                        top5=summary["top5"],
                        images=int(summary["images"]),
                        best=best,
                        seconds=time.perf_counter() - start,
                    )
                )
        if report is not None:
            state = self._network.state_dict()
            names = ("conv1.weight", f"{HEADS[self._network.config.head].classifier}.weight")
            report.snapshot(self.step, {name: state[name].numpy() for name in names})

    def _scores(self, val: Batches) -> Scores:
        """The scores of the validation list, of which each process counts its share."""
        self._network.eval()
        own = Scores()
        batches: Iterable[Batch] = val.epoch()
        if not self._group.rank:
            batches = track(batches, "validating", "batches", len(val.sampler))
        for batch in batches:
            if len(batch.indices):
                own.add(self._engine.logits(batch.inputs), batch.labels)
        scores = Scores.of_array(self._group.sum(own.as_array()))
        if not scores.count:
            raise _none_readable(val, "validation")
        return scores

    def _write_model_dir(self, name: str, scores: dict[str, Any]) -> None:
        if self._group.rank:
            return
        info = self._plan.info
        info = replace(info, source={**info.source, "step": self.step}, scores=scores)
        write_model_dir(self._plan.output_dir / name, info, self._network.state_dict())

    def _count_skipped(self) -> int:
        """How many training images were left out, by whichever process."""
        left_out = np.zeros(len(self.inputs.train.images))
        left_out[list(self.inputs.train.skipped)] = 1
        return int(np.count_nonzero(self._group.sum(left_out)))


def _hyper_parameters(run: Run) -> dict[str, object]:
    """What VisualDL compares runs by. Short names: its board hangs where one is cut off."""
    plan = run.plan
    return {
        "version": plan.info.network.version,
        "optimizer": plan.solver.optimizer,
        "lr": plan.solver.lr,
        "policy": plan.solver.lr_policy,
        "batch": plan.solver.batch_size,
        "decay": plan.solver.weight_decay,
        "updates": plan.max_steps,
        "seed": plan.solver.seed,
    }


def _none_readable(batches: Batches, name: str) -> InputError:
    return InputError(f"none of the {len(batches.images)} images of the {name} list can be read.")
