"""Temporary files and directories, which are known from what killed processes have left of theirs.

What is being written has a name that ends in `TEMPORARY` and is locked by whoever writes it, so
that everybody can tell what a killed process has left from what is still in use.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".sqz-tmp"  # how the names of all temporary files and directories of ours end
_TEMPORARY = re.compile(r"\.[a-z0-9_]{8}" + re.escape(TEMPORARY))
_MOVED_AWAY = re.compile(r"\.(.+)\.old" + re.escape(TEMPORARY))


def recover(path: Path) -> None:
    """Gives a directory its name back that a killed process had moved away to replace it.

    That happens where names cannot be exchanged. Whoever reads a directory that
    `atomic_directory` may have written calls this first.
    """
    old = moved_away(path)
    with suppress(OSError):  # its successor has come, another reader was faster, or no access
        if old.is_dir() and not path.exists():
            old.rename(path)


def moved_away(path: Path) -> Path:
    """The name that a directory has while it is being replaced, where names cannot be exchanged."""
    return path.with_name(f".{path.name}.old{TEMPORARY}") if path.name else path


def is_temporary(name: str) -> bool:
    """Whether a name is that of something that is being written, or was when a process ended."""
    return bool(_TEMPORARY.fullmatch(name) or _MOVED_AWAY.fullmatch(name))


def leftovers(folder: Path, below: bool = False) -> list[Path]:
    """What killed processes have left in a folder: temporaries that no process holds.

    Args:
        folder: it need not exist.
        below: look into its folders, too.
    """
    if not folder.is_dir():
        return []
    if not below:
        names = [name for name in os.listdir(folder) if is_temporary(name)]  # noqa: PTH208
        found = []
        for path in (folder / name for name in sorted(names)):
            with _held_if_abandoned(path) as is_abandoned:
                if is_abandoned:
                    found.append(path)
        return found
    found = leftovers(folder)
    for parent, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_temporary(name))
        found += [path for name in folders for path in leftovers(Path(parent, name))]
    return found


def clear_leftovers(folder: Path, below: bool = False) -> None:
    """Removes `leftovers`; directories that were moved away and not replaced come back."""
    for path in leftovers(folder, below):
        with _held_if_abandoned(path) as is_abandoned:
            if is_abandoned:  # still
                _clear(path)


def _clear(path: Path) -> None:
    if moved_away := _MOVED_AWAY.fullmatch(path.name):
        recover(path.with_name(moved_away[1]))
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # another process was faster, or it is another user's
            path.unlink()


clear_once = functools.lru_cache(1024)(clear_leftovers)  # it takes a listing of the folder


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """A new file in a folder, which is removed at the end if it still has its name."""
    descriptor = None
    while descriptor is None:
        handle, name = tempfile.mkstemp(TEMPORARY, ".", folder)
        os.close(handle)
        descriptor = _hold(name)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def temporary_directory(folder: Path | None = None) -> Iterator[Path]:
    """Yields a new directory; what has its name at the end is removed.

    Args:
        folder: where it lies; None: in the system's folder for such.
    """
    if folder is None:
        folder = Path(tempfile.gettempdir())
        clear_once(folder)
    descriptor = None
    while descriptor is None:
        name = tempfile.mkdtemp(TEMPORARY, ".", folder)
        descriptor = _hold(name)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        os.close(descriptor)


def _hold(name: str) -> int | None:
    """Locks a temporary as long as this process lives; None if `clear_leftovers` was faster."""
    try:
        descriptor = os.open(name, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with suppress(OSError):  # not every file system can, and there nothing is cleared
        _lock(descriptor)
    if Path(name).exists():
        return descriptor
    os.close(descriptor)
    return None


@contextmanager
def _held_if_abandoned(path: Path) -> Iterator[bool]:
    """Whether a temporary was left by a process that has ended; if so, nobody can take it now.

    A process that has just made it, and not locked it yet, waits in `_hold` until this ends.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    try:
        try:
            _lock(descriptor, wait=False)
            is_abandoned = True
        except OSError:  # it is held, or cannot be
            is_abandoned = False
        yield is_abandoned
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: bool = True) -> None:
    import fcntl  # Unix alone has it

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
