"""Hints for a model that could be better: at chance, rare classes, many images. No Paddle here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.evaluate import Evaluation
from ..evaluation.metrics import class_report, neglected_classes

FEW_IMAGES = 20  # of a class, below which more of them are the first thing to try
MANY_IMAGES = 10_000  # of training, from which training all layers is worth its time; measured
GOOD = 0.99  # top-1 that is good enough


def chance_hint(evaluation: Evaluation, train_images: int, num_classes: int) -> str:
    """What to try where a model scores no better than always naming one class; "" where it does.

    Args:
        evaluation: of the model on the validation images.
        train_images: length of the training list.
        num_classes: of the model.
    """
    labels = evaluation.predictions.labels
    guessing = np.bincount(labels).max() / len(labels)
    top1 = evaluation.summary()["top1"]
    if num_classes == 1 or top1 > guessing:
        return ""
    tries = ["other images: classes that differ in what is seen, and labels that are right"]
    if train_images < FEW_IMAGES * num_classes:
        tries.insert(0, f"more images than {train_images // num_classes} of each class")
    tries.append("`lr` 0.001, or `then` fire8+")
    return (
        f"hint: validation top-1 {top1:.2%} is no better than guessing ({guessing:.2%}); "
        f"what may help: {'; '.join(tries)}"
    )


def balance_hint(evaluation: Evaluation, names: Sequence[str]) -> str:
    """Names the rare classes that are recognised worse, for which `balance` is; "" without any.

    Args:
        evaluation: of the model on the validation images.
        names: of the classes.
    """
    predictions = evaluation.predictions
    scores = class_report(predictions.labels, predictions.predicted, len(names))
    support, recall = scores.support, scores.recall
    worse = neglected_classes(support, recall)
    if not len(worse):
        return ""
    worst = worse[np.argsort(recall[worse], kind="stable")]
    told = [f"{names[i]} ({recall[i]:.1%} of {support[i]} images)" for i in worst[:3]]
    more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
    return (
        f"hint: rare classes are recognised worse than the mean of {scores.macro['recall']:.1%}: "
        f"{', '.join(told)}{more}; `balance` makes all classes count the same"
    )


def stage_hint(evaluation: Evaluation, train_images: int) -> str:
    """Names the second stage where there are images enough for it; "" where there are not.

    Args:
        evaluation: of the model, whose head alone was trained, on the validation images.
        train_images: length of the training list.
    """
    if train_images < MANY_IMAGES or evaluation.summary()["top1"] >= GOOD:
        return ""
    return (
        f"hint: {train_images:,} training images are enough to train all layers, which takes "
        "longer and gains some points: the same command with `then` all"
    )
