"""The log of a training run: lines on the console and in train.log, and metrics.jsonl for programs.

Importing this loads neither Paddle nor VisualDL nor matplotlib.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from ..errors import RunError
from ..files import write_bytes
from ..progress import say
from ..run_dir import METRICS, TRAIN_LOG
from ..temporaries import clear_leftovers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainRecord:
    """The training since the previous record.

    Attributes:
        step: updates done so far.
        epoch: passes over the list done so far, with a fraction.
        loss: mean training loss, in nats.
        top1: share of augmented images that were classified correctly, 0..1.
        lr: learning rate of the last update.
        images_per_second: of all processes together.
        reader_wait: share of the time spent waiting for images, 0..1.
        seconds_left: estimated time to the end of the run.
    """

    step: int
    epoch: float
    loss: float
    top1: float
    lr: float
    images_per_second: float
    reader_wait: float
    seconds_left: float


@dataclass(frozen=True)
class ValRecord:
    """An evaluation during training.

    Attributes:
        step, epoch: as in `TrainRecord`.
        loss: mean cross-entropy, in nats.
        top1, top5: shares of correctly classified images, 0..1.
        images: how many were scored.
        best: whether it is the best one so far.
        seconds: how long it took.
    """

    step: int
    epoch: float
    loss: float
    top1: float
    top5: float
    images: int
    best: bool
    seconds: float


_RECORDS: dict[str, type] = {"train": TrainRecord, "val": ValRecord}


class RunLog:
    """Writes the console output, train.log and metrics.jsonl of a run, in its first process only.

    Lines go to standard error; on a terminal a progress bar stays below them. Every line is
    written immediately, so killing the process loses none. Use it as a context, or call `close`.

    A resumed run drops from metrics.jsonl what was recorded after `start_step`, so that every point
    is there once. A step therefore has to be recorded before its checkpoint is saved. train.log is
    a history and keeps everything.

    Args:
        folder: directory of the run; created if it does not exist.
        max_steps: updates of the whole run.
        start_step: updates done when this process starts; 0 empties metrics.jsonl.
        num_classes: of the network; with fewer than five, top-5 is top-`num_classes`.

    Raises:
        InputError, RunError: a file cannot be written; the methods raise RunError then.
    """

    def __init__(
        self, folder: Path, max_steps: int, start_step: int = 0, num_classes: int = 1000
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        _drop_after(folder / METRICS, start_step)
        self._max_steps, self._top_k = max_steps, min(5, num_classes)
        # Unbuffered: a line is one write, which a kill cannot cut.
        self._log = (folder / TRAIN_LOG).open("ab", buffering=0)
        self._metrics = (folder / METRICS).open("ab", buffering=0)
        self._bar = tqdm(
            total=max_steps,
            initial=start_step,
            unit="step",
            dynamic_ncols=True,
            disable=None,  # unless on a terminal
        )

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def train(self, record: TrainRecord) -> None:
        """Logs a training record: one line."""
        self._record("train", record)
        self.message(
            f"{self._position(record)}  loss {record.loss:.4f}  top-1 {record.top1:6.2%}  "
            f"lr {record.lr:<9.4g}  {record.images_per_second:.1f} images/s  "
            f"reader wait {record.reader_wait:.1%}  ETA {duration(record.seconds_left)}"
        )

    def validation(self, record: ValRecord) -> None:
        """Logs an evaluation: one line."""
        self._record("val", record)
        self.message(
            f"{self._position(record)}  validation loss {record.loss:.4f}  "
            f"top-1 {record.top1:.2%}  top-{self._top_k} {record.top5:.2%}  "
            f"{record.images} images  "
            f"{record.seconds:.1f} s{'  best so far' if record.best else ''}"
        )

    def message(self, text: str) -> None:
        """Shows `text` on the console and appends it to train.log with the time."""
        say(text)
        self.note(text)

    def note(self, text: str) -> None:
        """Appends `text` to train.log alone, with the time."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = "".join(f"{now}  {line}\n" for line in text.splitlines())
        append(self._log, lines.encode("utf-8", "backslashreplace"))

    def tick(self, step: int) -> None:
        """Moves the progress bar to `step` updates done.

        Raises:
            RunError: the directory of the run is no longer where it was; what is written from now
                on would be a part of a run in a place of its own.
        """
        file = Path(self._metrics.name)
        try:
            is_there = os.path.samestat(os.fstat(self._metrics.fileno()), file.stat())
        except OSError:
            is_there = False
        if not is_there:
            raise RunError(
                f"{file}: it was moved or removed, or its directory was, while the run was "
                f"writing there; the run ends after update {step}. From the place where its "
                "checkpoints are, the same command goes on."
            )
        self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Closes the progress bar and the files."""
        self._bar.close()
        self._log.close()
        self._metrics.close()

    def _position(self, record: TrainRecord | ValRecord) -> str:
        width = len(str(self._max_steps))
        return f"epoch {record.epoch:.2f}  step {record.step:{width}}/{self._max_steps}"

    def _record(self, kind: str, record: TrainRecord | ValRecord) -> None:
        fields = {name: _finite(value) for name, value in dataclasses.asdict(record).items()}
        line = json.dumps({"kind": kind, **fields, "time": round(time.time(), 3)})
        append(self._metrics, f"{line}\n".encode())


def append(file: BinaryIO, data: bytes) -> None:
    """Writes `data` to an unbuffered file, with a single call unless the disk is full.

    Raises:
        RunError: it cannot be written.
    """
    try:
        while data:  # a disk that is filling up takes part of it
            data = data[file.write(data) :]
    except OSError as error:
        raise RunError(f"{file.name}: cannot be written ({error.strerror}).") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without lines that are damaged or cut off.

    Each has "kind", "train" or "val", the fields of `TrainRecord` or `ValRecord`, and "time" in
    seconds since 1970. NaN and infinity are None.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [record for record in map(_parsed, lines) if record is not None]


def duration(seconds: float) -> str:
    """Formats a time as 1:02:03, or as 2d 03:04:05 from a day on; "?" if it is not finite."""
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{minute:02}:{second:02}"
    return f"{days}d {hour:02}:{clock}" if days else f"{hour}:{clock}"


def _drop_after(path: Path, step: int) -> None:
    """Removes what was recorded after `step`, everything if that is 0, and damaged lines."""
    if not path.exists():
        return
    before = path.read_bytes()
    lines = before.splitlines() if step > 0 else []
    records = [_parsed(line) for line in lines]
    if damaged := records.count(None):
        logger.warning(
            f"{path}: {damaged} of its {len(lines)} lines are damaged or cut off and were left out."
        )
    kept = [line + b"\n" for line, r in zip(lines, records) if r and r["step"] <= step]
    after = b"".join(kept)
    if after != before:
        write_bytes(path, after)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The record in a line of metrics.jsonl; None if the line is damaged or cut off."""
    try:
        record = json.loads(line)
        fields = dataclasses.fields(_RECORDS[record["kind"]])
        values = [record[field.name] for field in fields]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    numbers = all(value is None or isinstance(value, (int, float)) for value in values)
    return record if numbers and isinstance(record["step"], int) else None


def _finite(value: Any) -> Any:
    """None for infinity and NaN, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
