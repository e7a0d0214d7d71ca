"""Reads batches of images with worker processes, straight into shared memory. No Paddle here.

A worker writes each sample into its place in a batch that the parent also sees; only indices,
paths, errors and remarks go through the pipe. Each worker has its own pipe and a thread that
empties it, so that neither side can block the other and a dead worker is noticed at once.
"""

from __future__ import annotations

import atexit
import itertools
import math
import multiprocessing
import queue
import shutil
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Callable, NamedTuple, Protocol

import cv2
import numpy as np

from ..errors import ImageError, RunError
from ..processes import signals_left_to_parent, wake
from ..progress import Progress, say
from . import remarks
from .at_work import AtWork
from .decode import MAX_PIXELS, memory_errors_named, read_image
from .lists import ImageList
from .preprocess import EvalTransform, Preprocess
from .sampler import Sampler

_CHECKED_AT_ONCE = 64  # images
AHEAD = 2  # batches that are read while the caller works on one
_STALLED = 2.0  # seconds without any answer after which stopped workers are looked for


class Transform(Protocol):
    """Makes a sample from a decoded image: `EvalTransform` or `TrainTransform`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Batch:
    """Samples ready for the network.

    Attributes:
        indices: int64 [n], which lines of the list they are.
        inputs: float32 [n, *transform.shape], in shared memory; overwritten when the next batch is
            requested.
        labels: int64 [n].
    """

    indices: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray


class Batches(Protocol):
    """What a training run reads: a `Loader`, or another source of a sampler's batches.

    Attributes:
        images: the list.
        sampler: which images make up each batch.
        skipped: what was wrong with each image that was left out, by index.
    """

    images: ImageList
    sampler: Sampler
    skipped: dict[int, str]

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]: ...


class Loader:
    """Reads the batches of a sampler in order, ahead of the caller.

    The batches do not depend on the number of workers. Use it as a context, or call `close`.

    Args:
        images: the list.
        transform: from a decoded image to a sample.
        sampler: which images make up each batch.
        num_workers: processes; with 0, or a single batch to read, this process reads.
        max_pixels: a larger image counts as unreadable.
        on_unreadable: called once for each image that cannot be read, with a message that names
            it; the image is left out. None: the first one ends the epoch with an error.

    Attributes:
        skipped: what was wrong with each image that was left out, by index.
    """

    def __init__(
        self,
        images: ImageList,
        transform: Transform,
        sampler: Sampler,
        num_workers: int = 0,
        max_pixels: int = MAX_PIXELS,
        on_unreadable: Callable[[str], object] | None = None,
    ) -> None:
        self.images = images
        self.sampler = sampler
        self.skipped: dict[int, str] = {}
        self._on_unreadable = on_unreadable
        self._reader = _Reader(transform, max_pixels)
        self._shape = (sampler.largest_share, *transform.shape)
        self._tickets = itertools.count()
        self._workers: list[_Worker] = []
        if num_workers and len(sampler) > 1:
            # Spawned, not forked: a fork of a process with threads, as Paddle's are, may hang.
            context = multiprocessing.get_context("spawn")
            slots = _shared_floats(context, (AHEAD + 1) * math.prod(self._shape))
            self._slots = _slots(slots, self._shape)
            with signals_left_to_parent():
                self._workers = [
                    _Worker(context, slots, self._shape, self._reader) for _ in range(num_workers)
                ]
            atexit.register(self.close)

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            worker.close()
        self._workers = []
        atexit.unregister(self.close)

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """Yields the batches of an epoch from the `start`-th on.

        A batch of which every image had to be skipped is yielded empty.

        Raises:
            ImageError: an image cannot be read and there is no `on_unreadable`.
            RunError: a worker died.
        """
        shares = self.sampler.batches(epoch, start)
        if self._workers:
            yield from self._from_workers(epoch, shares)
            return
        for indices in shares:
            inputs = np.empty((len(indices), *self._shape[1:]), "float32")
            paths = [self.images.path(i) for i in indices]
            failures = self._reader.read(_Task(0, 0, epoch, 0, indices, paths), inputs)
            yield self._batch(indices, inputs, failures)

    def _from_workers(self, epoch: int, shares: Iterator[np.ndarray]) -> Iterator[Batch]:
        running: deque[_Job] = deque()
        free = deque(range(AHEAD + 1))
        try:
            while True:
                while len(running) < AHEAD and (indices := next(shares, None)) is not None:
                    running.append(self._send(epoch, indices, free.popleft()))
                if not running:
                    return
                self._wait_for(running[0], running)
                job = running.popleft()
                # The next ones are under way before the caller gets this one.
                if (indices := next(shares, None)) is not None:
                    running.append(self._send(epoch, indices, free.popleft()))
                inputs = self._slots[job.slot][: len(job.indices)]
                yield self._batch(job.indices, inputs, job.failures)
                free.append(job.slot)
        except (GeneratorExit, ImageError):  # leave no answers in the pipes for the next epoch
            for job in running if self._workers else ():
                self._wait_for(job, running)
            raise

    def _send(self, epoch: int, indices: np.ndarray, slot: int) -> _Job:
        job = _Job(next(self._tickets), slot, indices, len(self._workers), [])
        parts = np.array_split(np.arange(len(indices)), len(self._workers))
        turn = job.ticket % len(self._workers)  # so that small batches, too, keep all of them busy
        for worker, part in zip(self._workers[turn:] + self._workers[:turn], parts):
            paths = [self.images.path(i) for i in indices[part]]
            first = int(part[0]) if len(part) else 0
            worker.send(_Task(job.ticket, slot, epoch, first, indices[part], paths))
        return job

    def _wait_for(self, job: _Job, running: deque[_Job]) -> None:
        """Takes answers until every worker has done its part of `job`."""
        by_ticket = {j.ticket: j for j in running}
        pipes = {worker.pipe: worker for worker in self._workers}
        while job.waiting:
            answers = connection.wait(list(pipes), _STALLED)
            for worker in () if answers else self._workers:
                worker.wake()
            for pipe in answers:
                ticket, failures, lines, error = pipes[pipe].receive()
                remarks.log(lines)
                by_ticket[ticket].waiting -= 1
                by_ticket[ticket].failures.extend(failures)
                if error is not None:
                    raise error

    def _batch(self, indices: np.ndarray, inputs: np.ndarray, failures: list[_Failure]) -> Batch:
        good = np.ones(len(indices), bool)
        for position, message in sorted(failures):
            index = int(indices[position])
            message = f"{self.images.where(index)}{message}"
            if self._on_unreadable is None:
                raise ImageError(message)
            if index not in self.skipped:
                self.skipped[index] = message
                self._on_unreadable(message)
            good[position] = False
        if failures:
            indices, inputs = indices[good], inputs[good]
        return Batch(indices, inputs, self.images.labels[indices])


class _Failure(NamedTuple):
    position: int  # in the batch
    message: str


class _Task(NamedTuple):
    """What a worker has to read: neighbours in a batch."""

    ticket: int  # of the job
    slot: int
    epoch: int
    first: int  # position in the batch of the first one
    indices: np.ndarray
    paths: list[Path]


@dataclass
class _Job:
    """A batch that is being read."""

    ticket: int
    slot: int
    indices: np.ndarray
    waiting: int  # workers that have not answered yet
    failures: list[_Failure]


@dataclass(frozen=True)
class _Reader:
    transform: Transform
    max_pixels: int

    def read(
        self, task: _Task, inputs: np.ndarray, at_work: AtWork | None = None
    ) -> list[_Failure]:
        """Reads images into their rows of the batch `inputs`."""
        failures = []
        for row, (index, path) in enumerate(zip(task.indices, task.paths), task.first):
            if at_work is not None:
                at_work.on(path)
            try:
                image = read_image(path, self.max_pixels)
            except ImageError as error:
                failures.append(_Failure(row, str(error)))
            else:
                with memory_errors_named(str(path)):
                    self.transform(image, task.epoch, int(index), inputs[row])
        return failures


class _Worker:
    """A reader process, seen from the parent."""

    def __init__(self, context: Any, slots: Any, shape: tuple[int, ...], reader: _Reader) -> None:
        self.pipe, theirs = context.Pipe()
        self._at_work = AtWork(context)
        arguments = (theirs, slots, shape, reader, self._at_work)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()  # so that the death of the process ends the pipe

    def send(self, task: _Task) -> None:
        try:
            self.pipe.send(task)
        except OSError:
            raise self._death() from None

    def receive(self) -> tuple[int, list[_Failure], list[str], Exception | None]:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> RunError:
        self._process.join(5)
        image = self._at_work.path
        return RunError(
            f"reader process {self._process.pid} died (exit code {self._process.exitcode})"
            f"{image and f' while it was reading {image}'}; a negative code is a signal; -9 often "
            "means that memory ran out."
        )

    def wake(self) -> None:
        if wake(self._process.pid):
            say(f"reader process {self._process.pid} was stopped; it was told to go on")

    def close(self) -> None:
        self.pipe.close()
        self._process.kill()  # it holds nothing that could be lost
        self._process.join()


def _shared_floats(context: Any, count: int) -> Any:
    """Memory that processes share, a file without a name in /dev/shm or the temporary folder.

    Raises:
        RunError: there is no room for it; writing to it would end the process with SIGBUS.
    """
    folders = [Path(folder) for folder in ("/dev/shm", tempfile.gettempdir())]
    room = max(shutil.disk_usage(folder).free for folder in folders if folder.is_dir())
    if room < 4 * count:
        raise RunError(
            f"the readers need {4 * count / 1e6:,.0f} MB of shared memory; /dev/shm and "
            f"{folders[1]} have {room / 1e6:,.0f} MB free at most. Give a smaller `batch_size`, "
            "`num_workers` 0, or another TMPDIR."
        )
    return context.RawArray("f", count)


def _slots(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """float32 [AHEAD + 1, *shape] over shared memory."""
    return np.frombuffer(array, "float32").reshape(AHEAD + 1, *shape)


def _work(pipe: Any, array: Any, shape: tuple[int, ...], reader: _Reader, at_work: AtWork) -> None:
    """The body of a reader process: tasks in, failures out, until the parent closes the pipe."""
    remarks.keep()
    cv2.setNumThreads(1)  # processes for images are faster than threads within an image
    slots = _slots(array, shape)
    tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()

    def take() -> None:
        try:
            while True:
                tasks.put(pipe.recv())
        except (EOFError, OSError):
            tasks.put(None)

    threading.Thread(target=take, daemon=True).start()
    while (task := tasks.get()) is not None:
        failures: list[_Failure] = []
        error: Exception | None = None
        try:
            failures = reader.read(task, slots[task.slot], at_work)
        except RunError as lack:
            error = lack
        except Exception:
            error = RuntimeError(f"a reader process failed:\n{traceback.format_exc()}")
        try:
            pipe.send((task.ticket, failures, remarks.take(), error))
        except OSError:  # the parent has gone
            return


def loader_for(
    images: ImageList,
    preprocess: Preprocess,
    batch_size: int = 32,
    *,
    ten_crop: bool = False,
    num_workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    on_unreadable: Callable[[str], object] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """A loader for evaluation and inference: every image once, in the order of the list.

    Args:
        images: the list.
        preprocess: of the model directory.
        batch_size: of all processes together.
        ten_crop: a sample is the usual ten crops instead of the center crop.
        num_workers, max_pixels, on_unreadable: see `Loader`.
        rank, world_size: which process this is, of how many that share the list.
    """
    sampler = Sampler(len(images), batch_size, rank=rank, world_size=world_size)
    transform = EvalTransform(preprocess, ten_crop)
    return Loader(images, transform, sampler, num_workers, max_pixels, on_unreadable)


@dataclass(frozen=True)
class _NoTransform:
    """Keeps nothing of a decoded image."""

    shape: tuple[int, ...] = (1,)

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        out[:] = 0


def check_files(
    images: ImageList, num_workers: int, max_pixels: int = MAX_PIXELS
) -> dict[int, str]:
    """Decodes every image of a list, with a progress bar; returns what is wrong by index."""
    sampler = Sampler(len(images), _CHECKED_AT_ONCE)
    progress = Progress("checking", len(images))
    with progress, Loader(images, _NoTransform(), sampler, num_workers, max_pixels, str) as loader:
        for indices, _ in zip(sampler.batches(), loader.epoch()):
            progress.update(len(indices))
    return loader.skipped
