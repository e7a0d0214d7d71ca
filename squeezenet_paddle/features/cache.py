"""Features on disk: found by content, memory-mapped, verified before use, resumed after a kill.

    NAME.f16      float16 [rows, F], in blocks
    NAME.log      a line that says what they are; then one for each block, with its SHA-256, the
                  view, and the SHA-256 of the file that each row is of; each line begins with a
                  checksum of its own

A row is found by the content of an image and the number of the view, so that files may be renamed,
moved, added and removed. It counts if the journal has its block and the bytes of the block have
this checksum. So neither a kill, nor a damaged disk, nor the features of other images or weights
can pass for what was asked for: what is not proven is computed again. No Paddle here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError, RunError
from ..files import check_regular, read_regular, sha256, write_bytes

BLOCK = 64  # images that are computed, written and proven together
_FORMAT = 2
_LARGEST = 1 << 44  # bytes of a file
_ROOM_LEFT = 100 << 20  # bytes that stay free for checkpoints, models and logs


class FeatureFile:
    """The features of any number of images.

    Args:
        folder: where the two files lie or will lie.
        name: of them, without the suffix.
        key: a hash of all that the features depend on beside the images and the views.
        size: F, numbers an image and view.
    """

    def __init__(self, folder: Path, name: str, key: str, size: int) -> None:
        self._data, self._journal = folder / f"{name}.f16", folder / f"{name}.log"
        self._header = {"format": _FORMAT, "key": key, "size": size}
        self._size = size
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[tuple[str, int], int] = {}
        self._damaged: list[tuple[int, int]] = []  # start and length of blocks to write anew
        self._end = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return 2 * self._size

    def rows(self, contents: Sequence[str], view: int = 0) -> np.ndarray:
        """Where the rows of contents are in `read`, int64 [N]; -1 for those to be computed."""
        return np.array([self._rows.get((content, view), -1) for content in contents], "int64")

    def others(self, contents: Collection[str]) -> list[str]:
        """The content of each row that is of none of these; `check` comes first."""
        known = set(contents)
        return [content for content, _ in self._rows if content not in known]

    def check(self) -> str | None:
        """Verifies the blocks on disk, for `rows`; removes files with another key.

        Returns:
            What is wrong with files that are there, if something is.
        """
        self._clear()
        header, records = _read_journal(self._journal)
        if header != self._header:
            was_there = self._data.exists()
            for path in (self._data, self._journal):
                path.unlink(missing_ok=True)
            if was_there:
                return f"{self._data}: of other views or weights; they are computed again"
            return None
        if not self._data.exists():
            self._journal.unlink()
            return None
        check_regular(self._data, "cache of features", _LARGEST)
        size = self._data.stat().st_size
        with self._data.open("rb") as data:
            for start, record in records.items():
                count = len(record["contents"])
                if start * self.row_bytes > size:  # no place that a block is written to
                    continue
                data.seek(start * self.row_bytes)
                block = data.read(count * self.row_bytes)
                if len(block) == count * self.row_bytes and sha256(block) == record["sha256"]:
                    self._note(record)
                else:
                    self._damaged.append((start, count))
                self._end = max(self._end, start + count)
        if self._damaged:
            return f"{self._data}: {len(self._damaged)} blocks are damaged; they are computed again"
        return None

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """Opens both files to add blocks.

        Raises:
            RunError: they cannot be written.
        """
        try:
            self._data.parent.mkdir(parents=True, exist_ok=True)
            if not self._journal.exists():
                write_bytes(self._journal, _line(self._header))
            self._data.touch()
            with self._data.open("r+b") as data, self._journal.open("r+b", buffering=0) as journal:
                if journal.seek(0, 2) and not _ends_a_line(journal):  # a kill cut it
                    journal.write(b"\n")
                yield Writer(self, data, journal)
        except OSError as error:
            raise RunError(
                f"{self._data}: cannot be written ({error.strerror}); what was computed until then "
                "stays, and the same command goes on from there."
            ) from error

    def read(self) -> np.ndarray:
        """float16 [rows, F], memory-mapped; see `rows`."""
        if not self._end:
            return np.empty((0, self._size), "<f2")
        count = self._data.stat().st_size // self.row_bytes
        return np.memmap(self._data, "<f2", "r", shape=(count, self._size))

    def _note(self, record: dict[str, Any]) -> None:
        start, view = record["start"], record["view"]
        self._rows.update(((each, view), start + i) for i, each in enumerate(record["contents"]))

    def _place(self, count: int) -> int:
        """The row at which a block goes: where a damaged one was, or at the end."""
        for i, (start, length) in enumerate(self._damaged):
            if count <= length:
                del self._damaged[i]
                return start
        self._end += count
        return self._end - count


class Writer:
    """Adds blocks to a `FeatureFile`."""

    def __init__(self, file: FeatureFile, data: BinaryIO, journal: Any) -> None:
        self._file, self._data, self._journal = file, data, journal

    def write(self, contents: Sequence[str], view: int, rows: np.ndarray) -> None:
        """Writes the rows of these contents, and only then the line that vouches for them."""
        content = np.ascontiguousarray(rows, "<f2").tobytes()
        start = self._file._place(len(contents))
        self._data.seek(start * self._file.row_bytes)
        self._data.write(content)
        self._data.flush()
        record = {
            "start": start,
            "view": view,
            "sha256": sha256(content),
            "contents": list(contents),
        }
        self._journal.write(_line(record))
        self._file._note(record)


def check_room(folder: Path, needed: int, smaller: str = "") -> None:
    """Checks, before any work is done, that the disk has room for so many bytes of features.

    Args:
        folder: where they go.
        needed: bytes.
        smaller: the settings that would make them fewer, for the error.

    Raises:
        InputError: it has not.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed and needed + _ROOM_LEFT > free:
        raise InputError(
            f"{folder}: the features need {size_text(needed)} and {size_text(_ROOM_LEFT)} more "
            f"must stay free, and the disk has {size_text(free)}{smaller and f'; {smaller}'}."
        )


def size_text(count: int) -> str:
    """Formats a number of bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _line(record: dict[str, Any]) -> bytes:
    """A line of the journal: a checksum and the record that it is of."""
    text = json.dumps(record).encode()
    return sha256(text).encode() + b" " + text + b"\n"


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"


def _read_journal(path: Path) -> tuple[Any, dict[int, dict[str, Any]]]:
    """The header, and the records by start, the newest of each; damaged lines are passed over."""
    if not path.exists():
        return None, {}
    lines = read_regular(path, "journal of features", _LARGEST).splitlines()
    header, *rest = (_parsed(line) for line in lines or [b""])
    return header, {each["start"]: each for each in rest if _is_of_a_block(each)}


def _parsed(line: bytes) -> Any:
    digest, _, text = line.partition(b" ")
    try:
        return json.loads(text) if sha256(text).encode() == digest else None
    except (ValueError, RecursionError):
        return None


def _is_of_a_block(record: Any) -> bool:
    """Whether a line of the journal is one that `Writer.write` wrote."""
    return (
        isinstance(record, dict)
        and set(record) == {"start", "view", "sha256", "contents"}
        and all(type(record[name]) is int and record[name] >= 0 for name in ("start", "view"))
        and isinstance(record["contents"], list)
        and all(isinstance(each, str) for each in record["contents"])
    )
