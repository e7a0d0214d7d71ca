"""Atomic and durable writing, and reading with errors that name the file."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .errors import InputError
from .temporaries import (
    clear_once,
    is_temporary,
    moved_away,
    recover,
    temporary_directory,
    temporary_file,
)

_SYNCED_ONE_BY_ONE = 100  # files; where there are more, the system writes out all that it has
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # from Linux's fcntl.h and fs.h
# Also of containers that forbid what they do not know; plain renames then say what is wrong else.
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.EPERM}


@contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` if no error occurs.

    Args:
        path: the file.
        durable: have the content on the disk before the file gets its name, and then the name, so
            that neither is lost with the power. Takes a few milliseconds.

    Raises:
        InputError: `path` cannot be the name of a file, or cannot be written.
    """
    check_file_target(path)
    path = _resolved(path)  # a link stays, and its target is replaced
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_once(path.parent)
        with temporary_file(path.parent) as temporary:
            yield temporary
            _give_usual_mode(temporary)
            if durable:
                _sync(temporary)
            temporary.replace(path)
            if durable:
                _sync(path.parent)


@contextmanager
def atomic_directory(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Path]:
    """Yields a temporary directory beside `path`, and renames it to `path` if no error occurs.

    An existing directory is replaced only if it is empty, or if it has all `required` entries and
    no others but these and `optional`. Where the file system can exchange two names, `path` is one
    directory or the other at every moment, whatever is killed; elsewhere see `recover`.

    Raises:
        InputError: `path` is a file, holds something else, or cannot be written.
    """
    recover(path)
    check_directory(path, required, optional)
    path = _resolved(path)
    with named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_once(path.parent)
        with temporary_directory(path.parent) as temporary:
            yield temporary
            _give_usual_mode(temporary)
            _sync_tree(temporary)
            if path.exists():
                _swap(temporary, path)
            else:
                temporary.replace(path)
            _sync(path.parent)


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes files that belong together, so that no kill leaves some of them beside old ones.

    All are complete before the old ones go, and these have gone before the first gets its name. A
    kill in between leaves some of the new files, or none.

    Args:
        folder: of all of them.
        contents: by file name.

    Raises:
        InputError: one of them cannot be written; the old ones are left then.
    """
    targets = {name: _resolved(folder / name) for name in contents}
    for target in targets.values():
        check_file_target(target)
    with named_errors(folder), ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        clear_once(folder)
        written: list[tuple[Path, Path]] = []
        for name, content in contents.items():
            temporary = stack.enter_context(temporary_file(targets[name].parent))
            temporary.write_bytes(content)
            _give_usual_mode(temporary)
            _sync(temporary)
            written.append((temporary, targets[name]))
        for _, target in written:
            target.unlink(missing_ok=True)
        _sync(folder)
        for temporary, target in written:
            temporary.replace(target)
        _sync(folder)


def exchange(a: Path, b: Path) -> bool:
    """Exchanges two names in one step; False where the system or the file system cannot.

    Raises:
        OSError: it can, and there is something else in the way.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # Linux and glibc have it
        return False
    names = os.fsencode(a), os.fsencode(b)
    if not libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(b))


def _swap(new: Path, path: Path) -> None:
    """Puts a directory in the place of another one, which it takes the name of or removes."""
    if exchange(new, path):
        return
    old = moved_away(path)
    shutil.rmtree(old, ignore_errors=True)
    path.replace(old)  # not a mount point, which raises an error
    try:
        new.replace(path)
    except OSError:  # a reader has called `recover` in between
        shutil.rmtree(path)
        new.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not is_folder:  # of which not every file system can
            raise
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    paths = list(folder.rglob("*"))
    if len(paths) > _SYNCED_ONE_BY_ONE:
        os.sync()
        return
    for path in (*paths, folder):
        _sync(path)


def check_directory(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raises the error of `atomic_directory` early, before the work."""
    target = _resolved(path)
    if target in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{path} is the current directory or holds it; give one inside it.")
    if target.exists() and not target.is_dir():
        raise InputError(f"{path} is a file; the name of a directory was expected.")
    entries = target.iterdir() if target.exists() else ()
    found = {entry.name for entry in entries if not is_temporary(entry.name)}
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
def named_errors(path: Path) -> Iterator[None]:
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


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Writes a file atomically; see `atomic_path`."""
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_bytes(path, text.encode("utf-8"))


def read_bytes(path: Path, what: str) -> bytes:
    """Reads a file that the user named; `what` says in errors what it should be.

    Raises:
        InputError: it does not exist, is a directory, or may not be read.
    """
    with _reading(path, what):
        return path.read_bytes()


def read_regular(path: Path, what: str, largest: int) -> bytes:
    """Reads a file that somebody else may have made, of at most `largest` bytes.

    Raises:
        InputError: it cannot be read, is larger, or is no regular file: a pipe would be waited for,
            and a device has no end.
    """
    with _reading(path, what):
        # Without O_NONBLOCK opening a pipe would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            _check_status(os.fstat(file.fileno()), path, what, largest)
            return file.read()


def check_regular(path: Path, what: str, largest: int) -> None:
    """Raises the errors of `read_regular`, but for those of the reading itself."""
    with _reading(path, what):
        _check_status(path.stat(), path, what, largest)


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot read this {what} ({error.strerror}).") from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{path}: cannot read this {what} ({error}).") from error


def _check_status(status: os.stat_result, path: Path, what: str, largest: int) -> None:
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
