"""Writing files so that a reader never sees half of one, and naming what is in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; on leaving without an error it is renamed to `path`."""
    path = path.resolve()  # of a link, the target is replaced
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
def atomic_directory(path: Path, marker: str) -> Iterator[Path]:
    """Gives a temporary directory beside `path`; on leaving without an error it takes that name.

    An existing directory is replaced only if it is empty or holds the file `marker`, that is, if
    we wrote it.

    Raises:
        InputError: `path` is a file, or a directory with something else in it.
    """
    check_directory(path, marker)
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        _give_usual_mode(temporary)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            try:
                path.replace(old)
            except OSError as error:  # the current directory, or a mount point
                old.rmdir()
                raise InputError(
                    f"{path}: this directory cannot be replaced ({error.strerror}); "
                    "give the name of one inside it."
                ) from error
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_directory(path: Path, marker: str) -> None:
    """Refuses a directory that `atomic_directory` would refuse to replace; for an early answer."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; the name of a directory was expected.")
    if path.exists() and any(path.iterdir()) and not (path / marker).is_file():
        raise InputError(
            f"{path} exists and holds something else (it has no {marker}); it was left alone. "
            "Give another name or remove it."
        )


def _give_usual_mode(path: Path) -> None:
    """tempfile makes private files; give them the mode that the user's umask asks for."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def read_bytes(path: Path, what: str) -> bytes:
    """The content of a file that the user named; `what` says what it should have been.

    Raises:
        InputError: it does not exist, is a directory, or may not be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what} ({error.strerror}).") from error


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a UTF-8 text file without their ends; blank lines at the end are left out.

    Takes Unix and Windows line ends, and a byte order mark.

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
