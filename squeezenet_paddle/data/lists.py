"""List files, class names, and the image files that a user names. No Paddle here."""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, describe_problems
from ..files import read_bytes, read_lines

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
_CSV_COLUMNS = ("image", "label")
_MAX_DIGITS = 9  # of a class id
_LONGEST_SHOWN = 60  # characters of a wrong line
_NEWLINE, _RETURN, _SPACE, _ZERO = b"\n\r 0"


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
    def of_paths(paths: Sequence[Path]) -> ImageList:
        """A list of images without labels."""
        return _from_names(None, Path(), [os.fspath(p) for p in paths], [-1] * len(paths))


def read_list(
    path: Path,
    data_dir: Path | None,
    num_classes: int | None,
    names: Sequence[str] | None = None,
) -> ImageList:
    """Reads a list file and checks every line.

    It is an ILSVRC-style list, a path, a space and a label a line, as Caffe's, split at the last
    space, so that paths may hold spaces; or a CSV file whose header has the columns `image` and
    `label`. Unix and Windows line ends, a byte order mark and blank lines at the end are taken.

    Args:
        path: the list file.
        data_dir: the folder that the paths start from; None for the folder of the list file.
        num_classes: class ids must be below it; None for any.
        names: the classes' names, if labels may be names too: a whole line of the list of names,
            or its first word. A number is always a class id.

    Raises:
        InputError: with the numbers of the lines that are wrong, the first ten and their count.
    """
    data = read_bytes(path, "list file")
    root = path.parent if data_dir is None else data_dir
    if not root.is_dir():
        raise InputError(f"--data_dir {root}: no such folder.")
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    ids = ids_of_names(names or ())
    if _is_csv(data):
        images, problems = _read_csv(path, root, data, ids)
    else:
        images, problems = _read_text(path, root, data, ids)
    if num_classes is not None:
        outside = np.flatnonzero(images.labels >= num_classes)
        problems += [
            (
                int(i) + images.first_line,
                f"the label must lie in 0..{num_classes - 1}, found {images.labels[i]}",
            )
            for i in outside
        ]
    if problems:
        lines = [f"line {number}: {problem}" for number, problem in sorted(problems)]
        count = "a bad line" if len(lines) == 1 else f"{len(lines)} bad lines"
        raise InputError(f"{path}: {count}: {describe_problems(lines)}.")
    if not len(images):
        raise InputError(f"{path}: the list file is empty.")
    return images


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
    text = np.frombuffer(data.rstrip(), np.uint8)
    if not len(text):
        return _from_names(path, root, [], []), []
    ends = np.append(np.flatnonzero(text == _NEWLINE), len(text))
    starts = np.append(0, ends[:-1] + 1)
    ends -= text[ends - 1] == _RETURN
    spaces = np.append(np.flatnonzero(text == _SPACE), len(text))
    before = np.searchsorted(spaces, ends) - 1
    last_space = np.where(before >= 0, spaces[before], -1)
    labels = np.zeros(len(ends), "int64")
    digits = ends - last_space - 1
    plain = (last_space > starts) & (text[starts] > _SPACE) & (digits > 0) & (digits <= _MAX_DIGITS)
    for place in range(int(digits[plain].max(initial=0))):
        rows = np.flatnonzero(plain & (digits > place))
        digit = text[last_space[rows] + 1 + place] - _ZERO  # below "0" wraps round to above 9
        plain[rows] = digit <= 9
        labels[rows] = labels[rows] * 10 + digit
    names_end = last_space.copy()
    problems = []
    if not data.isascii():
        plain &= ~_lines_that_are_not_utf8(data, starts, ends)
    for row in np.flatnonzero(~plain):
        label, width, problem = _read_line(text[starts[row] : ends[row]].tobytes(), ids)
        labels[row], names_end[row] = label, starts[row] + width
        if problem:
            problems.append((int(row) + 1, problem))
    return ImageList(path, root, text, starts, names_end, labels), problems


def _lines_that_are_not_utf8(data: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """bool [lines]; decodes a megabyte's worth of lines at a time."""
    bad = np.zeros(len(starts), bool)
    step = max(1, len(starts) * (1 << 20) // max(len(data), 1))
    for first in range(0, len(starts), step):
        last = min(first + step, len(starts))
        try:
            data[starts[first] : ends[last - 1]].decode()
        except UnicodeDecodeError:
            bad[first:last] = [not _is_utf8(data[starts[i] : ends[i]]) for i in range(first, last)]
    return bad


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_line(line: bytes, ids: Mapping[str, int]) -> tuple[int, int, str | None]:
    """Label, length of the name, and what is wrong with one line of a list file."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return 0, 0, f"UTF-8 text was expected, found {_shown(line)}"
    stripped = line.rstrip()
    name, _, label = stripped.rpartition(b" ")
    if not name.strip():
        return 0, 0, f"'path label' was expected, found {_shown(line.decode())}"
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


def _is_csv(data: bytes) -> bool:
    header = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip().lower()
    return set(_CSV_COLUMNS) <= {column.strip() for column in header.split(",")}


def _read_csv(
    path: Path, root: Path, data: bytes, ids: Mapping[str, int]
) -> tuple[ImageList, list[tuple[int, str]]]:
    try:
        reader = csv.reader(io.StringIO(data.decode().rstrip(), newline=""))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}).") from error
    if reader.line_num != len(rows):
        raise InputError(f"{path}: a row a line was expected; found one that goes over several.")
    header = [column.strip().lower() for column in rows[0]]
    image_at, label_at = (header.index(column) for column in _CSV_COLUMNS)
    names, labels, problems = [], [], []
    for number, row in enumerate(rows[1:], 2):
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
    return _from_names(path, root, names, labels, first_line=2), problems


def _from_names(
    source: Path | None, root: Path, names: list[str], labels: list[int], first_line: int = 1
) -> ImageList:
    encoded = [os.fsencode(name) for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype="int64")
    starts = np.append(0, ends)[:-1]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    return ImageList(source, root, text, starts, ends, np.array(labels, "int64"), first_line)


def read_names(path: Path, num_classes: int) -> list[str]:
    """Class names, one a line in the order of the class ids, e.g. ILSVRC's synset_words.txt.

    Raises:
        InputError: there are fewer or more names than classes, or a blank one.
    """
    names = [line.strip() for line in read_lines(path, "list of class names")]
    if len(names) != num_classes:
        raise InputError(
            f"{path}: {num_classes} class names were expected, one a line; found {len(names)}."
        )
    if "" in names:
        raise InputError(f"{path}, line {names.index('') + 1}: the name of a class is blank.")
    return names


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The image files that the user named: files as they are, folders searched, globs expanded.

    In a folder, files are taken by their suffix, hidden ones left out; a file named itself, or by
    a glob, is taken whatever its name.

    Raises:
        InputError: nothing is there, or a folder may not be read.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if not pattern:
            raise InputError("--image: a file, folder or glob was expected, found an empty name.")
        if path.is_dir():
            inside = sorted(p for p in _walk(path) if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise InputError(f"{path}: this folder holds no images.")
            found += inside
        elif path.is_file():
            found.append(path)
        elif path.exists():
            raise InputError(f"{path}: a file or folder was expected, this is neither.")
        else:
            matches = sorted(
                p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file()
            )
            if not matches:
                raise InputError(f"{pattern}: no such file or folder, and no file matches it.")
            found += matches
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot read this folder ({error.strerror}).")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
