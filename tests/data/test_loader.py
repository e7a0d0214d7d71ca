"""Batches from processes: the same as from none, exactly once, and errors instead of hangs."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from squeezenet_paddle.data.augment import Augment, TrainTransform
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.loader import Loader, check_files
from squeezenet_paddle.data.preprocess import EvalTransform, Preprocess
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.errors import ImageError, RunError

COUNT = 23  # which neither 2 nor 3 divides
SMALL = Preprocess(resize_size=40, crop_size=32)
AUGMENT = Augment(rotation=20, brightness=0.4, contrast=0.4, saturation=0.4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageList:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        shape = (int(rng.integers(30, 90)), int(rng.integers(30, 90)), 3)
        cv2.imwrite(str(folder / f"{i}.jpg"), rng.integers(0, 256, shape, "uint8"))
    (folder / "list.txt").write_text("".join(f"{i}.jpg {i % 5}\n" for i in range(COUNT)))
    return read_list(folder / "list.txt", None, 5)


def digests(
    images: ImageList, num_workers: int, rank: int = 0, world_size: int = 1, start: int = 0
) -> list[dict[int, str]]:
    """Of every sample of every batch of two epochs, by index."""
    sampler = Sampler(COUNT, 8, shuffle=True, seed=3, rank=rank, world_size=world_size)
    transform = TrainTransform(SMALL, AUGMENT, seed=3)
    with Loader(images, transform, sampler, num_workers) as loader:
        return [
            {
                int(i): hashlib.sha256(x.tobytes()).hexdigest()
                for i, x in zip(batch.indices, batch.inputs)
            }
            for epoch in (0, 1)
            for batch in loader.epoch(epoch, start)
        ]


@pytest.fixture(scope="module")
def alone(images: ImageList) -> list[dict[int, str]]:
    """What one process without workers reads."""
    return digests(images, num_workers=0)


@pytest.mark.parametrize("num_workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(images, alone, num_workers: int) -> None:
    found = digests(images, num_workers)
    assert found == alone
    assert [list(batch) for batch in found] == [list(batch) for batch in alone]  # in this order


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_number_of_processes_changes_nothing(images, alone, num_workers: int) -> None:
    first, second = (digests(images, num_workers, rank, 2) for rank in (0, 1))
    assert [{**a, **b} for a, b in zip(first, second)] == alone


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resume_in_the_middle_of_an_epoch(images, alone, num_workers: int) -> None:
    found = digests(images, num_workers, start=2)
    per_epoch = len(alone) // 2
    assert found == alone[2:per_epoch] + alone[per_epoch + 2 :]


def test_epochs_differ(alone: list[dict[int, str]]) -> None:
    per_epoch = len(alone) // 2
    first, second = (
        {k: v for b in part for k, v in b.items()}
        for part in (alone[:per_epoch], alone[per_epoch:])
    )
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_each_line_once(images, world_size: int, num_workers: int) -> None:
    seen, labels = [], []
    for rank in range(world_size):
        sampler = Sampler(COUNT, 6, rank=rank, world_size=world_size)
        with Loader(images, EvalTransform(SMALL), sampler, num_workers) as loader:
            for batch in loader.epoch():
                assert len(batch.inputs) == len(batch.indices)
                seen += list(batch.indices)
                labels += list(batch.labels)
    assert sorted(seen) == list(range(COUNT))
    assert labels == [i % 5 for i in seen]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_are_those_of_the_transform(images, num_workers: int) -> None:
    with Loader(images, EvalTransform(SMALL), Sampler(COUNT, 5), num_workers) as loader:
        for batch in loader.epoch():
            for index, sample in zip(batch.indices, batch.inputs):
                expected = SMALL(cv2.imread(str(images.path(index))))
                np.testing.assert_array_equal(sample, expected)


@pytest.fixture
def spoiled(tmp_path: Path) -> ImageList:
    """Ten images, of which the 4th and the 7th cannot be read."""
    for i in range(10):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((9, 9, 3), i, "uint8"))
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "6.png").unlink()
    (tmp_path / "list.txt").write_text("".join(f"{i}.png 0\n" for i in range(10)))
    return read_list(tmp_path / "list.txt", None, 1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_ends_the_epoch_with_its_line(spoiled, num_workers: int) -> None:
    tiny = EvalTransform(Preprocess(resize_size=8, crop_size=8))
    with Loader(spoiled, tiny, Sampler(10, 5), num_workers) as loader:
        with pytest.raises(ImageError, match=r"list.txt, line 4: .*3.png: not an image"):
            list(loader.epoch())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_are_left_out_and_named_once(spoiled, num_workers: int) -> None:
    messages: list[str] = []
    tiny = EvalTransform(Preprocess(resize_size=8, crop_size=8))
    with Loader(
        spoiled, tiny, Sampler(10, 4), num_workers, on_unreadable=messages.append
    ) as loader:
        for epoch in (0, 1):
            kept = [list(batch.indices) for batch in loader.epoch(epoch)]
            assert kept == [[0, 1, 2], [4, 5, 7], [8, 9]]
            for batch in loader.epoch(epoch):  # never another image in its place
                np.testing.assert_array_equal(
                    batch.inputs[:, 0, 0, 0] + SMALL.mean[0], batch.indices
                )
    assert sorted(loader.skipped) == [3, 6]
    assert [m.split(":")[0].rpartition(" ")[2] for m in messages] == ["4", "7"]


def test_a_worker_that_dies_ends_the_run_at_once(images: ImageList) -> None:
    with Loader(images, EvalTransform(SMALL), Sampler(COUNT, 2), 2) as loader:
        batches = loader.epoch()
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(RunError, match=r"reader process \d+ died \(exit code -9\)"):
            list(batches)


class Deadly(EvalTransform):
    """Ends its process at one image, as a decoder with a defect may."""

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        super().__call__(image, epoch, index, out)


class Hungry(EvalTransform):
    """Finds no memory at one image."""

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        if index == 5:
            raise MemoryError
        super().__call__(image, epoch, index, out)


def test_a_worker_that_dies_names_its_image(images: ImageList) -> None:
    with Loader(images, Deadly(SMALL), Sampler(COUNT, 4), 1, on_unreadable=str) as loader:
        with pytest.raises(RunError, match=r"\(exit code -9\) while it was reading \S+/5\.jpg;"):
            list(loader.epoch())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_lack_of_memory_is_no_fault_of_the_image(images: ImageList, num_workers: int) -> None:
    with Loader(images, Hungry(SMALL), Sampler(COUNT, 4), num_workers, on_unreadable=str) as loader:
        with pytest.raises(RunError, match=r"/5\.jpg: the memory does not suffice for this image"):
            list(loader.epoch())


def test_leaving_early_leaves_the_loader_usable(images: ImageList) -> None:
    with Loader(images, EvalTransform(SMALL), Sampler(COUNT, 4), 2) as loader:
        for batch in loader.epoch():
            assert list(batch.indices) == [0, 1, 2, 3]
            break
        assert sum(len(batch.indices) for batch in loader.epoch()) == COUNT


class Broken(EvalTransform):
    """A transform with a defect that one image shows."""

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        if index == 5:
            raise KeyError("a defect of the transform")
        super().__call__(image, epoch, index, out)


def test_an_epoch_may_be_left_after_its_loader_is_closed(images: ImageList) -> None:
    """As where an error's traceback still holds the epoch."""
    with Loader(images, EvalTransform(SMALL), Sampler(COUNT, 4), num_workers=2) as loader:
        epoch = loader.epoch()
        next(epoch)
    epoch.close()


def test_a_defect_in_a_worker_shows_its_traceback(images: ImageList) -> None:
    with Loader(images, Broken(SMALL), Sampler(COUNT, 4), 1) as loader:
        with pytest.raises(RuntimeError, match="a defect of the transform"):
            list(loader.epoch())


def test_check_files_finds_what_is_bad(spoiled: ImageList) -> None:
    bad = check_files(spoiled, 2)
    assert sorted(bad) == [3, 6]
    assert "line 4" in bad[3]
    assert "No such file" in bad[6]
