"""The image files that a user names: files, folders and globs. No Paddle here."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InputError, describe_problems

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}


def find_images(patterns: Sequence[str | Path]) -> list[Path]:
    """The image files that the user named: files as they are, folders searched, globs expanded.

    In a folder, files are taken by their suffix, hidden ones left out; a file named itself, or by
    a glob, is taken whatever its name.

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
                f"`image` {pattern}: images are read from files, not from the web; download it "
                "first, with curl -O for instance."
            )
        if pattern == "-":
            raise InputError("`image` -: standard input is not read; give the name of a file.")
        if not pattern:
            raise InputError("`image`: a file, folder or glob was expected, found an empty name.")
        if path.is_dir():
            inside = sorted(p for p in _walk(path) if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise InputError(
                    f"`image` {path}: no images are in this folder or below; files that end in "
                    f"{', '.join(sorted(IMAGE_SUFFIXES))} were expected."
                )
            images += inside
        elif path.is_file():
            images.append(path)
        elif path.exists():
            raise InputError(f"`image` {path}: a file or folder was expected, this is neither.")
        else:
            matches = sorted(
                p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file()
            )
            images += matches
            if not matches:
                missing.append(pattern)
    if missing:
        raise InputError(
            "`image`: neither a file nor a folder, and no file matches it as a glob: "
            f"{describe_problems(missing)}."
        )
    return images


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot read this folder ({error.strerror}).")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))
