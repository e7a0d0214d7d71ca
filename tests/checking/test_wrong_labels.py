"""Wrong labels: found among features of known classes, judged by scikit-learn's discriminant."""

from __future__ import annotations

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import average_precision_score

from squeezenet_paddle.checking.labels import (
    SHRINKAGE,
    check_labels,
    fold_of,
    groups_per_class,
    out_of_fold,
)
from squeezenet_paddle.checking.projection import project, project_scores


def blobs(count: int, classes: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around the mean of each class, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    means = apart * rng.standard_normal((classes, 24))
    return (means[labels] + rng.standard_normal((count, 24))).astype("float32"), labels


def flipped(labels: np.ndarray, share: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels with a share of them wrong, and which these are."""
    rng = np.random.default_rng(1)
    wrong = rng.choice(len(labels), round(share * len(labels)), replace=False)
    result = labels.copy()
    result[wrong] = (result[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return result, np.isin(np.arange(len(labels)), wrong)


def test_wrong_labels_are_found_with_the_right_class_and_an_honest_certainty() -> None:
    x, true = blobs(600, 5, 1.0)
    labels, wrong = flipped(true, 0.05, 5)
    found = check_labels(x, labels, np.arange(600), 5)
    assert wrong[found.suspects].mean() >= 0.9
    assert wrong[found.suspects].sum() >= 0.9 * wrong.sum()
    assert (found.proposed[found.suspects] == true[found.suspects]).mean() >= 0.9
    assert 0.03 <= found.error_rate <= 0.07
    certainty = found.wrong[found.suspects]
    assert (np.diff(certainty) <= 1e-12).all()
    assert certainty.min() >= 0.5


def test_classes_that_overlap_are_not_all_suspected() -> None:
    x, labels = blobs(600, 4, 0.25)
    found = check_labels(x, labels, np.arange(600), 4)
    wrong = (found.probabilities.argmax(axis=1) != labels).mean()
    assert wrong > 0.2
    assert len(found.suspects) < 0.02 * 600


def test_logits_are_those_of_scikit_learn() -> None:
    x, labels = blobs(300, 4, 0.6)
    folds = fold_of(labels, np.arange(300), 0)
    used = np.random.default_rng(0).random(300) < 0.9
    found = out_of_fold(x, labels, folds, 4, used)
    found -= found.mean(axis=1, keepdims=True)
    for fold in range(folds.max() + 1):
        learnt, rows = used & (folds != fold), folds == fold
        # Its shrinkage is of standardised values, so it is given values whose scales are equal.
        judge = LinearDiscriminantAnalysis(solver="lsqr")
        judge.covariance_estimator = Shrunk()
        judge.fit(x[learnt].astype("float64"), labels[learnt])
        expected = judge.decision_function(x[rows].astype("float64"))
        expected -= expected.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(found[rows], expected, rtol=2e-3, atol=2e-3)


class Shrunk:
    """A covariance as it is defined, shrunk towards a multiple of the identity."""

    def get_params(self, deep: bool = True) -> dict[str, object]:
        return {}

    def fit(self, x: np.ndarray) -> Shrunk:
        size = x.shape[1]
        self.covariance_ = np.cov(x.T, bias=True)
        level = np.trace(self.covariance_) / size
        self.covariance_ = (1 - SHRINKAGE) * self.covariance_ + SHRINKAGE * level * np.eye(size)
        return self


def test_images_of_a_group_are_in_one_fold_and_classes_in_all() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 120, 600)
    labels = groups % 3
    folds = fold_of(labels, groups, 0)
    assert all(np.unique(folds[groups == g]).size <= 1 for g in range(120))
    assert all(np.unique(folds[labels == c]).size == 10 for c in range(3))


def test_groups_that_each_begin_with_another_class_have_folds_of_their_own() -> None:
    labels, groups = np.array([0, 1, 2, 1, 2, 0, 2, 0, 1]), np.repeat([0, 1, 2], 3)
    first = np.unique(groups, return_index=True)[1]
    assert len(set(labels[first])) == 3
    assert fold_of(labels, groups, 0).tolist() == groups.tolist()


def test_a_wrong_label_that_a_duplicate_repeats_is_found_all_the_same() -> None:
    x, true = blobs(300, 3, 1.0)
    x[1], labels = x[0], true.copy()
    labels[:2] = (true[0] + 1) % 3
    groups = np.arange(300)
    groups[1] = 0
    found = check_labels(x, labels, groups, 3)
    assert set(found.suspects[:2].tolist()) == {0, 1}


def test_scores_of_a_pretrained_network_help_where_they_tell_more_and_harm_nowhere() -> None:
    good, true = blobs(200, 5, 1.0)
    poor = np.random.default_rng(2).standard_normal((200, 24)).astype("float32")
    poor += 0.2 * good
    labels, wrong = flipped(true, 0.05, 5)

    def found(*spaces: np.ndarray) -> float:
        scores = spaces[1] if len(spaces) > 1 else None
        judged = check_labels(spaces[0], labels, np.arange(200), 5, scores=scores)
        return float(average_precision_score(wrong, judged.wrong))

    assert found(poor) < 0.6
    assert found(poor, good) > found(good) - 0.03 > 0.9
    assert found(good, poor) > found(good) - 0.03


def test_scores_are_those_of_a_classifier_of_the_last_means() -> None:
    rng = np.random.default_rng(0)
    features, classifier = rng.random((50, 40)), rng.standard_normal((30, 8)).astype("float32")
    scores = features[:, 32:] @ classifier.T
    u, s, _ = np.linalg.svd(scores - scores.mean(axis=0), full_matrices=False)
    found = project_scores(features, classifier)
    np.testing.assert_allclose(np.abs(found[:, :8]), np.abs(u * s)[:, :8], rtol=1e-2, atol=1e-2)
    assert found.shape == (50, 16)


def test_classes_too_small_to_judge_are_left_alone() -> None:
    x, labels = blobs(100, 2, 1.0)
    labels[:2] = 2
    found = check_labels(x, labels, np.arange(100), 3)
    assert not found.wrong[:2].any()
    alone = check_labels(x, np.zeros(100, "int64"), np.arange(100), 1)
    assert not len(alone.suspects)
    assert groups_per_class(labels, np.arange(100) // 2, 3)[2] == 1


def test_components_are_the_principal_ones() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((200, 30)).astype("float32") * np.linspace(1, 3, 30, dtype="float32")
    features[:, 7] = 2.0  # a feature that is always the same
    found = project(features)
    roots = np.sqrt(features)
    standard = (roots - roots.mean(axis=0)) / np.maximum(roots.std(axis=0), 1e-6)
    standard[:, 7] = 0
    values = np.linalg.svd(standard.astype("float64"), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0)[:20], values[:20], rtol=0.05)
    assert project(features.astype("float16")).shape == (200, 30)


def test_features_that_tell_nothing_accuse_nobody() -> None:
    rng = np.random.default_rng(0)
    for count in (50, 400):
        x = rng.standard_normal((count, 24)).astype("float32")
        found = check_labels(x, rng.integers(0, 10, count), np.arange(count), 10)
        assert not len(found.suspects)
        assert not found.wrong.any()
