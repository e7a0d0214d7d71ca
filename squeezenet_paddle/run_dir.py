"""The directory of a training run: what lies in it, who may write, what a rerun continues from.

checkpoints/       training states, from which a rerun of the same command goes on
best/, final/      model directories: the best validation top-1, and the end
train.log          what the console showed
metrics.jsonl      the same for programs
settings.json      all settings, versions, host and command line of the last start
curves.png, vdl/   the same as images, and for VisualDL
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError

CHECKPOINTS, BEST, FINAL = "checkpoints", "best", "final"
TRAIN_LOG, METRICS, CURVES, BOARD = "train.log", "metrics.jsonl", "curves.png", "vdl"
SETTINGS = "settings.json"
CONTINUED = (CHECKPOINTS, METRICS, TRAIN_LOG, SETTINGS, CURVES, BOARD)
MODELS = (BEST, FINAL)
LOCK = ".lock"


def model_dir_of(path: Path) -> Path:
    """`path` itself or, where it is the directory of a run, the best model in it."""
    for name in MODELS:
        if (path / name).is_dir() and not (path / "config.json").exists():
            return path / name
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes the directory and keeps other runs out of it; the system lets go when we die.

    Raises:
        InputError: another run is writing there, or nobody may.
    """
    import fcntl  # Unix alone has it

    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / LOCK).open("w")
    except OSError as error:
        raise InputError(f"--output_dir {path}: cannot be written ({error.strerror}).") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"--output_dir {path}: another run is writing there.") from error
        yield


def entries(path: Path, names: tuple[str, ...]) -> list[Path]:
    """Those of `names` that are in the directory of a run."""
    return [path / name for name in names if (path / name).exists()]


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def remove(paths: list[Path]) -> None:
    """Removes files and directories."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass(frozen=True)
class Settings:
    """The settings of a run, to tell on a resume what was changed. JSON values by name.

    Attributes:
        must_match: those whose change would change the past: seed, batch, network, data.
        may_change: those that may change on the way.
    """

    must_match: Mapping[str, Any]
    may_change: Mapping[str, Any]

    def changes_since(self, earlier: Settings, where: Path) -> list[str]:
        """What is different from an earlier start of the same run, a line for each.

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
    return text if len(text) <= 60 else f"{text[:12]}..."
