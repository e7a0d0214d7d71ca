"""Atomic and durable writing of files and directories, and reading with errors that name the file.

What is being written has a name that ends in `TEMPORARY` and is locked by whoever writes it, so
that everybody can tell what a killed process has left from what is still in use.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import InputError

TEMPORARY = ".sqz-tmp"  # how the names of all temporary files and directories of ours end
_TEMPORARY = re.compile(r"\.[a-z0-9_]{8}" + re.escape(TEMPORARY))
_MOVED_AWAY = re.compile(r"\.(.+)\.old" + re.escape(TEMPORARY))
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
        _clear_once(path.parent)
        with _temporary_file(path.parent) as temporary:
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
        _clear_once(path.parent)
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
        _clear_once(folder)
        written: list[tuple[Path, Path]] = []
        for name, content in contents.items():
            temporary = stack.enter_context(_temporary_file(targets[name].parent))
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
    old = _moved_away(path)
    shutil.rmtree(old, ignore_errors=True)
    path.replace(old)  # not a mount point, which raises an error
    try:
        new.replace(path)
    except OSError:  # a reader has called `recover` in between
        shutil.rmtree(path)
        new.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def recover(path: Path) -> None:
    """Gives a directory its name back that a killed process had moved away to replace it.

    That happens where names cannot be exchanged. Whoever reads a directory that
    `atomic_directory` may have written calls this first.
    """
    old = _moved_away(path)
    with suppress(OSError):  # its successor has come, another reader was faster, or no access
        if old.is_dir() and not path.exists():
            old.rename(path)


def _moved_away(path: Path) -> Path:
    return path.with_name(f".{path.name}.old{TEMPORARY}") if path.name else path


def is_temporary(name: str) -> bool:
    """Whether a name is one that this module gives to what it has not finished writing."""
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


_clear_once = functools.lru_cache(1024)(clear_leftovers)  # it takes a listing of the folder


@contextmanager
def _temporary_file(folder: Path) -> Iterator[Path]:
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
        _clear_once(folder)
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
