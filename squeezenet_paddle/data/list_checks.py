"""What a list file may say without being wrong line by line: other class orders, shared images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import describe_problems

if TYPE_CHECKING:
    from .lists import ImageList

_LOOKED_AT = 1000  # images of a list
_SHOWN = 3


def ambiguous_labels(images: ImageList, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Images whose label is the id of one class and, as a number, the name of another.

    With the classes 1 to 12, the label 2 is the id of class "3". A folder of the image's path that
    is named for the class of that id settles it.

    Yields:
        The index of an image, and the problem.
    """
    ids = {int(name): number for number, name in enumerate(names) if re.fullmatch("[0-9]+", name)}
    doubtful = [n for n, number in ids.items() if n < len(names) and n != number]
    for index in np.flatnonzero(np.isin(images.labels, doubtful)).tolist():
        label = int(images.labels[index])
        name = images.name(index)
        if names[label] not in re.findall("[0-9]+", name.rpartition("/")[0]):
            yield (
                index,
                f"the label {label} is the id of class {names[label]!r} and the name of class "
                f"{names[ids[label]]!r} (its id is {ids[label]}); give `synset_word_list` with "
                f"names that are no numbers, such as 'class {names[label]}'",
            )


def describe_shared(train: ImageList, val: ImageList) -> str:
    """Says which images of the validation list are in the training list, too; "" if none are."""
    of_val = dict(zip(_paths(val, train.root), range(len(val))))
    indices = sorted({of_val[path] for path in _paths(train, val.root) if path in of_val})
    if not indices:
        return ""
    shown = ", ".join(val.name(i) for i in indices[:_SHOWN])
    return (
        f"{len(indices)} of {len(val)} validation images are in the training list, too, so the "
        f"scores are too high: {shown}{', ...' if len(indices) > _SHOWN else ''}"
    )


def _paths(images: ImageList, other_root: Path) -> Iterator[bytes]:
    """The names of a list; from the top where the other list starts from another folder."""
    text = images.text.tobytes()
    same = images.root.absolute() == other_root.absolute()
    root = b"" if same else bytes(images.root.absolute()) + b"/"
    for start, end in zip(images.starts.tolist(), images.ends.tolist()):
        name = text[start:end]
        while name.startswith(b"./"):
            name = name[2:]
        yield root + name


def describe_other_order(images: ImageList, names: Sequence[str] | None) -> str:
    """Says that labels seem to count the classes in another order than `names`; "" if not.

    Folders of the images' paths that are named as classes show it.
    """
    from .lists import ids_of_names

    ids = ids_of_names(names or ())
    others = []
    count = 0
    for index in np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT, dtype="int64")).tolist():
        folders = [folder for folder in images.name(index).split("/")[:-1] if folder in ids]
        if folders:
            count += 1
            label = int(images.labels[index])
            if ids[folders[-1]] != label and names is not None and 0 <= label < len(names):
                others.append(f"{images.name(index)} has the label {label}, {names[label]!r}")
    if 2 * len(others) <= count:
        return ""
    return (
        f"{images.source}: the labels seem to count the classes in another order than the model, "
        f"by the folders of {len(others)} of {count} images: {describe_problems(others[:2])}, ..."
    )
