"""Scores against plain loops and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from squeezenet_paddle.evaluation.metrics import (
    ConfusedPair,
    Predictions,
    Scores,
    calibration,
    class_report,
    confused_pairs,
    confusion_matrix,
    second_k,
)
from squeezenet_paddle.network.logits import log_softmax, softmax, top_k


def test_top_k_is_ordered_and_equal_logits_go_by_id() -> None:
    logits = np.array([[1, 3, 3, 2], [0, 0, 0, 0], [-1, -2, -3, 9]], "float32")
    assert top_k(logits, 3).tolist() == [[1, 2, 3], [0, 1, 2], [3, 0, 1]]


def test_top_k_has_at_most_as_many_columns_as_there_are_classes() -> None:
    assert top_k(np.array([[1, 2]], "float32"), 5).tolist() == [[1, 0]]


def test_the_second_accuracy_is_named_after_what_it_counts() -> None:
    assert [second_k(classes) for classes in (2, 3, 5, 6, 1000)] == [2, 3, 5, 5, 5]


def test_log_softmax_by_hand() -> None:
    logits = np.log(np.array([[1.0, 3.0], [2.0, 2.0]]))
    np.testing.assert_allclose(np.exp(log_softmax(logits)), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.75], [0.5, 0.5]])


def test_log_softmax_of_large_logits_is_finite_and_exact() -> None:
    logits = np.array([[1e4, 0.0], [3e38, -3e38]], "float32")
    np.testing.assert_allclose(log_softmax(logits)[0], [0.0, -1e4])
    assert np.isfinite(log_softmax(logits)).all()
    assert log_softmax(logits).dtype == np.float64


@given(st.data(), st.integers(1, 8), st.integers(1, 12), st.integers(1, 12))
def test_scores_over_batches_equal_a_plain_loop(
    data: st.DataObject, classes: int, count: int, batch: int
) -> None:
    values = st.integers(-4, 4).map(float)  # few values, so that there are ties
    logits = data.draw(arrays("float32", (count, classes), elements=values))
    labels = data.draw(arrays("int64", count, elements=st.integers(0, classes - 1)))

    scores = Scores()
    for start in range(0, count, batch):
        scores.add(logits[start : start + batch], labels[start : start + batch])

    top1 = top5 = 0
    loss = 0.0
    for row, label in zip(logits.tolist(), labels.tolist()):
        ranking = [i for _, i in sorted((-logit, i) for i, logit in enumerate(row))]
        top1 += label == ranking[0]
        top5 += label in ranking[:5]
        loss += math.log(sum(map(math.exp, row))) - row[label]
    assert scores.summary() == {
        "images": count,
        "top1": top1 / count,
        "top5": top5 / count,
        "loss": pytest.approx(loss / count, abs=1e-12),
    }


@given(st.data(), st.integers(1, 8), st.integers(1, 12), st.integers(1, 5))
def test_predictions_of_batches_in_any_order_are_those_of_the_whole(
    data: st.DataObject, classes: int, count: int, batch: int
) -> None:
    logits = data.draw(arrays("float32", (count, classes), elements=st.integers(-4, 4).map(float)))
    labels = data.draw(arrays("int64", count, elements=st.integers(0, classes - 1)))
    order = np.array(data.draw(st.permutations(range(count))))
    parts = [order[start : start + batch] for start in range(0, count, batch)]
    found = Predictions.concatenate(
        [Predictions.from_logits(rows, logits[rows], labels[rows]) for rows in parts]
    )

    scores = Scores()
    scores.add(logits, labels)
    assert found.scores.summary() == pytest.approx(scores.summary())
    assert found.indices.tolist() == list(range(count))
    assert found.labels.tolist() == labels.tolist()
    assert found.top.tolist() == top_k(logits, 5).tolist()
    assert found.predicted.tolist() == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(found.confidence, softmax(logits).max(axis=1), rtol=1e-6)
    label_probabilities = softmax(logits)[np.arange(count), labels]
    np.testing.assert_allclose(np.exp(-found.loss), label_probabilities)


@given(st.data(), st.integers(1, 8), st.integers(1, 3))
def test_the_arrays_of_processes_sum_to_that_of_all(
    data: st.DataObject, classes: int, world_size: int
) -> None:
    counts = st.integers(-4, 4).map(float)
    logits = data.draw(arrays("float32", (6, classes), elements=counts))
    labels = data.draw(arrays("int64", 6, elements=st.integers(0, classes - 1)))
    rank = data.draw(arrays("int64", 6, elements=st.integers(-1, world_size - 1)))  # -1: left out
    shares = [
        Predictions.from_logits(rows, logits[rows], labels[rows])
        for rows in (np.flatnonzero(rank == i) for i in range(world_size))
    ]
    found = Predictions.from_array(sum(share.as_array(6) for share in shares))
    expected = Predictions.concatenate(shares)
    for name, values in vars(expected).items():
        assert getattr(found, name).dtype == values.dtype
        np.testing.assert_array_equal(getattr(found, name), values)


LABELS = np.array([0, 0, 0, 0, 1, 1, 3, 3])
PREDICTED = np.array([0, 0, 1, 2, 1, 0, 0, 0])


def test_a_confusion_matrix_has_a_row_a_label() -> None:
    matrix = confusion_matrix(LABELS, PREDICTED, 4)
    assert matrix.tolist() == [[2, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]]


def test_confused_pairs_are_ordered_by_frequency_then_id() -> None:
    pairs = confused_pairs(LABELS, PREDICTED, 3)
    assert pairs == [ConfusedPair(3, 0, 2), ConfusedPair(0, 1, 1), ConfusedPair(0, 2, 1)]
    assert confused_pairs(LABELS, LABELS, 3) == []


def test_class_report_by_hand() -> None:
    report = class_report(LABELS, PREDICTED, 5)
    np.testing.assert_allclose(report.precision, [2 / 5, 1 / 2, 0, 0, 0])
    np.testing.assert_allclose(report.recall, [2 / 4, 1 / 2, 0, 0, 0])
    np.testing.assert_allclose(report.f1, [4 / 9, 1 / 2, 0, 0, 0])
    assert report.support.tolist() == [4, 2, 0, 2, 0]
    assert report.predicted.tolist() == [5, 2, 1, 0, 0]
    # Over classes 0, 1 and 3, which have images.
    macro = {"precision": 0.9 / 3, "recall": 1 / 3, "f1": (4 / 9 + 1 / 2) / 3}
    assert report.macro == pytest.approx(macro)
    weighted = {"precision": (4 * 0.4 + 2 * 0.5) / 8, "recall": 3 / 8, "f1": (16 / 9 + 1) / 8}
    assert report.weighted == pytest.approx(weighted)


@given(st.data(), st.integers(1, 6))
def test_recall_weighted_by_images_is_accuracy(data: st.DataObject, classes: int) -> None:
    ids = st.integers(0, classes - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(ids, ids), min_size=1, max_size=30)))
    labels, predicted = pairs.T
    matrix = confusion_matrix(labels, predicted, classes)
    report = class_report(labels, predicted, classes)
    assert report.weighted["recall"] == pytest.approx((labels == predicted).mean())
    assert report.support.tolist() == matrix.sum(axis=1).tolist()
    assert report.predicted.tolist() == matrix.sum(axis=0).tolist()
    assert sum(p.images for p in confused_pairs(labels, predicted, 99)) == (
        matrix.sum() - matrix.trace()
    )


def test_calibration_by_hand() -> None:
    confidence = np.array([0.25, 0.1, 0.26, 0.8, 0.9, 1.0], "float32")
    correct = np.array([True, False, True, True, False, True])
    found = calibration(confidence, correct, bins=4)
    assert found.counts.tolist() == [2, 1, 0, 3]  # an upper edge belongs to its bin
    np.testing.assert_allclose(found.confidence, [0.175, 0.26, np.nan, 0.9], rtol=1e-6)
    np.testing.assert_allclose(found.accuracy, [1 / 2, 1, np.nan, 2 / 3])
    expected = (2 * abs(0.5 - 0.175) + 1 * abs(1 - 0.26) + 3 * abs(2 / 3 - 0.9)) / 6
    assert found.error == pytest.approx(expected, rel=1e-6)
    assert found.rows()[2] == {
        **{"above": 0.5, "up_to": 0.75, "images": 0},
        **{"confidence": None, "accuracy": None},
    }


def test_a_network_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, 200_000)
    correct = rng.uniform(0, 1, 200_000) < confidence
    assert calibration(confidence, correct).error < 0.01
    assert calibration(confidence, ~correct).error == pytest.approx(0.5, abs=0.01)
    assert calibration(np.zeros(3), np.zeros(3, bool)).error == 0
