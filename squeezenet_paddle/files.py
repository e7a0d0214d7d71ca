"""Atomic writing of files and directories, and reading with errors that name the file."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` if no error occurs.

    Raises:
        InputError: `path` cannot be the name of a file, or cannot be written.
    """
    check_file_target(path)
    path = _resolved(path)  # a link stays, and its target is replaced
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _give_usual_mode(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Path]:
    """Yields a temporary directory beside `path`, and renames it to `path` if no error occurs.

    An existing directory is replaced only if it is empty, or if it has all `required` entries and
    no others but these and `optional`.

    Raises:
        InputError: `path` is a file, holds something else, or cannot be written.
    """
    check_directory(path, required, optional)
    path = _resolved(path)
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            _give_usual_mode(temporary)
            if path.exists():
                _replace_directory(path, temporary)
            else:
                temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_directory(path: Path, new: Path) -> None:
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        path.replace(old)
    except OSError:  # a mount point
        old.rmdir()
        raise
    new.replace(path)
    shutil.rmtree(old)


def clear_leftovers(path: Path) -> None:
    """Removes the temporary files that a killed process left beside `path`.

    If it had moved an old directory away to replace it, that is moved back. Nobody else may be
    writing to `path`.
    """
    for entry in sorted(path.parent.glob(f".{glob.escape(path.name)}.*")):
        moved_away = entry.name.startswith(f".{path.name}.old.") and any(entry.iterdir())
        if moved_away and not path.exists():
            entry.replace(path)
        elif entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def check_directory(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raises the error of `atomic_directory` early, before the work."""
    target = _resolved(path)
    if target in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{path} is the current directory or holds it; give one inside it.")
    if target.exists() and not target.is_dir():
        raise InputError(f"{path} is a file; the name of a directory was expected.")
    found = {entry.name for entry in target.iterdir()} if target.exists() else set()
    missing, foreign = set(required) - found, found - {*required, *optional}
    if found and (missing or foreign):
        reason = f"{min(foreign)} is in it" if foreign else f"it has no {min(missing)}"
        raise InputError(
            f"{path} exists and holds something else ({reason}); it was left alone. "
            "Give another name or remove it."
        )


def check_file_target(path: Path) -> None:
    """Raises the error of `atomic_path` early, before the work."""
    target = _resolved(path)
    if target.exists() and not target.is_file():
        kind = "a directory" if target.is_dir() else "no regular file"
        raise InputError(f"{path} is {kind}; the name of a file to write was expected.")
    folder = next(parent for parent in target.parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"{path} cannot be written: {folder} is not a writable folder.")


def _resolved(path: Path) -> Path:
    """The path with all links followed; it need not exist."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: {error}.") from error
    if target.is_symlink():  # from Python 3.13 on, a loop is returned as it is
        raise InputError(f"{path}: a loop of symbolic links.")
    return target


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Makes system errors name the target, not the temporary path beside it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}).") from error


def _give_usual_mode(path: Path) -> None:
    """Replaces tempfile's private mode by the one that the user's umask gives."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def read_bytes(path: Path, what: str) -> bytes:
    """Reads a file that the user named; `what` says in errors what it should be.

    Raises:
        InputError: it does not exist, is a directory, or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what} ({error.strerror}).") from error


def read_regular(path: Path, what: str, largest: int) -> bytes:
    """Reads a file that somebody else may have made, of at most `largest` bytes.

    Raises:
        InputError: it cannot be read, is larger, or is no regular file: a pipe would be waited for,
            and a device has no end.
    """
    check_regular(path, what, largest)
    return read_bytes(path, what)


def check_regular(path: Path, what: str, largest: int) -> None:
    """Raises the error of `read_regular`."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what} ({error.strerror}).") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: a regular file was expected as {what}.")
    if status.st_size > largest:
        raise InputError(
            f"{path}: at most {largest:,} bytes were expected of this {what}, found "
            f"{status.st_size:,}."
        )


def read_lines(path: Path, what: str) -> list[str]:
    """Reads the lines of a UTF-8 text file, without line ends and blank lines at the end.

    Unix and Windows line ends and a byte order mark are accepted.

    Raises:
        InputError: the file cannot be read or is not UTF-8.
    """
    data = read_bytes(path, what)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: this {what} is not UTF-8 text.") from error
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
