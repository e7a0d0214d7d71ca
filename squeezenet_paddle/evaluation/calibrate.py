"""Fits a temperature, and a threshold for "none of these", to the validation images of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..data.decode import MAX_PIXELS
from ..data.lists import ImageList
from ..data.loader import loader_for
from ..engines.load import load_engine
from ..errors import InputError
from ..familiarity import Calibration, Familiarity, directions, group_shares, kin, unit
from ..model_dir import read_info, read_weights, write_model_dir
from ..network.heads import IMAGENET_CLASSES
from ..network.logits import log_softmax, softmax
from ..progress import Progress
from .metrics import calibration as reliability

MOST_IMAGES = 2048  # of training, spread evenly, that say what the classes look like
OF_EACH_CLASS = 8  # of these, where there are many classes
REFUSED = 0.05  # the largest share of the validation images that may be refused
PROTOTYPES, MOST_PROTOTYPES = 8, 64  # of each class; of all, as far as each class has one
MOST_AXES = 16  # along which classes are told from all images
SHRINKAGE = 0.3  # of the covariance within classes towards a multiple of the identity
GROUPS = 128  # of the pretrained network's classes
_LEAST_SPREAD = 1e-6
_LEAST_SPREAD_OF_OVERLAP = 0.05  # a few images may all have the largest, 0; measured
_PRIOR = 10  # images that the mean and deviation of all classes count as, in those of each


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a model computes of images.

    Attributes:
        labels: int64 [N].
        logits: float32 [N, C].
        means: float32 [N, M], of fire9's maps.
    """

    labels: np.ndarray
    logits: np.ndarray
    means: np.ndarray


def calibrate(
    model_dir: Path,
    train: ImageList,
    val: ImageList,
    pretrained: Path | None = None,
    *,
    num_workers: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Calibration:
    """Fits a calibration to a trained model, and adds it to its directory.

    Exports that lie there are removed, as they say nothing of it. Images that cannot be read are
    left out.

    Args:
        model_dir: of the model, not of a run.
        train: its training images, of which up to `MOST_IMAGES` are looked at.
        val: its validation images.
        pretrained: the model that it was trained from; one with the authors' classifier of 1000
            classes helps to tell what is none of the model's.
        num_workers, max_pixels: of the reader.

    Raises:
        InputError: the directory cannot be read or written, or no image can be read.
    """
    info = read_info(model_dir)
    most = max(MOST_IMAGES, OF_EACH_CLASS * info.network.num_classes)
    chosen = np.linspace(0, len(train) - 1, min(len(train), most)).round().astype("int64")
    rows = {name: getattr(train, name)[chosen] for name in ("starts", "ends", "labels")}
    some = dataclasses.replace(train, **rows)
    _, engine = load_engine(model_dir, info, with_means=True)
    seen = []
    for images, what in ((some, "calibrating, training"), (val, "calibrating")):
        parts = []
        loader = loader_for(
            images,
            info.preprocess,
            num_workers=num_workers,
            max_pixels=max_pixels,
            on_unreadable=str,
        )
        with loader, Progress(what, len(images)) as progress:
            for batch in loader.epoch():
                logits, means = engine.outputs(batch.inputs)
                assert means is not None
                parts.append(Observed(batch.labels, logits, means))
                progress.update(len(batch.labels))
        columns = zip(*(vars(part).values() for part in parts))
        seen.append(Observed(*(np.concatenate(column) for column in columns)))
    fitted = fit(seen[0], seen[1], None if pretrained is None else classifier_of(pretrained))
    state = read_weights(model_dir, info).state
    write_model_dir(model_dir, dataclasses.replace(info, calibration=fitted), state)
    return fitted


def classifier_of(pretrained: Path) -> np.ndarray | None:
    """float32 [1000, M]: the weights of a conv10 that knows ImageNet's classes, if there is one."""
    info = read_info(pretrained)
    weights = read_weights(pretrained, info).state.get("conv10.weight")
    if weights is None or len(weights) < IMAGENET_CLASSES or info.is_untrained:
        return None
    return weights[:, :, 0, 0]


def fit(train: Observed, val: Observed, classifier: np.ndarray | None = None) -> Calibration:
    """A calibration, from what a model computes of its training and validation images.

    Args:
        train, val: of these images.
        classifier: float32 [K, M], weights of the pretrained network's classes; None without.

    Raises:
        InputError: there are no images.
    """
    for images, what in ((train, "training"), (val, "validation")):
        if not len(images.labels):
            raise InputError(f"there are no {what} images to calibrate with.")
    temperature = fit_temperature(val.logits, val.labels)
    familiarity, held_out = _familiarity(train, val, classifier)
    scores = familiarity(val.logits, val.means)
    allowed = int(REFUSED * len(scores))
    threshold = min(np.sort(held_out)[allowed], np.sort(scores)[allowed])
    return Calibration(
        temperature,
        float(threshold),
        familiarity,
        len(scores),
        float((scores < threshold).mean()),
        (_ece(val, 1.0), _ece(val, temperature)),
    )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the smallest cross-entropy, 0.05 to 20.

    It is 1 where every image is classified correctly: the cross-entropy would fall without end as
    the temperature does, and nothing is known of how certain the model is when it is wrong.

    Args:
        logits: [N, C].
        labels: int64 [N].
    """
    from scipy.optimize import minimize_scalar  # takes a while

    if (logits.argmax(axis=1) == labels).all():
        return 1.0
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature))[rows, labels].mean())

    found = minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded")
    return float(np.exp(found.x))


def _ece(val: Observed, temperature: float) -> float:
    probabilities = softmax(val.logits / temperature)
    correct = probabilities.argmax(axis=1) == val.labels
    return reliability(probabilities.max(axis=1), correct).error


def _familiarity(
    train: Observed, val: Observed, classifier: np.ndarray | None
) -> tuple[Familiarity, np.ndarray]:
    """What is kept of the images; and the familiarity of each validation image, float64 [N], as if
    it were not one of those that the terms are standardised by.
    """
    classes = val.logits.shape[1]
    arrays: Mapping[str, np.ndarray] = {
        "prototypes": _prototypes(train, classes),
        **_groups(train, classes, classifier),
        **_axes(train, classes),
    }
    terms = 2 + sum(len(arrays[name]) > 0 for name in ("groups", "axes", "known"))
    as_they_are = (np.zeros((classes, terms), "float32"), np.ones((classes, terms), "float32"))
    familiarity = Familiarity(**arrays, center=as_they_are[0], spread=as_they_are[1])
    values = familiarity.terms(val.logits, val.means)
    given = val.logits.argmax(axis=1)
    members = np.eye(classes)[given]  # [N, C]
    count, total = len(values), values.sum(axis=0)
    sums, squares = members.T @ values, members.T @ values**2
    sizes = members.sum(axis=0)[:, None]
    least = np.full(terms, _LEAST_SPREAD)
    if len(familiarity.known):
        least[-1] = _LEAST_SPREAD_OF_OVERLAP
    middle, _ = _moments(sizes, sums, squares, total / count, np.zeros(terms), least)
    variance = ((values - middle[given]) ** 2).mean(axis=0)
    center, spread = _moments(sizes, sums, squares, total / count, variance, least)
    without = _moments(
        sizes[given] - 1,
        sums[given] - values,
        squares[given] - values**2,
        (total - values) / (count - 1) if count > 1 else values,
        variance,
        least,
    )
    familiarity = dataclasses.replace(
        familiarity, center=center.astype("float32"), spread=spread.astype("float32")
    )
    return familiarity, ((values - without[0]) / without[1]).mean(axis=1)


def _moments(
    count: np.ndarray,
    total: np.ndarray,
    squares: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    least: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each class, drawn to those of all where it has few images.

    Args:
        count, total, squares: of each class: images, and sums of their terms and of the squares.
        mean, variance: of all classes.
        least: the smallest deviation of each term.
    """
    center = (total + _PRIOR * mean) / (count + _PRIOR)
    around = np.maximum(squares - 2 * center * total + count * center**2, 0)
    spread = np.sqrt((around + _PRIOR * variance) / (count + _PRIOR))
    return center, np.maximum(spread, least)


def _prototypes(train: Observed, classes: int) -> np.ndarray:
    """uint8 [C, P, M]: the centers of clusters of each class's images."""
    from sklearn.cluster import KMeans

    count = int(np.clip(MOST_PROTOTYPES // classes, 1, PROTOTYPES))
    vectors = directions(train.means)
    result = np.zeros((classes, count, vectors.shape[1]))
    for label in range(classes):
        own = vectors[train.labels == label]
        if not len(own):  # none could be read: what all have in common
            own = vectors.mean(axis=0, keepdims=True)
        # Each of at least three images; a class that has fewer clusters repeats the first.
        clusters = int(np.clip(len(own) // 3, 1, count))
        centers = KMeans(clusters, n_init=1, random_state=0).fit(own).cluster_centers_
        result[label] = np.resize(unit(centers), (count, vectors.shape[1]))
    largest = np.maximum(result.max(axis=2, keepdims=True), 1e-12)
    return np.rint(result / largest * 255).astype("uint8")


def _groups(
    train: Observed, classes: int, classifier: np.ndarray | None
) -> Mapping[str, np.ndarray]:
    """The arrays of `Familiarity` that are about the pretrained network's classes."""
    from sklearn.cluster import KMeans

    if classifier is None:
        return {
            "groups": np.empty((0, train.means.shape[1]), "int8"),
            "group_scale": np.array(1, "float32"),
            "group_sizes": np.empty(0, "int32"),
            "usual": np.empty((classes, 0), "float32"),
            "known": np.empty(0, "float32"),
        }
    members = KMeans(GROUPS, n_init=1, random_state=0).fit_predict(kin(classifier))
    sizes = np.bincount(members, minlength=GROUPS)
    weights = np.stack([classifier[members == group].mean(axis=0) for group in range(GROUPS)])
    scale = np.float32(np.abs(weights).max() / 127)
    integers = np.rint(weights / scale).astype("int8")
    weights = integers * float(scale)
    shares = group_shares(train.means, weights, sizes)
    # A group is known where training images show it as often as the average one, or more often.
    known = np.minimum(GROUPS * _class_means(shares, train.labels, classes).mean(axis=0), 1)
    shares /= np.linalg.norm(shares @ kin(weights), axis=1, keepdims=True)
    usual = _class_means(shares, train.labels, classes)
    return {
        "groups": integers,
        "group_scale": np.array(scale, "float32"),
        "group_sizes": sizes.astype("int32"),
        "usual": usual.astype("float32"),
        "known": known.astype("float32"),
    }


def _axes(train: Observed, classes: int) -> Mapping[str, np.ndarray]:
    """The arrays of `Familiarity` that are about the directions in which classes differ.

    Along these the covariance within classes, shrunk, is the identity, and that of all images a
    diagonal matrix.
    """
    from scipy.linalg import eigh

    vectors = directions(train.means)
    means, middle = _class_means(vectors, train.labels, classes), vectors.mean(axis=0)
    around = vectors - means[train.labels]
    within = around.T @ around / len(vectors)
    size, count = len(within), min(classes - 1, MOST_AXES)
    level = max(np.trace(within) / size, 1e-6)
    within = (1 - SHRINKAGE) * within + SHRINKAGE * level * np.eye(size)
    apart = (means - middle) * np.sqrt(np.bincount(train.labels, minlength=classes))[:, None]
    variances, axes = eigh(apart.T @ apart / len(vectors), within)
    axes = axes.T[::-1][:count].astype("float32")
    narrowing = 1 / (1 + np.maximum(variances[::-1][:count], 0))
    return {
        "axes": axes,
        "places": (means @ axes.T).astype("float32"),
        "middle": (axes @ middle).astype("float32"),
        "narrowing": narrowing.astype("float32"),
    }


def _class_means(values: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """[C, ...]: the mean of each class's rows; of all where it has none that could be read."""
    own = (values[labels == label] for label in range(classes))
    return np.stack([(each if len(each) else values).mean(axis=0) for each in own])
