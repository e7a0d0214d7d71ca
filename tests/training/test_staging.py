"""Batches that a thread copies: the order of copies, with stand-ins for a GPU's memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
import pytest
from networks import assert_same, build, pixels, take_gradients
from runs import make_tiny_data

from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.loader import Batch, loader_for
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.training.gradients import make_gradients
from squeezenet_paddle.training.staging import Epoch, copied, staged

PATIENCE = 60  # seconds; only what hangs takes as long


class Reader:
    """Batches in one piece of memory, which is overwritten when the next one is asked for.

    Attributes:
        asked: how many have been asked for; set before each is made.
    """

    def __init__(self, count: int = 5) -> None:
        self._count = count
        self.asked = [threading.Event() for _ in range(count + 1)]
        self.is_closed = False

    def epoch(self) -> Epoch:
        memory = np.empty((4, 3), "float32")
        try:
            for i in range(self._count):
                self.asked[i].set()
                memory[:] = i
                yield Batch(np.arange(4), memory, np.full(4, i))
                memory[:] = np.nan
            self.asked[self._count].set()
        finally:
            self.is_closed = True


def test_the_readers_memory_is_copied_before_it_is_overwritten() -> None:
    """However long a copy takes; and the next batch is copied while the caller has this one."""
    reader, may_copy = Reader(), threading.Semaphore(1)
    copies: list[float] = []

    def copy(inputs: np.ndarray) -> np.ndarray:
        begin = inputs.copy()
        assert may_copy.acquire(timeout=PATIENCE)
        assert not reader.asked[len(copies) + 1].is_set()  # while this one is copied
        np.testing.assert_array_equal(inputs, begin)
        copies.append(float(inputs[0, 0]))
        return inputs.copy()

    batches = copied(reader.epoch(), copy)
    for i, batch in enumerate(batches):
        may_copy.release()
        assert reader.asked[i + 1].wait(PATIENCE)  # without giving this one back
        assert len(copies) <= i + 2
        np.testing.assert_array_equal(batch.inputs, np.full((4, 3), i))
        np.testing.assert_array_equal(batch.labels, np.full(4, i))
    assert copies == [0, 1, 2, 3, 4]
    assert reader.is_closed


def test_it_reads_one_batch_ahead_and_no_more() -> None:
    reader = Reader()
    batches = copied(reader.epoch(), np.copy)
    next(batches)
    assert reader.asked[1].wait(PATIENCE)
    assert not reader.asked[2].wait(0.2)
    batches.close()
    assert reader.is_closed


def test_an_error_of_the_reader_comes_with_its_batch() -> None:
    def broken() -> Iterator[Batch]:
        yield from Reader(2).epoch()
        raise RunError("a reader died")

    batches = copied(broken(), np.copy)
    assert [next(batches).labels[0] for _ in "12"] == [0, 1]
    with pytest.raises(RunError, match="a reader died"):
        next(batches)


def test_an_empty_batch_is_not_copied() -> None:
    """One of which no image could be read."""
    empty = Batch(np.empty(0, "int64"), np.empty((0, 3), "float32"), np.empty(0, "int64"))
    assert [*copied((each for each in [empty]), lambda _: pytest.fail("copied"))] == [empty]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_readers_come_bit_for_bit(tmp_path: Path, num_workers: int) -> None:
    data = make_tiny_data(tmp_path / "data")
    images = read_list(data / "train_list.txt", None, 10)
    preprocess = Preprocess(resize_size=40, crop_size=36)
    with loader_for(images, preprocess, 4, num_workers=num_workers) as loader:
        plain = [(b.indices, b.inputs.copy(), b.labels) for b in staged(loader.epoch(), "cpu")]
        kept = [(b.indices, b.inputs, b.labels) for b in copied(loader.epoch(), np.copy)]
    assert len(plain) == len(kept) == 8
    for one, other in zip(plain, kept):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))


@dataclass
class PageLocked:
    """A stand-in for a tensor in page-locked memory, which `Tensor.cuda` takes to the GPU."""

    values: np.ndarray

    @property
    def shape(self) -> list[int]:
        return list(self.values.shape)

    def cuda(self, blocking: bool = True) -> paddle.Tensor:
        assert not blocking
        return paddle.to_tensor(self.values)


def test_gradients_take_staged_batches() -> None:
    network = build()
    inputs, labels = pixels(network.config, 4, 40), np.arange(4)
    gradients = make_gradients(network, "gpu", seed=1)
    expected = gradients.add(Batch(np.arange(4), inputs, labels), epoch=0)
    summed = take_gradients(network)
    (batch,) = copied((b for b in [Batch(np.arange(4), inputs, labels)]), PageLocked)
    assert gradients.add(batch, epoch=0) == expected
    assert_same(take_gradients(network)["conv1.weight"], summed["conv1.weight"])
