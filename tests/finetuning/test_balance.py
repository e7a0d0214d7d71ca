"""The hint at `balance`: where small classes suffer, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from squeezenet_paddle.evaluation.metrics import Predictions
from squeezenet_paddle.finetuning.balance import balance_hint

NAMES = ["ant", "bee", "cat"]


def predictions(labels: list[int], top: list[int]) -> Predictions:
    logits = np.eye(3, dtype="float32")[top]
    return Predictions.from_logits(np.arange(len(labels)), logits, np.array(labels))


def hint(sizes: list[int], labels: list[int], top: list[int]) -> str:
    return balance_hint(np.array(sizes), predictions(labels, top), NAMES)


@pytest.mark.parametrize(
    ("sizes", "wrong", "named"),
    [
        ([90, 90, 30], [8, 9], "cat 50% (30 training images), all 83%"),
        ([90, 20, 30], [8, 9, 4, 5, 6], "bee 25% (20 training images), all 58%"),
        ([90, 90, 31], [8, 9], None),  # not small
        ([90, 90, 30], [0, 4], None),  # others suffer
        ([90, 90, 30], [], None),
    ],
)
def test_small_classes_that_suffer_are_named(
    sizes: list[int], wrong: list[int], named: str | None
) -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    top = [(label + 1) % 3 if i in wrong else label for i, label in enumerate(labels)]
    found = hint(sizes, labels, top)
    assert ("`balance`" in found and named in found) if named else found == ""


def test_a_class_without_validation_images_is_not_judged() -> None:
    assert hint([90, 90, 3], [0, 1], [0, 0]) == ""
