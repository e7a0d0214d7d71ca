"""The contents of image files by SHA-256, remembered as long as the files do not change."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..files import sha256, write_text
from ..progress import Progress

_AT_ONCE = 256  # files
_THREADS = 4  # reading and hashing leave the interpreter to the others


@dataclass(frozen=True)
class Contents:
    """What files contain.

    Attributes:
        hashes: the SHA-256 of each in hexadecimal. A file that cannot be read has that of its path
            in place of its own, and whoever decodes it says what is wrong with it.
        signatures: of each, as `signature` gives them, from before it was read.
    """

    hashes: list[str]
    signatures: list[str]


def content_hashes(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file; see `Contents`."""
    return read_contents(paths).hashes


def read_contents(paths: Sequence[Path], memo: Path | None = None) -> Contents:
    """Hashes files.

    Args:
        paths: the files.
        memo: a file that remembers the hashes with the files' signatures; what still fits is not
            read again. None: all are read.
    """
    known: dict[str, list[str]] = {} if memo is None else _read(memo)
    names = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - links stay as they are
    signatures = [signature(name) for name in names]
    new = [i for i, name in enumerate(names) if known.get(name, [""])[0] != signatures[i]]
    with Progress("reading", len(new)) as progress, ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(new), _AT_ONCE):
            part = new[start : start + _AT_ONCE]
            hashes = pool.map(_hash, [names[i] for i in part])
            known.update((names[i], [signatures[i], found]) for i, found in zip(part, hashes))
            progress.update(len(part))
    if memo is not None and new:
        write_text(memo, json.dumps(known))
    return Contents([known[name][1] for name in names], signatures)


def signature(path: str | Path) -> str:
    """Size, times of change and number of a file, which change with its content."""
    try:
        status = Path(path).stat()
    except OSError:
        return "none"
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _hash(name: str) -> str:
    try:
        return sha256(Path(name).read_bytes())
    except OSError:
        return sha256(os.fsencode(name))


def _read(memo: Path) -> dict[str, list[str]]:
    try:
        known = json.loads(memo.read_bytes())
        return {name: [signature, found] for name, (signature, found) in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # it only saves time
        return {}
