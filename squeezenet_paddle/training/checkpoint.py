"""Checkpoints: writes the state of a run atomically, verifies it on reading, finds the newest one.

The file is a numpy .npz archive of the arrays and one JSON text, followed by the SHA-256 of all
that. It contains no pickle, and equal states give equal bytes. Paddle is not needed to read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..array_files import read_npz
from ..errors import InputError, RunError
from ..files import read_regular, write_bytes
from ..safe_pickle import one_line
from ..temporaries import clear_leftovers

logger = logging.getLogger(__name__)

FORMAT = 2  # of the JSON text; the first one had no number
_NAME = re.compile(r"step_([0-9]{8,})\.ckpt")
_LARGEST = 4 << 30  # bytes
_DIGEST_SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two updates.

    Attributes:
        step: updates done.
        arrays: state of the network, the optimizer and so on, by names such as
            "network/conv1.weight".
        record: everything else, in JSON's types.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    record: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes `step_NNNNNNNN.ckpt`; once it is durable, removes all but the `keep` newest good ones.

    Checkpoints of later steps are neither counted nor removed: `load_newest` could not use them.

    Raises:
        RunError: the disk is full or fails. Nothing of the new checkpoint is left, and the others
            are unchanged.
    """
    path = folder / f"step_{checkpoint.step:08d}.ckpt"
    try:
        clear_leftovers(folder)  # of a run that was killed: there may be no room for both
        write_bytes(path, encoded(checkpoint))
    except (InputError, OSError) as error:
        reason = str(error).rstrip(".")
        raise RunError(f"{reason}; the older checkpoints are intact.") from error
    remove_older(folder, checkpoint.step, keep)
    return path


def remove_older(folder: Path, newest: int, keep: int) -> None:
    """Removes all checkpoints but the `keep` newest good ones up to the step `newest`, a good one.

    `save` does it; a run that goes on does it for one that was killed between the two.
    """
    good = 1
    for step, old in _files(folder):
        if step >= newest:
            continue
        if good >= keep:
            old.unlink()
            continue
        with contextlib.suppress(InputError):  # a damaged one does not count
            _read(step, old)
            good += 1


def remove_all(folder: Path) -> None:
    """Removes all checkpoints, and what killed processes have left of theirs."""
    clear_leftovers(folder)
    for _, path in _files(folder):
        path.unlink()


def load_newest(folder: Path, warn: Callable[[str], object] = logger.warning) -> Checkpoint | None:
    """Reads the newest checkpoint that is not damaged; None if there are no checkpoints.

    Args:
        folder: where `save` wrote; it need not exist.
        warn: called with one line for each damaged one that is passed over.

    Raises:
        InputError: all are damaged, or the newest good one has another format.
    """
    files = _files(folder)
    for step, path in files:
        try:
            return _read(step, path)
        except _FormatError:
            raise
        except InputError as error:
            warn(f"{error} The checkpoint before it is tried.")
    if files:
        raise InputError(
            f"{folder}: none of its {len(files)} checkpoints can be used; `overwrite` starts from "
            "scratch."
        )
    return None


class _FormatError(InputError):
    """A good checkpoint that another version of this package wrote."""


def _files(folder: Path) -> list[tuple[int, Path]]:
    """Steps and paths of the checkpoints, the newest first."""
    if not folder.exists():
        return []
    files = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_file()]
    return sorted(((int(match[1]), path) for match, path in files if match), reverse=True)


def encoded(checkpoint: Checkpoint) -> bytes:
    """The bytes of a checkpoint's file."""
    content = {"format": FORMAT, "step": checkpoint.step, "record": checkpoint.record}
    file = io.BytesIO()
    arrays: Mapping[str, Any] = checkpoint.arrays  # else mypy takes them for savez's options
    np.savez(file, json=np.frombuffer(json.dumps(content).encode(), np.uint8), **arrays)
    file.write(hashlib.sha256(file.getbuffer()).digest())
    return file.getvalue()


def _read(step: int, path: Path) -> Checkpoint:
    """Reads the checkpoint of a step.

    Raises:
        InputError: it cannot be read, is damaged, or is of another step or format.
    """
    checkpoint = decoded(read_regular(path, "checkpoint", _LARGEST), str(path))
    if checkpoint.step != step:
        raise InputError(f"{path}: this checkpoint is of step {checkpoint.step}, not of {step}.")
    return checkpoint


def decoded(data: bytes, where: str) -> Checkpoint:
    """Reads what `encoded` has written.

    Raises:
        InputError: it is damaged, or of another format; `where` is in the message.
    """
    payload, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
    if hashlib.sha256(payload).digest() != digest:
        raise InputError(f"{where}: this checkpoint is damaged.")
    arrays = read_npz(payload, where)
    try:
        content = json.loads(arrays.pop("json").tobytes())
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: this checkpoint is damaged: {one_line(error)}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("record"), dict):
        raise InputError(f"{where}: this checkpoint is damaged: it has no record of its run.")
    if (version := content.get("format", 1)) != FORMAT:
        raise _FormatError(
            f"{where}: this checkpoint has format {version}, and this version of squeezenet_paddle "
            f"reads format {FORMAT}; finish the run with the version that it was started with, or "
            "train from scratch with `overwrite`."
        )
    if type(content.get("step")) is not int:
        raise InputError(f"{where}: this checkpoint is damaged: it has no step.")
    return Checkpoint(content["step"], arrays, content["record"])


@contextlib.contextmanager
def of_a_run(folder: Path) -> Iterator[None]:
    """Names the checkpoints of a run where one does not hold what a run keeps.

    Args:
        folder: of the run.

    Raises:
        InputError: a value was missing or of another kind.
    """
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{folder}: its newest checkpoint is not of such a run "
            f"({type(error).__name__}: {one_line(error)}); `overwrite` starts from scratch."
        ) from error
