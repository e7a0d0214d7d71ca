"""Training states on disk: written whole, checked when read, the newest good one found.

A checkpoint is a numpy .npz archive of the arrays and one JSON text, followed by its SHA-256. It is
no pickle, and the same state gives the same bytes. No Paddle here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..errors import InputError, RunError
from ..files import read_bytes, write_bytes

logger = logging.getLogger(__name__)

_NAME = re.compile(r"step_([0-9]{8,})\.ckpt")
_LEFTOVERS = ".step_*.ckpt.*"  # what files.atomic_path leaves behind when it is killed
_DIGEST_SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two updates.

    Attributes:
        step: updates done.
        arrays: of the network, the optimizer and the like, by names with a slash such as
            "network/conv1.weight".
        record: all else, in JSON's types.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    record: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes `step_NNNNNNNN.ckpt`; once that is durable, all but the `keep` newest good ones go.

    Checkpoints of later steps neither count nor go: `load_newest` could not use them.

    Raises:
        RunError: the disk is full or fails. Nothing is left of the new one, and the others are as
            they were.
    """
    path = folder / f"step_{checkpoint.step:08d}.ckpt"
    try:
        for leftover in folder.glob(_LEFTOVERS):
            leftover.unlink()
        write_bytes(path, _encoded(checkpoint))
    except (InputError, OSError) as error:
        reason = str(error).rstrip(".")
        raise RunError(f"{reason}; the older checkpoints are intact.") from error
    _make_names_durable(folder)
    good = 1
    for step, old in _found(folder):
        if step >= checkpoint.step:
            continue
        if good >= keep:
            old.unlink()
        elif _is_usable(step, old):
            good += 1
    return path


def load_newest(folder: Path, warn: Callable[[str], object] = logger.warning) -> Checkpoint | None:
    """The newest checkpoint that is whole.

    Args:
        folder: where `save` wrote; it need not exist.
        warn: called with a line for each newer one, which is passed over.

    Returns:
        None where there are none.

    Raises:
        InputError: there are some, but none is whole.
    """
    found = _found(folder)
    for step, path in found:
        try:
            return _read(step, path)
        except InputError as error:
            warn(f"{error} The checkpoint before it is tried.")
    if found:
        raise InputError(
            f"{folder}: none of its {len(found)} checkpoints can be used; "
            "remove the directory to start anew."
        )
    return None


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Steps and files, by their names, the newest first."""
    if not folder.exists():
        return []
    files = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_file()]
    return sorted(((int(match[1]), path) for match, path in files if match), reverse=True)


def _encoded(checkpoint: Checkpoint) -> bytes:
    text = json.dumps({"step": checkpoint.step, "record": checkpoint.record})
    file = io.BytesIO()
    arrays: Mapping[str, Any] = checkpoint.arrays  # not the switches that savez has too
    np.savez(file, json=np.frombuffer(text.encode(), np.uint8), **arrays)
    file.write(hashlib.sha256(file.getbuffer()).digest())
    return file.getvalue()


def _read(step: int, path: Path) -> Checkpoint:
    """Reads a checkpoint that should be of this step.

    Raises:
        InputError: it cannot be read, is damaged, or is of another step.
    """
    data = read_bytes(path, "checkpoint")
    payload, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
    if hashlib.sha256(payload).digest() != digest:
        raise InputError(f"{path}: this checkpoint is damaged.")
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    content = json.loads(arrays.pop("json").tobytes())
    if content["step"] != step:
        raise InputError(f"{path}: this checkpoint is of step {content['step']}, not of {step}.")
    return Checkpoint(step, arrays, content["record"])


def _is_usable(step: int, path: Path) -> bool:
    try:
        _read(step, path)
    except InputError:
        return False
    return True


def _make_names_durable(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
