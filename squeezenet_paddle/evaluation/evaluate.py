"""Scores a model on a list of images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.decode import MAX_PIXELS
from ..data.lists import ImageList, read_list
from ..data.loader import Batch, loader_for
from ..datasets.folders import labelled_images
from ..errors import InputError, describe_problems
from ..network.logits import softmax
from ..predict import Predictor, check_finite
from ..progress import Progress, say
from .metrics import Predictions, auroc, calibration

if TYPE_CHECKING:
    from ..parallel.group import Group

_NONE = np.empty(0, "int64")


@dataclass(frozen=True)
class Evaluation:
    """The predictions of a model for a list.

    Attributes:
        predictions: for every image that could be read, in the order of the list.
        unreadable: one message for each of the other images.
        seconds: time for reading and predicting.
        threshold: of the model's calibration; None where it has none, or was not applied.
    """

    predictions: Predictions
    unreadable: list[str]
    seconds: float
    threshold: float | None = None

    @property
    def trust(self) -> dict[str, float] | None:
        """How far the model's calibration holds on these images; None where there is none.

        Returns:
            ece and ece_uncalibrated, the expected calibration error with the temperature and
            without; refused, the share of images that are taken for none of the classes.
        """
        if self.threshold is None:
            return None
        p = self.predictions
        correct = p.predicted == p.labels
        return {
            "ece": calibration(p.confidence, correct).error,
            "ece_uncalibrated": calibration(p.uncalibrated, correct).error,
            "refused": float((p.familiarity < self.threshold).mean()),
        }

    def summary(self) -> dict[str, Any]:
        """The scores for a program.

        Returns:
            images (how many were scored), top1 and top5 in 0..1, loss (mean cross-entropy, nats),
            images_per_second, and unreadable; for a model with a calibration also what `trust`
            returns.
        """
        return {
            **self.predictions.scores.summary(),
            **(self.trust or {}),
            "images_per_second": len(self.predictions) / self.seconds,
            "unreadable": self.unreadable,
        }


def evaluate(
    model_dir: str | PathLike[str],
    images: str | PathLike[str],
    data_dir: str | PathLike[str] | None = None,
    *,
    device: str | None = None,
    engine: str = "auto",
    precision: str = "float32",
    **options: Any,
) -> dict[str, Any]:
    """Scores a model directory on a list file, or on a folder that has a folder for each class.

        >>> evaluate("pretrained/squeezenet_v1.1", "data/val_list.txt")["top1"]
        0.5333333333333333

    Args:
        model_dir: a model directory, or the directory of a training run for its best model.
        images: a list file, with "path label" lines or as CSV with the columns image and label,
            where labels are class ids, or class names of the model; or a folder that has a folder
            for each class, with the model's class names.
        data_dir: the folder that the paths of the list start from; None: the list's own folder.
        device, engine, precision: see `Predictor`.
        options: see `score_list`.

    Returns:
        See `Evaluation.summary`.

    Raises:
        InputError: the model or the list is not usable, or an image cannot be read.
    """
    predictor = Predictor(Path(model_dir), device, engine, precision)
    info, root = predictor.info, None if data_dir is None else Path(data_dir)
    if Path(images).is_dir():
        labelled = labelled_images(Path(images), info.names, report=say)
    else:
        labelled = read_list(Path(images), root, info.network.num_classes, info.names)
    return score_list(predictor, labelled, **options).summary()


def _report_skipped(message: str) -> None:
    say(f"skipped: {message}")


def score_list(
    predictor: Predictor,
    images: ImageList,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    ten_crop: bool = False,
    skip_unreadable: bool = False,
    on_skipped: Callable[[str], object] = _report_skipped,
    group: Group | None = None,
) -> Evaluation:
    """Runs a model over a list, counting every image exactly once.

    Progress goes to standard error.

    Args:
        predictor: the model.
        images: the list.
        batch_size: images in a batch, of all processes together.
        num_workers: processes that read images; with more than 0, a script has to start its work
            under `if __name__ == "__main__":`, as always with `multiprocessing`.
        max_pixels: a larger image counts as unreadable.
        ten_crop: average the probabilities of the usual ten crops, not of the center crop alone.
        skip_unreadable: leave out images that cannot be read.
        on_skipped: called once for each of them, with a message that names it; a line on standard
            error if it is not given.
        group: the processes that share the list; each of them gets the result for the whole list.

    Raises:
        InputError: an image cannot be read and `skip_unreadable` is not set, or none can; all of
            them are named at once.
    """
    rank, world_size = (0, 1) if group is None else (group.rank, group.world_size)
    loader = loader_for(
        *(images, predictor.info.preprocess, batch_size),
        ten_crop=ten_crop,
        num_workers=num_workers,
        max_pixels=max_pixels,
        on_unreadable=on_skipped if skip_unreadable else str,
        rank=rank,
        world_size=world_size,
    )
    num_classes = predictor.info.network.num_classes
    parts = [Predictions.from_logits(_NONE, np.empty((0, num_classes), "float32"), _NONE)]
    share = sum(map(len, loader.sampler.batches()))
    start = time.perf_counter()
    with loader, Progress("evaluating", share) as progress:
        read = 0
        for batch in loader.epoch():
            # Once there can be no score, the rest is read only to name every bad image.
            if len(batch.indices) and (skip_unreadable or not loader.skipped):
                parts.append(_predictions(predictor, batch))
            read += len(batch.indices)
            progress.reach(read + len(loader.skipped))
    predictions, skipped = Predictions.concatenate(parts), loader.skipped
    if group is not None:
        predictions = Predictions.from_array(group.sum(predictions.as_array(len(images))))
        skipped = _union(skipped, group)
    seconds = time.perf_counter() - start
    unreadable = [skipped[index] for index in sorted(skipped)]
    if unreadable and not skip_unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(images)} images cannot be read, and `skip_unreadable` is "
            f"not set, so there is no score: {describe_problems(unreadable)}"
        )
    if not len(predictions):
        raise InputError(f"none of the {len(images)} images can be read.")
    if rank == 0:
        for index in sorted(skipped.keys() - loader.skipped.keys()):  # read by another process
            on_skipped(skipped[index])
    calibrated = predictor.info.calibration
    threshold = None if calibrated is None or ten_crop else calibrated.threshold
    return Evaluation(predictions, unreadable, seconds, threshold)


def score_unknown(
    predictor: Predictor,
    images: ImageList,
    known: Evaluation,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    on_skipped: Callable[[str], object] = _report_skipped,
) -> dict[str, Any]:
    """How well a model tells images of none of its classes from those of a list.

    Args:
        predictor: the model, which has a calibration.
        images: none of which is of one of its classes.
        known: its result for the list.
        batch_size, num_workers, max_pixels, on_skipped: as for `score_list`; images that cannot be
            read are left out.

    Returns:
        images, how many were scored; refused, the share that is taken for none of the classes; and
        auroc, the share of pairs of a known and an unknown image in which the known one is the
        more familiar.

    Raises:
        InputError: the model has no calibration, or no image can be read.
    """
    if known.threshold is None:
        raise InputError(
            "`unknown`: the model has no calibration, or `ten_crop` does not use it; `finetune` "
            "gives it one."
        )
    loader = loader_for(
        *(images, predictor.info.preprocess, batch_size),
        num_workers=num_workers,
        max_pixels=max_pixels,
        on_unreadable=on_skipped,
    )
    parts = [np.empty(0)]
    with loader, Progress("unknown images", len(images)) as progress:
        for batch in loader.epoch():
            parts.append(_predictions(predictor, batch).familiarity)
            progress.update(len(parts[-1]))
    familiarity = np.concatenate(parts)
    if not len(familiarity):
        raise InputError(f"`unknown`: none of the {len(images)} images can be read.")
    return {
        "images": len(familiarity),
        "auroc": auroc(known.predictions.familiarity, familiarity),
        "refused": float((familiarity < known.threshold).mean()),
    }


def _union(messages: Mapping[int, str], group: Group) -> dict[int, str]:
    """The messages of all processes, exchanged as rows of bytes, one row per process."""
    data = np.frombuffer(json.dumps(list(messages.items())).encode(), np.uint8)
    lengths = np.zeros(group.world_size)
    lengths[group.rank] = len(data)
    lengths = group.sum(lengths).astype(int)
    rows = np.zeros((group.world_size, lengths.max()))
    rows[group.rank, : len(data)] = data
    rows = group.sum(rows).astype("uint8")
    texts = [row[:length].tobytes() for row, length in zip(rows, lengths)]
    return dict(item for text in texts for item in json.loads(text))


def _predictions(predictor: Predictor, batch: Batch) -> Predictions:
    """The predictions for a batch of [N, *input] or [N, 10, *input].

    Of ten crops the probabilities are averaged; a calibration is for the center crop.
    """
    if batch.inputs.ndim == 4:
        calibration = predictor.info.calibration
        if calibration is None:
            logits = predictor.logits(batch.inputs)
            check_finite(logits)
            return Predictions.from_logits(batch.indices, logits, batch.labels)
        logits, means = predictor.outputs(batch.inputs)
        assert means is not None
        check_finite(logits)
        familiarity = calibration.familiarity(logits, means)
        return Predictions.from_logits(
            batch.indices, logits, batch.labels, calibration.temperature, familiarity
        )
    count, crops = batch.inputs.shape[:2]
    logits = predictor.logits(batch.inputs.reshape(count * crops, *batch.inputs.shape[2:]))
    check_finite(logits)
    logits = np.log(softmax(logits).reshape(count, crops, -1).mean(axis=1))
    return Predictions.from_logits(batch.indices, logits, batch.labels)
