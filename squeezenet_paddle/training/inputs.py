"""What a run reads: batches of images, or of features in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from ..data.augment import TrainTransform
from ..data.lists import ImageList
from ..data.loader import Batches, Loader, Transform
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..progress import say

if TYPE_CHECKING:
    from .run import Run


@dataclass(frozen=True)
class Inputs:
    """What a run reads.

    Attributes:
        train: the training list, whose sampler has batches of a part, `batch_size / iter_size`.
        val: the validation list; None for none.
        features_size: height and width of the images, where the batches hold features before the
            first trained stage in place of pixels, as `model.unpacked` takes them; None: pixels.
    """

    train: Batches
    val: Batches | None
    features_size: int | None = None


def report_skipped(message: str) -> None:
    """Names an image that was left out, on standard error."""
    say(f"skipped: {message}")


@contextlib.contextmanager
def image_inputs(
    run: Run,
    train_transform: Transform | None = None,
    on_skipped: Callable[[str], object] = report_skipped,
) -> Iterator[Inputs]:
    """Readers of the images of a run's lists.

    Args:
        run: the run.
        train_transform: makes training samples; None for the run's augmentation.
        on_skipped: called with a message for each image that is left out, where that is allowed.
    """
    skip = on_skipped if run.plan.config.data.skip_unreadable else None
    plan = run.plan
    preprocess = plan.info.preprocess
    if train_transform is None:
        train_transform = TrainTransform(preprocess, plan.config.augmentation, plan.solver.seed)
    with contextlib.ExitStack() as stack:
        train = stack.enter_context(_loader(run, plan.train, train_transform, skip, shuffle=True))
        val = None
        if plan.val is not None:
            plain = EvalTransform(preprocess)
            val = stack.enter_context(_loader(run, plan.val, plain, skip, shuffle=False))
        yield Inputs(train, val)


def _loader(
    run: Run,
    images: ImageList,
    transform: Transform,
    skip: Callable[[str], object] | None,
    shuffle: bool,
) -> Loader:
    """Reads this process's share of the parts in which batches are computed."""
    solver, machine = run.plan.solver, run.plan.config.machine
    sampler = Sampler(
        len(images),
        solver.batch_size // solver.parts,
        shuffle=shuffle,
        seed=solver.seed,
        rank=run.group.rank,
        world_size=run.group.world_size,
    )
    return Loader(images, transform, sampler, machine.num_workers, machine.max_pixels, skip)
