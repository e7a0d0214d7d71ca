"""Whether an image is like those that a model was trained on, from what it computes anyway.

A network names a class for every image. What tells an image of none of its classes apart is the
mean of up to five terms, each of which is counted from its mean, in standard deviations, over the
validation images that are given the same class:

    confidence   the log-odds of the class, as a logit has it
    likeness     the cosine between the square roots of the means of fire9's maps (the Hellinger
                 affinity) and the nearest of a few prototypes of the class's training images
    kinship      the same images as the classifier of the pretrained network sees them: how likely
                 groups of its classes are, beside what is usual for the class
    closeness    how much nearer the image is to the class's mean than to that of all images, along
                 the few directions in which classes differ most: the relative Mahalanobis distance
                 (Ren et al. 2021, arXiv:2106.09022) with one covariance for all classes, in which
                 all other directions cancel out
    overlap      the logarithm of how likely those groups are that training images of any class show

Calibrations of earlier versions lack the last two, and those of networks that were not trained from
ImageNet's classes kinship and overlap. The prototypes and groups are kept as 8-bit integers, half a
kilobyte each. Temperature scaling is that of Guo et al. 2017, "On Calibration of Modern Neural
Networks", arXiv:1706.04599. No Paddle here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .array_files import read_npz
from .errors import InputError
from .files import sha256
from .network.logits import softmax

NONE = "none of these"  # the name of an image that is refused
UNSURE = "unsure"  # the name of an image whose classes are all less probable than was asked for
REFUSALS = (NONE, UNSURE)  # and of the folders that sorting makes for them
# name: dtype and axes: C classes, P prototypes of each, M means, G groups, D directions, K groups
# or none, T terms
_ARRAYS = {
    "prototypes": ("uint8", "CPM"),
    "groups": ("int8", "GM"),
    "group_scale": ("float32", ""),
    "group_sizes": ("int32", "G"),
    "usual": ("float32", "CG"),
    "axes": ("float32", "DM"),
    "places": ("float32", "CD"),
    "middle": ("float32", "D"),
    "narrowing": ("float32", "D"),
    "known": ("float32", "K"),
    "center": ("float32", "CT"),
    "spread": ("float32", "CT"),
}
_LATER = ("axes", "places", "middle", "narrowing", "known")  # which earlier versions did not write
SHARPNESS = 2.0  # of the groups' softmax; measured
_LARGEST = float(np.finfo("float32").max)
LEAST_OVERLAP = 1e-4
LARGEST_ODDS = 1e3  # odds of the rest against the class are not counted beyond this many nats


@dataclass(frozen=True)
class Familiarity:
    """What a model keeps of its training images.

    Attributes:
        prototypes: uint8 [C, P, M], directions of square roots of fire9's means.
        groups: int8 [G, M], weights of groups of the pretrained network's classes; G is 0 where
            that network has no such classifier.
        group_scale: float32 [], the step of these integers.
        group_sizes: int32 [G], classes in each group.
        usual: float32 [C, G], sums of these groups whose direction is usual for a class.
        axes: float32 [D, M], directions in which the classes' means differ; D is 0 in calibrations
            of earlier versions.
        places: float32 [C, D], where along these the mean of a class's images is.
        middle: float32 [D], where the mean of all images is.
        narrowing: float32 [D], the variance within a class, which is 1, over that of all images.
        known: float32 [G], how much each group is one that training images show, 0..1; [0] in
            calibrations of earlier versions.
        center, spread: float32 [C, T], mean and standard deviation of the terms of the validation
            images that are given a class.
    """

    prototypes: np.ndarray
    groups: np.ndarray
    group_scale: np.ndarray
    group_sizes: np.ndarray
    usual: np.ndarray
    axes: np.ndarray
    places: np.ndarray
    middle: np.ndarray
    narrowing: np.ndarray
    known: np.ndarray
    center: np.ndarray
    spread: np.ndarray

    def __post_init__(self) -> None:
        extents: dict[str, int] = {}
        for name, (dtype, axes) in _ARRAYS.items():
            array = getattr(self, name)
            shape = [extents.setdefault(a, n) for a, n in zip(axes, array.shape)]
            if array.dtype != dtype or list(array.shape) != shape or array.ndim != len(axes):
                raise InputError(
                    f"{name}: {dtype} [{', '.join(axes)}] was expected, "
                    f"found {array.dtype} {list(array.shape)}."
                )
            if not np.isfinite(array).all():
                raise InputError(f"{name}: finite numbers were expected.")
        if not extents["P"] or (self.group_sizes < 1).any():
            raise InputError("prototypes, group_sizes: at least one of each was expected.")
        if extents["K"] not in (0, extents["G"]):
            raise InputError("known: a number for each of the groups was expected.")
        if ((self.known < 0) | (self.known > 1)).any():
            raise InputError("known: numbers from 0 to 1 were expected.")
        terms = 2 + sum(extents[axis] > 0 for axis in "GDK")
        if extents["T"] != terms or not (self.spread > 0).all():
            raise InputError("center, spread: a mean and a deviation of each term were expected.")

    def terms(self, logits: np.ndarray, means: np.ndarray) -> np.ndarray:
        """The terms before they are standardised, larger for an image of the class it is given.

        Args:
            logits: [N, C].
            means: [N, M], of fire9's maps.

        Returns:
            float64 [N, T].
        """
        given, rows = logits.argmax(axis=1), np.arange(len(logits))
        columns = [log_odds(logits)]
        roots = directions(means)
        likeness = roots @ unit(self.prototypes.astype("float64")).transpose(0, 2, 1)
        columns.append(likeness.max(axis=2)[given, rows])  # of [C, N, P]
        if len(self.groups):
            weights = self.groups * float(self.group_scale)
            shares = group_shares(means, weights, self.group_sizes)
            seen = unit(shares @ kin(weights))
            usual = unit(self.usual.astype("float64") @ kin(weights))
            columns.append((seen @ usual.T)[rows, given])
        if len(self.axes):
            along = roots @ self.axes.T.astype("float64")
            from_all = (along - self.middle) ** 2 @ self.narrowing.astype("float64")
            columns.append(from_all - ((along - self.places[given]) ** 2).sum(axis=1))
        if len(self.known):
            columns.append(np.log(shares @ self.known.astype("float64") + LEAST_OVERLAP))
        return np.stack(columns, axis=1)

    def __call__(self, logits: np.ndarray, means: np.ndarray) -> np.ndarray:
        """float64 [N]: the mean of the standardised terms; the lower, the stranger the image."""
        if not len(logits):
            return np.empty(0)
        given = logits.argmax(axis=1)
        terms = (self.terms(logits, means) - self.center[given]) / self.spread[given]
        return terms.mean(axis=1)

    def to_bytes(self) -> bytes:
        """The contents of an .npz file."""
        file = io.BytesIO()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez(file, **{n: array for n, array in arrays.items() if n not in _LATER or array.size})
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Familiarity:
        """The inverse of `to_bytes`.

        Raises:
            InputError: it is damaged.
        """
        try:
            arrays = read_npz(data, "not the arrays that were expected")
            classes, _, means = arrays["prototypes"].shape
            shapes = ((0, means), (classes, 0), (0,), (0,), (0,))
            empty = {name: np.empty(shape, "float32") for name, shape in zip(_LATER, shapes)}
            return Familiarity(**{**empty, **arrays})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"not the arrays that were expected ({error}).") from error


@dataclass(frozen=True)
class Calibration:
    """How far a model's answers can be trusted, as fitted to its validation images.

    Attributes:
        temperature: logits are divided by it before the softmax.
        threshold: an image whose familiarity is below it is none of the classes.
        familiarity: what measures that.
        images: how many validation images it was fitted to.
        refused: the share of these that is below the threshold, 0..0.05.
        ece: the expected calibration error on them, without the temperature and with it.
    """

    temperature: float
    threshold: float
    familiarity: Familiarity
    images: int
    refused: float
    ece: tuple[float, float]

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Logits whose softmax gives probabilities that can be trusted."""
        return logits / np.float32(self.temperature)

    def refuses(self, logits: np.ndarray, means: np.ndarray) -> np.ndarray:
        """bool [N]: which images are none of the classes."""
        return self.familiarity(logits, means) < self.threshold

    def record(self) -> dict[str, Any]:
        """The block of config.json; the arrays are in a file, of which it has the checksum."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "images": self.images,
            "refused": self.refused,
            "ece": list(self.ece),
            "familiarity": sha256(self.familiarity.to_bytes()),
        }

    @staticmethod
    def from_record(record: Mapping[str, Any], data: bytes) -> Calibration:
        """The inverse of `record`, with the contents of the file.

        Raises:
            InputError: a value is not as expected, or the file is another one.
        """
        expected = {"temperature", "threshold", "images", "refused", "ece", "familiarity"}
        if not isinstance(record, dict) or set(record) != expected:
            raise InputError(f"an object with {', '.join(sorted(expected))} was expected.")
        numbers = [record["temperature"], record["threshold"], record["refused"]]
        errors = record["ece"]
        if not (
            isinstance(errors, list)
            and len(errors) == 2
            and all(_is_number(each) for each in (*numbers, *errors))
            and np.float32(record["temperature"]) > 0
            and isinstance(record["images"], int)
        ):
            raise InputError(
                "finite numbers were expected for temperature (above 0), threshold, images, "
                "refused and the two of ece."
            )
        if sha256(data) != record["familiarity"]:
            raise InputError("this is another file than the one that was written with it.")
        return Calibration(
            float(record["temperature"]),
            float(record["threshold"]),
            Familiarity.from_bytes(data),
            record["images"],
            float(record["refused"]),
            (float(errors[0]), float(errors[1])),
        )


def _is_number(value: object) -> bool:
    """Whether it is a number that float32 can hold."""
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) <= _LARGEST


def log_odds(logits: np.ndarray) -> np.ndarray:
    """float64 [N]: the logarithm of the odds of the most probable class."""
    ordered = np.sort(logits.astype("float64"), axis=1)
    return np.minimum(ordered[:, -1] - np.logaddexp.reduce(ordered[:, :-1], axis=1), LARGEST_ODDS)


def directions(means: np.ndarray) -> np.ndarray:
    """float64 [N, M]: square roots of means, of length 1; negative ones count as 0."""
    return unit(np.sqrt(np.maximum(means, 0)).astype("float64"))


def group_shares(means: np.ndarray, weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """float64 [N, G]: how likely the groups of the pretrained network's classes are.

    Args:
        means: [N, M], of fire9's maps.
        weights: [G, M], the mean weights of each group's classes.
        sizes: [G], how many these are.
    """
    return softmax(SHARPNESS * (means.astype("float64") @ weights.T) + np.log(sizes))


def kin(weights: np.ndarray) -> np.ndarray:
    """float64 [G, M]: the directions in which groups differ from their mean."""
    return unit((weights - weights.mean(axis=0)).astype("float64"))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
