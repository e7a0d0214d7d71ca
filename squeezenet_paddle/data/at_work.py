"""Says which image a process was reading when it died. No Paddle here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

_LONGEST = 4096  # bytes of a path, as Linux has them


class AtWork:
    """The path of the image that a process works on, in memory that outlives the process.

    Args:
        context: of multiprocessing.
    """

    def __init__(self, context: Any) -> None:
        self._path = context.RawArray("c", _LONGEST)

    def on(self, path: str | Path) -> None:
        """Notes the image that this process is about to read."""
        self._path.value = os.fsencode(path)[: _LONGEST - 1]

    @property
    def path(self) -> str:
        """The image that was noted last; "" if none was."""
        return os.fsdecode(self._path.value)
