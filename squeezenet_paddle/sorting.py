"""Sorts images into a folder for each class, without ever overwriting or repeating one."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import InputError
from .files import sha256


class SortedFolder:
    """A folder of class folders that gets images.

    An image that lies anywhere in it already is left where it is, so that those that were moved by
    hand stay. A new one whose name is taken gets a number behind its name.

    Args:
        path: the folder, which is made if it does not exist.
        names: the class names; None for the classes' numbers.
        link: make symbolic links in place of copies.

    Attributes:
        counts: new images by folder.
        present: how many were there already.

    Raises:
        InputError: there can be no such folder.
    """

    def __init__(self, path: Path, names: Sequence[str] | None, link: bool = False) -> None:
        self._path, self._link = path, link
        self._folders = None if names is None else [folder_name(name) for name in names]
        self.counts: Counter[str] = Counter()
        self._numbers: Counter[Path] = Counter()
        self.present = 0
        if self._folders is not None:
            twins = [name for name, n in Counter(map(str.casefold, self._folders)).items() if n > 1]
            if twins:
                raise InputError(
                    f"`sort_into`: two classes would have the folder {twins[0]!r}; other class "
                    "names were expected."
                )
        try:
            if path.exists() and not path.is_dir():
                raise InputError(f"`sort_into` {path}: a folder was expected, found a file.")
            path.mkdir(parents=True, exist_ok=True)
            # Files of a size are hashed once an image of that size comes.
            self._unhashed: dict[int, list[Path]] = defaultdict(list)
            self._hashes: set[str] = set()
            for file in _within(path):
                if file.is_file():
                    self._unhashed[file.stat().st_size].append(file)
        except OSError as error:
            raise InputError(f"`sort_into` {path}: {error.strerror}.") from error

    def add(self, image: Path, class_id: int, refusal: str | None) -> Path | None:
        """Puts an image into the folder of its class, or of what says that it has none.

        Returns:
            The new file; None if the image is there already.

        Raises:
            InputError: it cannot be written.
        """
        name = refusal or (self._folders[class_id] if self._folders else f"class {class_id}")
        folder = self._path / name
        try:
            alike = self._unhashed.pop(image.stat().st_size, [])
            self._hashes.update(sha256(other.read_bytes()) for other in alike)
            if (content := sha256(image.read_bytes())) in self._hashes:
                self.present += 1
                return None
            folder.mkdir(exist_ok=True)
            target = self._put(image, folder)
        except OSError as error:
            raise InputError(f"`sort_into` {folder}: {error.strerror}.") from error
        self._hashes.add(content)
        self.counts[name] += 1
        return target

    def _put(self, image: Path, folder: Path) -> Path:
        while True:
            self._numbers[folder / image.name] += 1  # of images of one name there may be many
            number = self._numbers[folder / image.name]
            name = image.name if number == 1 else f"{image.stem}-{number}{image.suffix}"
            target = folder / name
            try:
                if self._link:
                    target.symlink_to(image.resolve())
                    return target
                target.touch(exist_ok=False)
            except FileExistsError:
                continue
            try:
                shutil.copyfile(image, target)
            except BaseException:  # half an image would stay for good, beside the whole one
                target.unlink()
                raise
            return target

    def summary(self) -> str:
        """How many images went where, for the user."""
        parts = [f"{count} {name}" for name, count in sorted(self.counts.items())]
        if self.present:
            parts.append(f"{self.present} already there")
        return f"{self._path}: {', '.join(parts) or 'no images'}"


def _within(path: Path) -> Iterator[Path]:
    """All files in a folder, and in those that links in it lead to, which may be circles."""
    seen = {os.path.realpath(path)}
    for folder, folders, files in os.walk(path, followlinks=True):
        yield from (Path(folder, name) for name in files)
        new = {name: os.path.realpath(Path(folder, name)) for name in folders}
        folders[:] = [name for name, real in new.items() if real not in seen]
        seen.update(new.values())


def folder_name(name: str) -> str:
    """A class's name as that of a folder."""
    return re.sub(r"[/\\\0]", "_", name).strip().lstrip(".") or "_"
