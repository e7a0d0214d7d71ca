"""The image files that a user names, told by their content: files, folders and globs. No Paddle."""

from __future__ import annotations

import csv
import glob
import heapq
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, NamedTuple

from ..errors import ImageError, InputError, describe_problems
from ..file_kinds import START, image_kind, other_kind
from ..files import sha256, write_bytes
from ..progress import Progress
from .decode import MAX_PIXELS, decode, missing_decoder, read_file

# A file of such a name counts as an image, whatever is in it: if it cannot be decoded, that is
# an error. Of others the content decides.
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"),
}
# Raw files of cameras, most of which are TIFF files that hold a thumbnail.
_RAW_SUFFIXES = {
    *(".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw", ".orf"),
    *(".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f"),
}
# What operating systems and devices put into folders, in lower case. Hidden files count too.
_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "@eadir"),
    *("#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information"),
}
_SHOWN = 2  # names of each kind in a summary
_AT_ONCE = 1024  # files that are inspected between two steps of a progress bar


class LeftOut(NamedTuple):
    """A file or folder that does not count as an image.

    Attributes:
        path: from the folder that was read, with '/' between the parts.
        kind: what it is, as a noun: "text file", "HEIC image", "image in no class folder", ...
        reason: why it is left out, where the kind does not say it; "" otherwise.
    """

    path: str
    kind: str
    reason: str = ""


class Inspection(NamedTuple):
    """What `inspect` found out about a file.

    Attributes:
        sha256: of its bytes, in hexadecimal; "" if it cannot be read.
        kind: by its content: "JPEG", ..., or for what is no image a noun, as "text file".
        problem: what is wrong, with its path; None if it can be decoded.
    """

    sha256: str
    kind: str
    problem: str | None


def list_images(root: str | Path) -> tuple[list[str], list[LeftOut]]:
    """Finds the images in a folder and below, and whatever else is there.

    Links are followed, except to a folder that holds them or that is read already. Of what goes
    away meanwhile, nothing is returned, or it is among what is left out.

    Returns:
        Sorted paths of the images from `root`, with '/' between the parts; and what is left out,
        sorted by path: a system folder or a folder without images counts as one.

    Raises:
        InputError: a folder may not be read.
    """
    root = Path(root)
    names: list[str] = []
    left_out: list[LeftOut] = []
    folders: list[str] = []
    resolved = root.resolve()
    above = frozenset(_identity(folder.stat()) for folder in resolved.parents)
    todo = [("", str(root), above)]
    links: list[tuple[str, str, frozenset[tuple[int, int]]]] = []  # after all else, by their names
    seen: set[tuple[int, int]] = set()
    while todo or links:
        prefix, folder, above = todo.pop() if todo else heapq.heappop(links)
        try:
            here = _identity(Path(folder).stat())
            if here in above:
                left_out.append(LeftOut(prefix[:-1], "link to a folder that holds it"))
                continue
            if here in seen:
                left_out.append(LeftOut(prefix[:-1], "link to a folder that is read already"))
                continue
            seen.add(here)
            folders.append(prefix)
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if _is_system(entry.name):
                        left_out.append(LeftOut(name, "system file"))
                    elif _is_folder(entry):
                        found = (f"{name}/", entry.path, above | {here})
                        if entry.is_symlink():
                            heapq.heappush(links, found)
                        else:
                            todo.append(found)
                    elif (kind := _no_image(entry)) is None:
                        names.append(name)
                    else:
                        left_out.append(LeftOut(name, kind, _hint(kind)))
        except (FileNotFoundError, NotADirectoryError):
            left_out.append(LeftOut(prefix[:-1], "folder that went away while it was read"))
        except OSError as error:
            raise InputError(f"{folder}: cannot read this folder ({error.strerror}).") from error
    left_out += _without_images(folders, names)
    return sorted(names), sorted(left_out)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_system(name: str) -> bool:
    name = name.lower()
    return name.startswith(".") or name in _SYSTEM or name.endswith(".thm")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _no_image(entry: os.DirEntry[str]) -> str | None:
    """What a file is, as a noun; None if it is an image that can be decoded, or claims to be."""
    try:
        if not entry.is_file():
            return "broken link" if entry.is_symlink() else "special file"
        suffix = Path(entry.name).suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            return None
        if suffix in _RAW_SUFFIXES:
            return "camera raw file"
        with Path(entry.path).open("rb", buffering=0) as file:
            start = file.read(START)
    except OSError:
        return "broken link" if entry.is_symlink() else "file that cannot be read"
    kind = image_kind(start)
    if kind is None:
        return other_kind(start)
    return None if missing_decoder(kind) is None else f"{kind} image"


def _hint(kind: str) -> str:
    missing = missing_decoder(kind.removesuffix(" image")) if kind.endswith(" image") else None
    return "" if missing is None else f"readable after {missing}"


def _without_images(folders: Iterable[str], names: Iterable[str]) -> Iterator[LeftOut]:
    """The topmost folders below which no image lies; names of folders end in '/'."""
    full = {""}
    for name in {name.rpartition("/")[0] for name in names}:
        while name and f"{name}/" not in full:
            full.add(f"{name}/")
            name = name.rpartition("/")[0]
    for folder in folders:
        if folder not in full and f"{folder[:-1].rpartition('/')[0]}/".lstrip("/") in full:
            yield LeftOut(folder[:-1], "folder without images")


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """One line: how many of each kind there are, with the first names; "" for nothing.

    Images come first, and system files last.
    """
    kinds: dict[str, list[LeftOut]] = {}
    for each in left_out:
        kinds.setdefault(each.kind, []).append(each)
    parts = []
    for kind in sorted(kinds, key=lambda kind: (kind == "system file", "image" not in kind)):
        members = kinds[kind]
        shown = [repr(each.path)[1:-1] for each in members[:_SHOWN]]
        shown += ["..."] if len(members) > _SHOWN else []
        reasons = {each.reason for each in members}
        hint = f"; {reasons.pop().rstrip('.')}" if len(reasons) == 1 and "" not in reasons else ""
        parts.append(f"{len(members)} {_noun(kind, len(members))} ({', '.join(shown)}{hint})")
    return f"left out: {', '.join(parts)}" if parts else ""


def _noun(kind: str, count: int) -> str:
    """The kind in the singular or in the plural: the first word that is a noun of ours gets it."""
    if count == 1:
        return kind
    nouns = "file|folder|image|link|archive|video|page|drawing"
    return re.sub(rf"\b({nouns})\b", r"\1s", kind, count=1)


def write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    """Writes what is left out as a CSV file with the columns path, kind and reason.

    Where nothing is, an earlier file becomes empty but for its header, and no new one is written.
    """
    if not left_out and not path.exists():
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LeftOut._fields)
    writer.writerows(left_out)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))


def inspect(
    paths: Sequence[str | Path],
    num_workers: int = 2,
    max_pixels: int = MAX_PIXELS,
    known: Collection[str] = (),
) -> Iterator[Inspection]:
    """Reads and decodes every file once, with a progress bar on standard error.

    Args:
        paths: the files.
        num_workers: threads; decoders run at the same time.
        max_pixels: a larger image is a problem.
        known: SHA-256 of files that can be decoded, which is then not tried again.

    Yields:
        What was found out about each file, in their order.
    """

    def inspect_one(path: str | Path) -> Inspection:
        return _inspected(path, max_pixels, known)

    with Progress("checking", len(paths)) as progress, ThreadPoolExecutor(num_workers or 1) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            for result in pool.map(inspect_one, paths[start : start + _AT_ONCE]):
                yield result
                progress.update()


def _inspected(path: str | Path, max_pixels: int, known: Collection[str]) -> Inspection:
    try:
        data = read_file(path)
    except ImageError as error:
        return Inspection("", "file that cannot be read", str(error))
    digest = sha256(data)
    kind = image_kind(data[:START]) or other_kind(data[:START])
    if digest not in known:
        try:
            decode(data, str(path), max_pixels, reduced=8)
        except ImageError as error:
            return Inspection(digest, kind, str(error))
    return Inspection(digest, kind, None)


def find_images(
    patterns: Sequence[str | Path],
    on_left_out: Callable[[str], object] | None = None,
    setting: str = "image",
) -> list[Path]:
    """The image files that the user named: files as they are, folders searched, globs expanded.

    In a folder, files are taken by their content, see `list_images`; a file named itself, or by a
    glob, is taken whatever it is.

    Args:
        patterns: files, folders and globs.
        on_left_out: called with a line for each folder that holds something else too.
        setting: what named them, for errors.

    Raises:
        InputError: something that was named is not there or is no file or folder, or a folder
            holds no images or may not be read.
    """
    images: list[Path] = []
    missing: list[str] = []
    for pattern in map(str, patterns):
        path = Path(pattern)
        if re.match(r"[a-z]+://", pattern):
            raise InputError(
                f"`{setting}` {pattern}: images are read from files, not from the web; download it "
                "first, with curl -O for instance."
            )
        if pattern == "-":
            raise InputError(f"`{setting}` -: standard input is not read; give the name of a file.")
        if not pattern:
            raise InputError(
                f"`{setting}`: a file, folder or glob was expected, found an empty name."
            )
        if path.is_dir():
            names, left_out = list_images(path)
            summary = describe_left_out(left_out)
            if not names:
                raise InputError(
                    f"`{setting}` {path}: no images are in this folder or below"
                    f"{f' ({summary})' if summary else ''}."
                )
            images += [path / name for name in names]
            if summary and on_left_out is not None:
                on_left_out(f"{path}: {summary}")
        elif path.is_file():
            images.append(path)
        elif path.exists():
            raise InputError(f"`{setting}` {path}: a file or folder was expected, this is neither.")
        else:
            matches = sorted(
                p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file()
            )
            images += matches
            if not matches:
                missing.append(pattern)
    if missing:
        raise InputError(
            f"`{setting}`: neither a file nor a folder, and no file matches it as a glob: "
            f"{describe_problems(missing)}."
        )
    return images
