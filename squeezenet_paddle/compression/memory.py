"""Remembers what a compression has rounded, so that a killed one goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..progress import say
from ..sqz.format import Indices
from ..training.checkpoint import Checkpoint, load_newest, save
from .rounding import Rounded

SECONDS = 10.0  # of work between two checkpoints
_KEPT = 2


class Memory:
    """Rounded layers in the order in which they are computed, which is always the same.

    Args:
        folder: gets checkpoints; None for none.
        fingerprint: of everything that the layers depend on.

    Raises:
        InputError: the folder has checkpoints of another compression, or only damaged ones.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self._known: list[Rounded] = []
        self._next = 0
        newest = None if folder is None else newest_checkpoint(folder, fingerprint)
        if newest is not None:
            self._known = [_decoded(newest, i) for i in range(newest.step)]
        self._saved_at = time.monotonic()

    def next(self, name: str, compute: Callable[[], Rounded]) -> Rounded:
        """The next layer, computed where it is not known from the checkpoint.

        A run that is interrupted meanwhile writes what it knows.

        Args:
            name: the layer's.
            compute: gives it.

        Raises:
            InputError: the checkpoint has another layer there.
            RunError: a checkpoint cannot be written.
        """
        if self._folder is None:
            return compute()
        if self._next == len(self._known):
            try:
                self._known.append(compute())
            except KeyboardInterrupt:
                self.save()
                raise
            if time.monotonic() - self._saved_at >= SECONDS:
                self.save()
        self._next += 1
        result = self._known[self._next - 1]
        if result.name != name:
            raise _of_another(self._folder)
        return result

    def save(self) -> None:
        """Writes a checkpoint.

        Raises:
            RunError: the disk is full or fails.
        """
        if self._folder is None:
            return
        arrays = {k: v for i, each in enumerate(self._known) for k, v in _encoded(each, i).items()}
        names = [each.name for each in self._known]
        record = {"fingerprint": self._fingerprint, "names": names}
        save(self._folder, Checkpoint(len(names), arrays, record), keep=_KEPT)
        self._saved_at = time.monotonic()


def _encoded(rounded: Rounded, number: int) -> Mapping[str, np.ndarray]:
    values = rounded.indices.values
    fits = np.abs(values).max(initial=0) < 128
    return {
        f"{number}/values": values.astype("int8") if fits else values,
        f"{number}/unit": np.array(rounded.indices.unit),
        f"{number}/scales": rounded.indices.scales,
        f"{number}/bias": rounded.bias,
        f"{number}/error": np.array(np.nan if rounded.error is None else rounded.error),
    }


def _decoded(checkpoint: Checkpoint, number: int) -> Rounded:
    values, unit, scales, bias, error = (
        checkpoint.arrays[f"{number}/{part}"]
        for part in ("values", "unit", "scales", "bias", "error")
    )
    indices = Indices(values.astype("int16"), np.float32(unit), scales)
    name = checkpoint.record["names"][number]
    return Rounded(name, indices, bias, None if np.isnan(error) else float(error))


def newest_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint of a compression that is not damaged; None if there are none.

    Raises:
        InputError: all are damaged, they are those of another run, or `folder` is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a folder for checkpoints was expected, this is a file.")
    try:
        newest = load_newest(folder, say)
    except InputError as error:  # which ends with what the commands that train do about it
        problem = str(error).rpartition(";")[0]
        raise InputError(f"{problem}; remove that folder to start from scratch.") from error
    if newest is not None and newest.record.get("fingerprint") != fingerprint:
        raise _of_another(folder)
    return newest


def _of_another(folder: Path) -> InputError:
    return InputError(
        f"{folder} holds checkpoints of another compression; remove it to start from scratch."
    )
