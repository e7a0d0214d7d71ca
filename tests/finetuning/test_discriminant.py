"""The linear discriminant as the weights of a head, against scikit-learn."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from squeezenet_paddle.finetuning.discriminant import (
    MARGIN,
    SHRINKAGE,
    discriminant,
    with_discriminant,
)


def images(classes: int, each: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    return rng.normal(size=(len(labels), size)) + 0.5 * rng.normal(size=(classes, size))[
        labels
    ], labels


@pytest.mark.parametrize(("each", "size"), [(4, 30), (20, 5)])  # fewer rows than columns, and more
def test_it_is_that_of_scikit_learn(each: int, size: int) -> None:
    features, labels = images(3, each, size)
    others = np.random.default_rng(1).normal(size=(50, size))
    weight, bias = discriminant(features, labels, 3)
    # Its share is of the mean over all directions; here it is of those that the images span.
    within = features - np.stack([features[labels == c].mean(0) for c in range(3)])[labels]
    covariance = within.T @ within / len(features)
    low = SHRINKAGE * np.trace(covariance) / len(features)
    share = low / (low + (1 - SHRINKAGE) * np.trace(covariance) / size)
    judge = LinearDiscriminantAnalysis("lsqr", shrinkage=share, priors=[1 / 3] * 3)
    expected = judge.fit(features, labels).decision_function(others)
    expected -= expected.mean(axis=1, keepdims=True)
    found = others @ weight + bias
    factor = (found * expected).sum() / (expected**2).sum()
    assert factor > 0
    np.testing.assert_allclose(found, factor * expected, rtol=1e-3, atol=1e-3)


def test_many_images_take_memory_for_their_features_alone() -> None:
    features, labels = images(3, 1000, 5)
    tracemalloc.start()
    try:
        discriminant(features, labels, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * features.nbytes  # a matrix of 3,000 x 3,000 is 600 times as large


def test_its_training_images_have_the_margin_of_trained_heads() -> None:
    features, labels = images(4, 3, 40)
    weight, bias = discriminant(features, labels, 4)
    logits = np.sort(features @ weight + bias, axis=1)
    assert (logits[:, -1] - logits[:, -2]).mean() == pytest.approx(MARGIN)


def test_one_image_of_each_class_and_images_that_are_all_the_same() -> None:
    features = np.eye(2, 6)
    weight, bias = discriminant(features, np.array([0, 1]), 2)
    assert (features @ weight + bias).argmax(axis=1).tolist() == [0, 1]
    for each in discriminant(np.ones((4, 6)), np.array([0, 0, 1, 1]), 2):
        assert np.isfinite(each).all()


def test_the_head_gives_its_logits() -> None:
    rng = np.random.default_rng(0)
    weight, bias, x = (rng.normal(size=shape) for shape in ((6, 3), (3,), (5, 6)))
    state = {
        "fc10.weight": rng.normal(size=(6, 8)),
        "fc10.bias": rng.normal(size=8),
        "fc.weight": rng.normal(size=(8, 3)),
        "fc.bias": rng.normal(size=3),
        "conv1.bias": rng.normal(size=2),
    }
    made = with_discriminant(state, weight, bias)
    hidden = np.maximum(x @ made["fc10.weight"] + made["fc10.bias"], 0)
    np.testing.assert_allclose(hidden @ made["fc.weight"] + made["fc.bias"], x @ weight + bias)
    assert np.array_equal(made["conv1.bias"], state["conv1.bias"])
    assert not np.array_equal(made["fc.bias"], state["fc.bias"])  # the given state is left alone
