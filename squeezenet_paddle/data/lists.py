"""List files of images and of class names. No Paddle here."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import SHOWN, InputError, describe_problems
from ..files import read_bytes, read_lines
from .list_checks import ambiguous_labels

_MAX_DIGITS = 9  # of a class id
_LONGEST_SHOWN = 60  # characters of a wrong line
_NEWLINE, _TAB, _SPACE, _ZERO = b"\n\t 0"


@dataclass(frozen=True)
class ImageList:
    """Images and their class ids, held as one text: a million take 70 MB, not 300.

    Attributes:
        source: the list file; None for images that were named one by one.
        root: the folder that names start from.
        text: uint8, the bytes in which the names stand.
        starts, ends: int64 [N], where each name stands in `text`.
        labels: int64 [N], class ids; -1 where unknown.
        first_line: number of the line of the first image in `source`.
    """

    source: Path | None
    root: Path
    text: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    labels: np.ndarray
    first_line: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The path as the list gives it."""
        return os.fsdecode(self.text[self.starts[index] : self.ends[index]].tobytes())

    def path(self, index: int) -> Path:
        """Where the image is."""
        return self.root / self.name(index)

    def where(self, index: int) -> str:
        """File and line, for an error."""
        if self.source is None:
            return ""
        return f"{self.source}, line {index + self.first_line}: "

    @staticmethod
    def of_paths(paths: Sequence[str | Path]) -> ImageList:
        """A list of images without labels."""
        return _from_names(None, Path(), [os.fspath(p) for p in paths], [-1] * len(paths))


def read_list(
    path: str | Path,
    data_dir: str | Path | None = None,
    num_classes: int | None = None,
    names: Sequence[str] | None = None,
) -> ImageList:
    """Reads a list file and checks every line.

    It is an ILSVRC-style list as Caffe's, a path, a space and a label on each line; or a CSV file
    whose header has the columns `image` and `label`, or that has no header and holds a path and a
    class id on each line. Spaces in paths, tabs, several spaces before a label, any line ends, a
    byte order mark and blank lines at the end are taken.

    Args:
        path: the list file.
        data_dir: the folder that the paths start from; None for the folder of the list file.
        num_classes: class ids must be below it; None for any.
        names: the classes' names, if labels may be names too: a whole line of the list of names,
            or its first word. A number is a class id, and must not be the name of another class.

    Raises:
        InputError: with the numbers of the lines that are wrong, the first ten and their count.
    """
    path = Path(path)
    data = read_bytes(path, "list file")
    root = path.parent if data_dir is None else Path(data_dir)
    if not root.is_dir():
        raise InputError(f"`data_dir` {root}: no such folder.")
    if data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8) :]
    if b"\r" in data:  # the line ends of Windows and of old Macs
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = data.rstrip()
    if not data:
        raise InputError(f"{path}: the list file is empty.")
    ids = ids_of_names(names or ())
    first_line = data.split(b"\n", 1)[0]
    columns = [
        column.strip() for column in first_line.decode("utf-8", "replace").lower().split(",")
    ]
    if {"image", "label"} <= set(columns):
        images, problems = _read_csv(path, root, data, ids, columns)
    elif re.fullmatch(rb".+,[ \t]*[0-9]+[ \t]*", first_line):
        images, problems = _read_csv(path, root, data, ids, None)
    else:
        images, problems = _read_text(path, root, data, ids)
    if num_classes is not None:
        problems += [
            (
                int(i) + images.first_line,
                f"the label must lie in 0..{num_classes - 1}, found {images.labels[i]}",
            )
            for i in np.flatnonzero(images.labels >= num_classes)
        ]
    if names is not None and not problems:
        problems = [(i + images.first_line, text) for i, text in ambiguous_labels(images, names)]
    if problems:
        lines = [f"line {number}: {problem}" for number, problem in sorted(problems)]
        count = "a bad line" if len(lines) == 1 else f"{len(lines)} bad lines"
        raise InputError(f"{path}: {count}: {describe_problems(lines)}.")
    if not len(images):
        raise InputError(f"{path}: the list file is empty.")
    return images


def class_sizes(images: ImageList, num_classes: int | None = None) -> np.ndarray:
    """Counts the images of each class of a list to train on.

    Args:
        images: the list.
        num_classes: None for the largest label + 1.

    Returns:
        int64 [num_classes].

    Raises:
        InputError: the list has one class only; or its largest label makes more classes than it
            has images, and `num_classes` does not say that this is meant.
    """
    largest = int(images.labels.argmax())
    label = int(images.labels[largest])
    if num_classes is None and label >= len(images):
        raise InputError(
            f"{images.where(largest)}the largest label is {label}, which makes {label + 1} classes "
            f"of {len(images)} images; give `num_classes` if that is meant."
        )
    if (images.labels == label).all():
        raise InputError(
            f"{images.source}: images of at least two classes were expected, all have the label "
            f"{label}."
        )
    return np.bincount(images.labels, minlength=num_classes or 0)


def describe_empty_classes(sizes: np.ndarray) -> str:
    """Says which classes of `class_sizes` have no images; "" if all have some."""
    empty = np.flatnonzero(sizes == 0).tolist()
    if not empty:
        return ""
    if empty == [0]:
        return "class 0 has no images: the labels start at 1, and class ids at 0"
    shown = ", ".join(map(str, empty[:SHOWN])) + (", ..." if len(empty) > SHOWN else "")
    return f"{len(empty)} of {len(sizes)} classes have no images: {shown}"


def ids_of_names(names: Sequence[str]) -> dict[str, int]:
    """Class ids by whole name, and by first word where that is unambiguous."""
    ids: dict[str, int] = {}
    ambiguous = set()
    for number, name in enumerate(names):
        word = name.split(" ", 1)[0]
        if ids.setdefault(word, number) != number:
            ambiguous.add(word)
    for word in ambiguous:
        del ids[word]
    ids.update({name: number for number, name in enumerate(names)})
    return ids


def _read_text(
    path: Path, root: Path, data: bytes, ids: Mapping[str, int]
) -> tuple[ImageList, list[tuple[int, str]]]:
    """Splits all lines at once with numpy; what does not look plain is read line by line."""
    text = np.frombuffer(data, np.uint8)
    ends = np.append(np.flatnonzero(text == _NEWLINE), len(text))
    starts = np.append(0, ends[:-1] + 1)
    is_gap = text == _SPACE
    if b"\t" in data:
        is_gap |= text == _TAB
    gaps = np.append(np.flatnonzero(is_gap), len(text))
    before = np.searchsorted(gaps, ends) - 1
    last_gap = np.where(before >= 0, gaps[before], -1)
    labels = np.zeros(len(ends), "int64")
    digits = ends - last_gap - 1
    plain = (last_gap > starts) & (text[starts] > _SPACE) & (digits > 0) & (digits <= _MAX_DIGITS)
    for place in range(int(digits[plain].max(initial=0))):
        rows = np.flatnonzero(plain & (digits > place))
        digit = text[last_gap[rows] + 1 + place] - _ZERO  # below "0" wraps round to above 9
        plain[rows] = digit <= 9
        labels[rows] = labels[rows] * 10 + digit
    names_end = last_gap.copy()
    rows = np.flatnonzero(plain)
    while len(rows := rows[is_gap[names_end[rows] - 1]]):  # several spaces before the label
        names_end[rows] -= 1
    problems = []
    try:
        data.decode()
    except UnicodeDecodeError:
        plain[:] = False  # to find the line
    for row in np.flatnonzero(~plain):
        label, width, problem = _read_line(data[starts[row] : ends[row]], ids)
        labels[row], names_end[row] = label, starts[row] + width
        if problem:
            problems.append((int(row) + 1, problem))
    return ImageList(path, root, text, starts, names_end, labels), problems


def _read_line(line: bytes, ids: Mapping[str, int]) -> tuple[int, int, str | None]:
    """Label, length of the name, and what is wrong with one line of a list file."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return 0, 0, f"UTF-8 text was expected, found {_shown(line)}"
    match = re.fullmatch(rb"(.*[^ \t])[ \t]+([^ \t]+)[ \t]*", line, re.DOTALL)
    if match is None:
        hint = ", or 'image,label' as the first line of a CSV file" if b"," in line else ""
        return 0, 0, f"'path label' was expected{hint}, found {_shown(line.decode())}"
    name, label = match.groups()
    class_id, problem = _read_label(label.decode(), ids)
    return class_id, len(name), problem


def _read_label(label: str, ids: Mapping[str, int]) -> tuple[int, str | None]:
    if re.fullmatch(r"[0-9]+", label) and len(label) <= _MAX_DIGITS:
        return int(label), None
    if label in ids:
        return ids[label], None
    if re.fullmatch(r"-[0-9]+", label):
        return 0, f"the label must be at least 0, found {_shown(label)}"
    expected = "a class id or a name of the list of names" if ids else "a class id"
    return 0, f"{expected} was expected as label, found {_shown(label)}"


def _shown(text: str | bytes) -> str:
    """The beginning of what stands in a file, for an error."""
    return repr(text) if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]!r}..."


def _read_csv(
    path: Path, root: Path, data: bytes, ids: Mapping[str, int], header: list[str] | None
) -> tuple[ImageList, list[tuple[int, str]]]:
    """Reads CSV rows; without a header they are a path, which may hold commas, and a label."""
    try:
        reader = csv.reader(io.StringIO(data.decode(), newline=""))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}).") from error
    if reader.line_num != len(rows):
        raise InputError(f"{path}: one row on each line was expected; found one of several lines.")
    if header is None:
        first_line, header = 1, ["image", "label"]
        rows = [[",".join(row[:-1]), row[-1]] if len(row) > 2 else row for row in rows]
    else:
        first_line, rows = 2, rows[1:]
    image_at, label_at = header.index("image"), header.index("label")
    names, labels, problems = [], [], []
    for number, row in enumerate(rows, first_line):
        name, label = "", 0
        if len(row) != len(header):
            problem: str | None = f"{len(header)} columns were expected, found {len(row)}"
        elif not row[image_at].strip():
            problem = "the path of an image was expected, found none"
        else:
            name = row[image_at].strip()
            label, problem = _read_label(row[label_at].strip(), ids)
        names.append(name)
        labels.append(label)
        if problem:
            problems.append((number, problem))
    return _from_names(path, root, names, labels, first_line), problems


def _from_names(
    source: Path | None, root: Path, names: list[str], labels: list[int], first_line: int = 1
) -> ImageList:
    encoded = [os.fsencode(name) for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype="int64")
    starts = np.append(0, ends)[:-1]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    return ImageList(source, root, text, starts, ends, np.array(labels, "int64"), first_line)


def read_names(path: str | Path, num_classes: int | None = None) -> list[str]:
    """Class names, one on each line in the order of the class ids, as ILSVRC's synset_words.txt.

    Args:
        path: the file; where there is none of this name, `imagenet` stands for
            `imagenet_class_names`.
        num_classes: how many names there must be; None for any number.

    Raises:
        InputError: there are fewer or more names than classes, or a blank one.
    """
    path = Path(path)
    if path == Path("imagenet") and not path.is_file():
        names = imagenet_class_names()
    else:
        names = [line.strip() for line in read_lines(path, "list of class names")]
    if num_classes is not None and len(names) != num_classes:
        raise InputError(
            f"{path}: {num_classes} class names were expected, one on each line; "
            f"found {len(names)}."
        )
    if "" in names:
        raise InputError(f"{path}, line {names.index('') + 1}: the name of a class is blank.")
    return names


def imagenet_class_names() -> list[str]:
    """The 1,000 classes of ILSVRC-2012 in the order of the class ids: WordNet id and lemmas.

    They are facts of WordNet 3.0 and of the challenge, put together from timm 1.0.31
    (imagenet_synsets.txt and imagenet_synset_to_lemma.txt).
    """
    return read_lines(Path(__file__).with_name("imagenet_classes.txt"), "list of class names")
