"""Opens a model of NVIDIA DIGITS: a folder, or the .tar.gz or .zip archive that it lets download.

Nothing of an archive is unpacked but the files that are looked for, into a temporary folder, under
their last names. An archive with a path that leads outside of it, with a link, or with more than
the limits below is refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import InputError
from ..files import read_bytes
from ..temporaries import temporary_directory

MOST_MEMBERS = 10_000
LARGEST_MEMBER = 256 << 20  # bytes, of a file that is unpacked
LARGEST_ARCHIVE = 1 << 30  # of all files together, unpacked or not
_WANTED = (
    *("deploy.prototxt", "train_val.prototxt", "labels.txt", "info.json", "mean.npy"),
    *(".caffemodel", ".binaryproto"),  # of any name
)
_RESIZES = {"squash": "squash", "crop": "short_side"}


@dataclass(frozen=True)
class DigitsModel:
    """The files of a DIGITS model.

    Attributes:
        caffemodel: the snapshot.
        snapshots: the names of all snapshots that are there.
        prototxts: deploy.prototxt and train_val.prototxt, those that are there.
        mean_file, labels: None where there is none.
        resize: "squash" or "short_side", and `resize_size`; None where info.json says nothing.
    """

    caffemodel: Path
    snapshots: list[str]
    prototxts: list[Path]
    mean_file: Path | None
    labels: Path | None
    resize: str | None
    resize_size: int | None


@contextmanager
def open_digits(path: Path, snapshot: str | None = None) -> Iterator[DigitsModel]:
    """Gives the files of a DIGITS folder or archive; those of an archive live as long as this.

    Args:
        path: the folder or archive.
        snapshot: the name of a snapshot, or the number in it; None takes that of most iterations.

    Raises:
        InputError: it is neither, is unsafe, lacks a snapshot, or info.json asks for what is not
            supported. Within an archive, errors name the archive.
    """
    if path.is_dir():
        yield _model(path, snapshot, str(path))
        return
    with temporary_directory() as temporary:
        try:
            _unpack(path, temporary)
            yield _model(temporary, snapshot, str(path))
        except InputError as error:
            raise InputError(str(error).replace(str(temporary), str(path))) from error


def _model(folder: Path, snapshot: str | None, name: str) -> DigitsModel:
    files = {entry.name: entry for entry in sorted(folder.iterdir()) if entry.is_file()}
    snapshots = sorted((f for f in files if f.endswith(".caffemodel")), key=_iteration)
    if not snapshots:
        raise InputError(
            f"{name}: a DIGITS model was expected, found no .caffemodel in it"
            f"{', but ' + ', '.join(list(files)[:5]) if files else ''}."
        )
    chosen = snapshots[-1]
    if snapshot is not None:
        matching = [f for f in snapshots if snapshot in (f, str(_iteration(f)))]
        if not matching:
            raise InputError(f"{name}: no snapshot {snapshot}; there are {', '.join(snapshots)}.")
        chosen = matching[0]
    means = [f for f in files if f.endswith(".binaryproto") or f == "mean.npy"]
    if len(means) > 1:
        raise InputError(f"{name}: one mean file was expected, found {', '.join(means)}.")
    resize, resize_size = _resizing(files["info.json"]) if "info.json" in files else (None, None)
    return DigitsModel(
        files[chosen],
        snapshots,
        [files[f] for f in ("deploy.prototxt", "train_val.prototxt") if f in files],
        files[means[0]] if means else None,
        files.get("labels.txt"),
        resize,
        resize_size,
    )


def _iteration(name: str) -> int:
    """The number of iterations in the name of a snapshot; -1 where there is none."""
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else -1


def _resizing(info: Path) -> tuple[str | None, int | None]:
    """How info.json says that images were resized."""
    try:
        content: Any = json.loads(read_bytes(info, "description").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{info}: not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{info}: a JSON object was expected.")
    mode, size = content.get("image resize mode"), content.get("image dimensions")
    if mode is not None and mode not in _RESIZES:
        raise InputError(
            f"{info}: image resize mode {mode!r} is not supported; {' or '.join(_RESIZES)} was "
            "expected."
        )
    resize = None if mode is None else _RESIZES[mode]
    if size is None:
        return resize, None
    if not isinstance(size, list) or len(size) < 2 or not all(type(n) is int for n in size):
        raise InputError(f"{info}: image dimensions: height, width and channels were expected.")
    if len(size) > 2 and size[2] != 3:
        raise InputError(f"{info}: images of {size[2]} channels; only 3 (colour) are supported.")
    if size[0] != size[1]:
        raise InputError(
            f"{info}: images of {size[1]}x{size[0]} pixels; only squares are supported."
        )
    return resize, size[0]


def _unpack(path: Path, folder: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith(b"PK"):
            _unpack_zip(path, folder)
        else:
            _unpack_tar(path, folder)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,
        RecursionError,  # of headers for headers
    ) as error:
        raise InputError(
            f"{path}: a folder, .tar.gz or .zip of DIGITS was expected; this is none or damaged."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot read this archive ({error.strerror or error})."
        ) from error


def _unpack_tar(path: Path, folder: Path) -> None:
    total = 0
    with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for count, member in enumerate(archive, 1):
            total += member.size
            _check(path, member.name, count, total)
            if member.isdir():
                continue
            if not member.isreg():
                raise InputError(f"{path}: refused, as {member.name!r} in it is no regular file.")
            _save(archive.extractfile(member), path, member.name, member.size, folder)


class _Decompressed(io.BufferedReader):
    """A tar file, of which nothing is read at once that is larger than a file in it may be.

    tarfile reads a name of gigabytes into memory.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= LARGEST_MEMBER + 1:
            raise tarfile.ReadError("a header of this length")
        return super().read(size)


def _decompressed(path: Path) -> _Decompressed:
    with path.open("rb") as file:
        start = file.read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
    opener: Any = next((each for magic, each in openers.items() if start.startswith(magic)), open)
    return _Decompressed(opener(path, "rb"))


def _unpack_zip(path: Path, folder: Path) -> None:
    total = 0
    with zipfile.ZipFile(path) as archive:
        for count, member in enumerate(archive.infolist(), 1):
            total += member.file_size
            _check(path, member.filename, count, total)
            if member.is_dir():
                continue
            if (member.external_attr >> 16) & 0o170000 not in (0, 0o100000):
                raise InputError(
                    f"{path}: refused, as {member.filename!r} in it is no regular file."
                )
            if member.flag_bits & 1:
                raise InputError(f"{path}: {member.filename!r} in it is encrypted.")
            with archive.open(member) as file:
                _save(file, path, member.filename, member.file_size, folder)


def _check(path: Path, name: str, count: int, total: int) -> None:
    inside = PurePosixPath(name.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts or re.match(r"[A-Za-z]:", name):
        raise InputError(f"{path}: refused, as {name!r} in it leads outside of it.")
    if count > MOST_MEMBERS or total > LARGEST_ARCHIVE:
        raise InputError(
            f"{path}: refused, as it holds more than {MOST_MEMBERS:,} files or "
            f"{LARGEST_ARCHIVE >> 30} GiB."
        )


def _save(file: IO[bytes] | None, path: Path, name: str, size: int, folder: Path) -> None:
    """Writes a file of an archive, if it is one that is looked for."""
    last = name.replace("\\", "/").rpartition("/")[2]
    if file is None or not (last in _WANTED or last.endswith(_WANTED[-2:])) or last.startswith("."):
        return
    if size > LARGEST_MEMBER:
        raise InputError(f"{path}: refused, as {name!r} in it has {size:,} bytes.")
    target = folder / last
    if target.exists():
        raise InputError(f"{path}: two files called {last} in it.")
    target.write_bytes(file.read(LARGEST_MEMBER + 1))
