"""The directory of a run: its entries, its lock, and what a rerun of the same command resumes.

checkpoints/       training states
best/, final/      model directories: of the best validation top-1, and of the last update
settings.json      all settings, for people to read
train.log          what the console showed
metrics.jsonl      the same for programs
curves.png, vdl/   the same as a plot, and for VisualDL

and of a fine-tuning also

train_list.txt, val_list.txt, synset_words.txt     the lists, where it has split the images itself
test_list.txt      of the folder's own test part, which training does not use
left_out.csv       what in the folder of images was not taken, and why
check.html, .csv   duplicates, labels that look wrong, odd images
features/          cached outputs of the frozen layers
contents.json      hashes of the image files, with the sizes and times that they had
images.json        the images of the run: path, class, part and SHA-256 of each
runs/N/            earlier runs, with fewer or other images in the same folder
first_stage/       the run of the first stage, where there are two
report/            the report about the best model
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError
from .temporaries import recover

CHECKPOINTS, BEST, FINAL = "checkpoints", "best", "final"
SETTINGS, TRAIN_LOG, METRICS = "settings.json", "train.log", "metrics.jsonl"
CURVES, BOARD = "curves.png", "vdl"
FEATURES, FIRST_STAGE, REPORT_DIR = "features", "first_stage", "report"
CONTENTS, IMAGES, RUNS = "contents.json", "images.json", "runs"
TRAIN_LIST, VAL_LIST, NAMES = "train_list.txt", "val_list.txt", "synset_words.txt"
TEST_LIST, LEFT_OUT = "test_list.txt", "left_out.csv"
CHECK_PAGE, CHECK_TABLE = "check.html", "check.csv"
LISTS = (TRAIN_LIST, VAL_LIST, TEST_LIST, NAMES)
MODELS = (BEST, FINAL)
RESUME_ENTRIES = (CHECKPOINTS, METRICS, SETTINGS, TRAIN_LOG, CURVES, BOARD)
RUN_ENTRIES = (*RESUME_ENTRIES, *MODELS)  # all of a training run
# All of a fine-tuning but what it shares with those that the directory keeps.
OWN_ENTRIES = (
    *(*LISTS, LEFT_OUT, CHECK_PAGE, CHECK_TABLE, FIRST_STAGE, REPORT_DIR, *RUN_ENTRIES, IMAGES),
)
FINETUNE_ENTRIES = (*OWN_ENTRIES, FEATURES, RUNS)
LOCK = ".lock"


def model_dir_of(path: Path) -> Path:
    """The best model in the directory of a run; `path` itself if it is none."""
    recover(path)
    for name in MODELS:
        recover(path / name)
        if (path / name).is_dir() and not (path / "config.json").exists():
            return path / name
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes the directory and locks it against other runs, until this process ends at the latest.

    Raises:
        InputError: another run is writing there, or the directory cannot be written.
    """
    import fcntl  # Unix alone has it

    try:
        path.mkdir(parents=True, exist_ok=True)
        # Not through a link, and nothing is emptied: a link may lead to any file of the user's.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(path / LOCK, flags, 0o666), "r+b", buffering=0)
    except OSError as error:
        raise InputError(f"`output_dir` {path}: cannot be written ({error.strerror}).") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"`output_dir` {path}: another run is writing there.") from error
        except OSError as error:  # as on some network file systems
            raise InputError(
                f"`output_dir` {path}: cannot be locked against other runs ({error.strerror})."
            ) from error
        yield


def entries(path: Path, names: tuple[str, ...]) -> list[Path]:
    """Paths of those `names` that exist in the directory of a run."""
    return [path / name for name in names if (path / name).exists()]


def overwritten_entries(
    path: Path, names: tuple[str, ...], settings: Mapping[str, Path | None]
) -> list[Path]:
    """Paths of those `names` that a run with `overwrite` removes from its directory.

    Args:
        path: the directory.
        names: what a run of this kind leaves there.
        settings: files and model directories that the run reads, by the settings that name them.

    Raises:
        InputError: something is not the run's to remove: it is needed, or there are lists and no
            other trace of a fine-tuning.
    """
    removed = entries(path, names)
    check_not_read(removed, settings, "`overwrite` would remove")
    lists = [entry for entry in removed if entry.name in LISTS]
    if lists and not _finetuned(path):
        raise InputError(
            f"`overwrite` would replace {lists[0]}, which no fine-tuning has written; another "
            "`output_dir` was expected."
        )
    return removed


def check_not_read(paths: list[Path], settings: Mapping[str, Path | None], what_would: str) -> None:
    """Checks that a run reads none of the files and directories that are about to go.

    Args:
        paths: of these.
        settings: files and directories that the run reads, by the settings that name them.
        what_would: take them away, for the error.

    Raises:
        InputError: it reads one of them.
    """
    for name, file in settings.items():
        if file is None:
            continue
        real = model_dir_of(file).resolve()
        for path in paths:
            if path.resolve() in (real, *real.parents):
                raise InputError(
                    f"{what_would} {path}, and `{name}` is {file}; another `output_dir` was "
                    "expected."
                )


def _finetuned(path: Path) -> bool:
    """Whether a fine-tuning has been in a directory."""
    return bool(entries(path, (IMAGES, FEATURES, FIRST_STAGE, REPORT_DIR)))


def resume_entries(path: Path) -> list[Path]:
    """Paths of what a rerun would resume from.

    The lists are among them only if a fine-tuning has been here; else they are the user's own.
    """
    lists = LISTS if _finetuned(path) else ()
    return entries(path, (*RESUME_ENTRIES, CONTENTS, FEATURES, FIRST_STAGE, *lists, IMAGES))


def size(path: Path) -> int:
    """Bytes of a file or of all files below a directory."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def remove(paths: list[Path]) -> None:
    """Removes files and directories.

    Raises:
        InputError: one of them cannot be removed.
    """
    for path in paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise InputError(f"{path}: cannot be removed ({error.strerror}).") from error


@dataclass(frozen=True)
class Settings:
    """The settings of a run, which a resume compares. JSON values by name.

    Attributes:
        must_match: those that earlier updates depended on: seed, batch size, network, data.
        may_change: those that may change between updates.
    """

    must_match: Mapping[str, Any]
    may_change: Mapping[str, Any]

    def changes_since(self, earlier: Settings, where: Path) -> list[str]:
        """Compares with an earlier start of the run in `where`: one line for each change.

        Raises:
            InputError: one that must match was changed.
        """
        if refused := _differences(earlier.must_match, self.must_match):
            raise InputError(
                f"{where}: this run cannot go on with other settings: {'; '.join(refused)}. "
                "Give these again, another `output_dir`, or `overwrite`."
            )
        return _differences(earlier.may_change, self.may_change)


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{_name(key)} was {_shown(earlier.get(key))}, is {_shown(now.get(key))}"
        for key in {**earlier, **now}
        if earlier.get(key) != now.get(key)
    ]


def _name(key: str) -> str:
    return f"`{key}`" if key.isidentifier() else key


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return re.sub("([0-9a-f]{12})[0-9a-f]{52}", r"\1...", text)  # a SHA-256
