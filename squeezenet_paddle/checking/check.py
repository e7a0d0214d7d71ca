"""Checks a folder of labelled images by their features, and says what it found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.decode import MAX_PIXELS, read_image
from ..data.lists import ImageList
from ..errors import InputError, describe_problems
from .duplicates import Duplicates, find_duplicates, joined
from .labels import Labels, check_labels
from .learning_curve import LearningCurve, learning_curve
from .oddities import Alike, Odd, alike_classes, odd_images, sizes_of, small_classes
from .pixels import REDUCED, read_reduced
from .projection import project, project_scores

DUPLICATE, CONFLICT, LABEL, ODD, UNREADABLE = (
    *("duplicate", "conflict", "label", "odd", "unreadable"),
)


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        images: what was checked.
        classes: the names of the classes.
        groups: int64 [N], images with the same number belong together: duplicates, and what
            `group_pattern` puts together.
        duplicates: images that are there more than once.
        labels: what the images say of each other's labels.
        odd: images that are odd.
        alike: classes that cannot be told apart.
        small: classes with few different images, and how many they have.
        curve: whether more images would help; None where there are too few to tell.
        unreadable: what is wrong with each image that cannot be read, by index.
        group_pattern: what puts images together; None where nothing does.
        max_pixels: the largest image that is read.
        parts: the part of each image, where the folders give a split.
    """

    images: ImageList
    classes: Sequence[str]
    groups: np.ndarray
    duplicates: Duplicates
    labels: Labels
    odd: Sequence[Odd]
    alike: Sequence[Alike]
    small: Mapping[int, int]
    curve: LearningCurve | None
    unreadable: Mapping[int, str]
    group_pattern: str | None
    max_pixels: int
    parts: Sequence[str] | None = None

    @cached_property
    def conflicts(self) -> list[np.ndarray]:
        """The duplicates that lie under two classes or more, as ascending indices."""
        labels = self.images.labels
        return [each for each in self.duplicates.sets() if np.unique(labels[each]).size > 1]

    @cached_property
    def repeated(self) -> list[np.ndarray]:
        """The duplicates that lie under one class."""
        labels = self.images.labels
        return [each for each in self.duplicates.sets() if np.unique(labels[each]).size == 1]

    def name(self, label: int) -> str:
        """The name of a class."""
        return self.classes[label]

    def kind(self, index: int) -> str:
        """In what way an image is a duplicate of an earlier one; "" if it is not."""
        return self._kinds.get(index, "")

    @cached_property
    def _kinds(self) -> dict[int, str]:
        kinds = {pair.first: pair.kind for pair in self.duplicates.pairs}
        return {**kinds, **{pair.second: pair.kind for pair in self.duplicates.pairs}}

    def lines(self) -> Iterator[str]:
        """What was found, a line for each kind."""
        if self.unreadable:
            yield f"unreadable: {_images(len(self.unreadable))}"
        extra = sum(len(each) - 1 for each in self.duplicates.sets())
        if extra:
            sets = len(self.duplicates.sets())
            yield f"duplicates: {_images(extra)} beyond the first of {sets:,}"
        if self.conflicts:
            yield (
                f"conflicts: {len(self.conflicts)} of them "
                f"{'are' if len(self.conflicts) > 1 else 'is'} under two classes"
            )
        yield from self._shared()
        if len(self.labels.suspects):
            yield (
                f"labels that look wrong: {len(self.labels.suspects)}, "
                f"of an estimated {self.labels.error_rate:.1%} that are"
            )
        if self.odd:
            yield f"odd: {_images(len({each.image for each in self.odd}))}"
        if self.alike:
            pairs = [f"{self.name(a.first)} and {self.name(a.second)}" for a in self.alike]
            yield f"classes that cannot be told apart: {describe_problems(pairs)}"
        if self.small:
            small = [f"{self.name(i)} ({count})" for i, count in self.small.items()]
            yield f"classes with few different images: {describe_problems(small)}"
        if self.curve is not None:
            yield str(self.curve)

    def _shared(self) -> Iterator[str]:
        """How many images of the other parts are duplicates of training images."""
        if self.parts is None:
            return
        parts, groups = np.array(self.parts), self.duplicates.groups
        seen = np.isin(groups, groups[parts == "train"])
        for part in ("val", "test"):
            inside = parts == part
            if shared := np.count_nonzero(inside & seen):
                yield (
                    f"shared: {shared:,} of {np.count_nonzero(inside):,} {part} images are "
                    "duplicates of training images, so scores on them are too high"
                )


def check(
    features: np.ndarray,
    images: ImageList,
    classes: Sequence[str],
    *,
    hashes: Sequence[str],
    unreadable: Mapping[int, str] | None = None,
    group_pattern: str | None = None,
    max_pixels: int = MAX_PIXELS,
    classifier: np.ndarray | None = None,
    parts: Sequence[str] | None = None,
    seed: int = 0,
) -> Check:
    """Checks labelled images.

    Args:
        features: [N, F], of `image_features`.
        images: the list, with labels.
        classes: the classes' names.
        hashes: the SHA-256 of each file.
        unreadable: what is wrong with each image that cannot be read, by index; it has no features.
        group_pattern: a regular expression searched for in an image's path; images for which its
            first group, or the whole match, is the same belong together. None: none do.
        max_pixels: the largest image that is read.
        classifier: float32 [K, M], the weights of the classes of the pretrained network that the
            features are of; they help to judge labels. None without.
        parts: the part of each image, where the folders give a split.
        seed: of the folds.

    Raises:
        InputError: `group_pattern` is no regular expression, or does not match a path; or fewer
            than two images can be read.
    """
    unreadable, count = unreadable or {}, len(images)
    pattern_groups = groups_of([images.name(i) for i in range(count)], group_pattern)
    good = np.array([i for i in range(count) if i not in unreadable], "int64")
    if len(good) < 2:
        raise InputError(f"{images.root}: two images that can be read were expected.")

    def read(row: int) -> np.ndarray:
        return read_image(images.path(int(good[row])), max_pixels)

    def read_small(row: int) -> np.ndarray:
        size = sizes[row]
        large = size is not None and min(size.width, size.height) >= REDUCED
        return read_reduced(images.path(int(good[row])), max_pixels) if large else read(row)

    sizes = sizes_of([images.path(int(i)) for i in good])
    components, labels = project(features[good], seed), images.labels[good]
    own = find_duplicates(components, [hashes[i] for i in good], read, read_small)
    duplicates = own.renumbered(good, count)
    pairs = np.stack([np.arange(count), duplicates.groups], axis=1).tolist()
    pairs += np.stack([np.arange(count), pattern_groups], axis=1).tolist()
    groups = joined(count, pairs)
    scores = None if classifier is None else project_scores(features[good], classifier, seed)
    judgement = check_labels(components, labels, groups[good], len(classes), seed, scores)
    odd = [Odd(int(good[i]), reason) for i, reason in odd_images(components, labels, sizes, read)]
    trusted = np.ones(len(good), bool)
    trusted[judgement.suspects] = False
    curve = learning_curve(components, labels, groups[good], len(classes), trusted, seed)
    return Check(
        images,
        classes,
        groups,
        duplicates,
        judgement.renumbered(good, images.labels),
        odd,
        alike_classes(judgement.probabilities, labels),
        small_classes(labels, duplicates.groups[good], len(classes)),
        curve,
        unreadable,
        group_pattern,
        max_pixels,
        parts,
    )


def groups_of(names: Sequence[str], pattern: str | None) -> np.ndarray:
    """The first index of each image's group, int64 [N]; see `check` for the pattern."""
    if pattern is None:
        return np.arange(len(names))
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"`group_pattern` {pattern!r} is not a regular expression: {error}."
        ) from error
    first: dict[str, int] = {}
    groups, mismatches = [], []
    for i, name in enumerate(names):
        match = expression.search(name)
        key = (match[1] if expression.groups else match[0]) if match else None
        if not key:
            mismatches.append(repr(name))
            continue
        groups.append(first.setdefault(key, i))
    if mismatches:
        raise InputError(
            f"`group_pattern` {pattern!r} must find a group in each path; it found none in "
            f"{len(mismatches)} of {len(names)}: {describe_problems(mismatches)}."
        )
    return np.array(groups, "int64")


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"
