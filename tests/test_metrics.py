"""Scores against plain loops and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from squeezenet_paddle.metrics import Scores, log_softmax, softmax, top_k


def test_top_k_is_ordered_and_equal_logits_go_by_id() -> None:
    logits = np.array([[1, 3, 3, 2], [0, 0, 0, 0], [-1, -2, -3, 9]], "float32")
    assert top_k(logits, 3).tolist() == [[1, 2, 3], [0, 1, 2], [3, 0, 1]]


def test_top_k_has_at_most_as_many_columns_as_there_are_classes() -> None:
    assert top_k(np.array([[1, 2]], "float32"), 5).tolist() == [[1, 0]]


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
