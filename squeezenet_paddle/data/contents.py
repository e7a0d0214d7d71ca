"""The contents of image files by SHA-256, remembered as long as the files do not change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import ImageError
from ..files import sha256, write_text
from ..progress import Progress
from .decode import MAX_PIXELS, read_file
from .image_files import inspect
from .lists import ImageList

SAVED_EVERY = 60.0  # seconds of decoding; a million files take 5 to save
_AT_ONCE = 256  # files
_SIZES, _READ = 10_000, 256  # files of a list that `summary` looks at: 0.1 s, however long it is
_THREADS = 4  # reading and hashing leave the interpreter to the others


@dataclass(frozen=True)
class Contents:
    """What files contain.

    Attributes:
        hashes: the SHA-256 of each in hexadecimal. A file that cannot be read has that of its path
            in place of its own, and whoever decodes it says what is wrong with it.
        signatures: of each, as `signature` gives them, from before it was read.
        problems: what is wrong with those that cannot be decoded, by index, if they were inspected.
    """

    hashes: list[str]
    signatures: list[str]
    problems: dict[int, str] = field(default_factory=dict)


class _Known(NamedTuple):
    """What is remembered of a file; `max_pixels` is the limit under which it was decoded, or 0."""

    signature: str
    sha256: str
    max_pixels: int = 0


def content_hashes(paths: Sequence[str | Path]) -> list[str]:
    """The SHA-256 of each file; see `Contents`."""
    return read_contents(paths).hashes


def read_contents(paths: Sequence[str | Path], memo: Path | None = None) -> Contents:
    """Hashes files.

    Args:
        paths: the files.
        memo: a file that remembers the hashes with the files' signatures; what still fits is not
            read again. None: all are read.
    """
    known, names = _read(memo), _names(paths)
    signatures = [signature(name) for name in names]
    new = [i for i, name in enumerate(names) if _of(known, name).signature != signatures[i]]
    with (
        _kept(known, memo if new else None),
        Progress("reading", len(new)) as progress,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for start in range(0, len(new), _AT_ONCE):
            part = new[start : start + _AT_ONCE]
            for i, found in zip(part, pool.map(_hash, [names[i] for i in part])):
                known[names[i]] = _Known(signatures[i], found)
            progress.update(len(part))
    return Contents([known[name].sha256 for name in names], signatures)


def inspect_contents(
    paths: Sequence[str | Path], memo: Path, num_workers: int, max_pixels: int = MAX_PIXELS
) -> Contents:
    """Hashes files and decodes each, but those of which `memo` remembers that they decode.

    What is found is remembered every now and then, so that after a kill the rest alone is left.

    Args:
        paths: the files.
        memo: see `read_contents`.
        num_workers, max_pixels: see `inspect`.
    """
    known, names = _read(memo), _names(paths)
    signatures = [signature(name) for name in names]
    new = [
        i
        for i, name in enumerate(names)
        if _of(known, name).signature != signatures[i]
        or not 0 < _of(known, name).max_pixels <= max_pixels
    ]
    problems = {}
    saved = time.monotonic()
    with _kept(known, memo if new else None):
        for found, i in zip(inspect([paths[i] for i in new], num_workers, max_pixels), new):
            if found.problem is not None:
                problems[i] = found.problem
            checked = max_pixels if found.problem is None else 0
            digest = found.sha256 or sha256(os.fsencode(names[i]))
            known[names[i]] = _Known(signatures[i], digest, checked)
            if time.monotonic() - saved > SAVED_EVERY:
                write_text(memo, json.dumps(known))
                saved = time.monotonic()
    return Contents([known[name].sha256 for name in names], signatures, problems)


def signature(path: str | Path) -> str:
    """Size, times of change and number of a file, which change with its content."""
    try:
        status = Path(path).stat()
    except OSError:
        return "none"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def summary(images: ImageList) -> str:
    """What tells one set of files from another one under the same names, for people to compare.

    It takes the sizes of `_SIZES` files, spread evenly over the list, and what `_READ` of them
    contain; of a shorter list, those of all. Times are left out, as a copy has others.
    """
    sizes: dict[int, int] = {}
    for i in _spread(len(images), _SIZES):
        with suppress(OSError):
            sizes[i] = images.path(i).stat().st_size
    digest = hashlib.sha256(json.dumps(sizes).encode())
    for i in _spread(len(images), _READ):
        digest.update(_hash(str(images.path(i))).encode() if i in sizes else b"none")
    looked_at = "" if len(images) <= _READ else f" of {len(images):,} looked at"
    return f"{len(sizes):,} files{looked_at}, {sum(sizes.values()):,} bytes, {digest.hexdigest()}"


def _spread(count: int, most: int) -> list[int]:
    return sorted({i * count // min(count, most) for i in range(min(count, most))})


@contextmanager
def _kept(known: dict[str, _Known], memo: Path | None) -> Iterator[None]:
    """Writes the memo at the end, and also when a signal or an error comes before."""
    try:
        yield
    finally:
        if memo is not None:
            write_text(memo, json.dumps(known))


def _names(paths: Sequence[str | Path]) -> list[str]:
    return [os.path.abspath(path) for path in paths]  # noqa: PTH100 - links stay as they are


def _of(known: dict[str, _Known], name: str) -> _Known:
    return known.get(name, _Known("", ""))


def _hash(name: str) -> str:
    try:
        return sha256(read_file(name))
    except ImageError:
        return sha256(os.fsencode(name))


def _read(memo: Path | None) -> dict[str, _Known]:
    if memo is None:
        return {}
    try:
        return {name: _Known(*each) for name, each in json.loads(memo.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):  # it only saves time
        return {}
