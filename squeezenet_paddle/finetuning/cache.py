"""Features on disk: computed once, memory-mapped, verified before use, resumed after a kill.

    NAME.f16      float16 [views * images, F]: view after view, each in the order of the list
    NAME.log      a line that says what they are; then, for each block of rows that is done, one
                  with its SHA-256 and the images in it that could not be read; each line begins
                  with a checksum of its own

A block counts if the journal has it and its bytes have this checksum. So neither a kill, nor a
damaged disk, nor the features of other images or weights can pass for what was asked for: what is
not proven is computed again. No Paddle here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError, RunError
from ..files import sha256, write_bytes

BLOCK = 64  # images that are computed, written and proven together
_ROOM_LEFT = 100 << 20  # bytes that stay free for checkpoints, models and logs


@dataclass(frozen=True)
class Block:
    """The rows of the images `start` to `stop` of a list in one view."""

    view: int
    start: int
    stop: int


class FeatureFile:
    """The features of a list.

    Args:
        folder: where the two files lie or will lie.
        name: of them, without the suffix.
        key: a hash of all that the features depend on.
        images: length of the list.
        views: of each image.
        size: F, numbers an image and view.

    Attributes:
        unreadable: what was wrong with each image that could not be read, by its index. Its rows
            are zeros.
    """

    def __init__(
        self, folder: Path, name: str, key: str, images: int, views: int, size: int
    ) -> None:
        self._data, self._journal = folder / f"{name}.f16", folder / f"{name}.log"
        self._header = {"key": key, "images": images, "views": views, "size": size}
        self._images, self._views, self._row = images, views, 2 * size
        self._shape = views * images, size
        self.unreadable: dict[int, str] = {}
        self._done: set[Block] = set()

    @property
    def rows(self) -> int:
        """Rows of the whole file."""
        return self._shape[0]

    @property
    def bytes(self) -> int:
        """Bytes of the whole file."""
        return self.rows * self._row

    def room_needed(self) -> int:
        """Bytes that the disk needs to have free for the rest of the file."""
        present = self._data.stat().st_size if self._data.exists() else 0
        return max(0, self.bytes - present)

    def blocks(self) -> Iterator[Block]:
        """All blocks, in the order of the file."""
        for view in range(self._views):
            for start in range(0, self._images, BLOCK):
                yield Block(view, start, min(start + BLOCK, self._images))

    def missing(self) -> list[Block]:
        """The blocks that are to be computed."""
        return [block for block in self.blocks() if block not in self._done]

    def check(self) -> str | None:
        """Verifies the blocks on disk, for `missing`; removes files with another key.

        Returns:
            What is wrong with files that are there, if something is.
        """
        self._done, self.unreadable = set(), {}
        header, records = _read_journal(self._journal)
        if header != self._header:
            was_there = self._data.exists()
            for path in (self._data, self._journal):
                path.unlink(missing_ok=True)
            if was_there:
                return f"{self._data}: of other images, views or weights; they are computed again"
            return None
        if not self._data.exists():
            self._journal.unlink()
            return None
        damaged = 0
        with self._data.open("rb") as data:
            for block in self.blocks():
                record = records.get((block.view, block.start))
                if record is None:
                    continue
                data.seek(self._offset(block))
                if sha256(data.read(self._length(block))) == record["sha256"]:
                    self._note(block, record)
                else:
                    damaged += 1
        if damaged:
            return f"{self._data}: {damaged} blocks are damaged; they are computed again"
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
        """float16 [views, images, F], memory-mapped; `missing` must be empty."""
        rows = np.memmap(self._data, "<f2", "r", shape=self._shape)
        return rows.reshape(self._views, self._images, -1)

    def _offset(self, block: Block) -> int:
        return (block.view * self._images + block.start) * self._row

    def _length(self, block: Block) -> int:
        return (block.stop - block.start) * self._row

    def _note(self, block: Block, record: dict[str, Any]) -> None:
        self._done.add(block)
        self.unreadable.update({int(index): text for index, text in record["unreadable"].items()})


class Writer:
    """Adds blocks to a `FeatureFile`."""

    def __init__(self, file: FeatureFile, data: BinaryIO, journal: Any) -> None:
        self._file, self._data, self._journal = file, data, journal

    def write(self, block: Block, rows: np.ndarray, unreadable: dict[int, str]) -> None:
        """Writes the rows of a block, and only then the line that vouches for them."""
        content = np.ascontiguousarray(rows, "<f2").tobytes()
        self._data.seek(self._file._offset(block))
        self._data.write(content)
        self._data.flush()
        record = {
            "view": block.view,
            "start": block.start,
            "sha256": sha256(content),
            "unreadable": unreadable,
        }
        self._journal.write(_line(record))
        self._file._note(block, record)


def check_room(folder: Path, files: Sequence[FeatureFile]) -> None:
    """Checks, before any work is done, that the disk has room.

    Raises:
        InputError: with what would take less.
    """
    needed = sum(file.room_needed() for file in files)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed and needed + _ROOM_LEFT > free:
        raise InputError(
            f"{folder}: the features need {size_text(needed)} and {size_text(_ROOM_LEFT)} more "
            f"must stay free, and the disk has {size_text(free)}; fewer --views, --head "
            "multiscale, a smaller --crop_size or --no_cache take less."
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


def _read_journal(path: Path) -> tuple[Any, dict[tuple[int, int], dict[str, Any]]]:
    """The header, and the records by view and start; damaged lines are passed over."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return None, {}
    header, *rest = (_parsed(line) for line in lines or [b""])
    return header, {(each["view"], each["start"]): each for each in rest if each is not None}


def _parsed(line: bytes) -> dict[str, Any] | None:
    digest, _, text = line.partition(b" ")
    return json.loads(text) if sha256(text).encode() == digest else None
