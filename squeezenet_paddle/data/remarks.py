"""What image decoders print from C, kept off the terminal. No Paddle here.

libpng, libjpeg and libtiff write to file descriptor 2 whatever the program does with its own
messages, and Pillow warns. While an image is decoded the descriptor leads to a temporary file; what
was written there goes to the logger of this module, at INFO, with the name of the image.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from functools import cached_property

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def as_remarks(name: str) -> Iterator[None]:
    """Logs what is written to file descriptor 2, and what is warned, as remarks on image `name`.

    Threads may decode at the same time; their remarks may be logged with each other's images. What
    other threads write to the descriptor meanwhile counts as a remark, so that a program which has
    such threads should give `sys.stderr` a descriptor of its own, as the command line does.
    """
    _diversion.enter()
    try:
        yield
    finally:
        for remark in _diversion.leave():
            logger.info("%s: %s", name, remark)


class _Diversion:
    """File descriptor 2 and Python's warnings, led elsewhere while any thread decodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._for_good = 0  # 1 in a process that only decodes
        self._taken = 0  # bytes of the file that were remarks already
        self._warnings: list[warnings.WarningMessage] = []
        self._restore = contextlib.ExitStack()

    @cached_property
    def _file(self) -> int:
        """The descriptor of a file without a name."""
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())

    def enter(self, for_good: bool = False) -> None:
        with self._lock:
            self._threads += 1
            self._for_good += for_good
            if self._threads > 1:
                return
            with contextlib.suppress(OSError):  # the descriptor is closed: nobody can write to it
                usual = os.dup(2)
                self._restore.callback(os.close, usual)
                self._restore.callback(os.dup2, usual, 2)
                os.dup2(self._file, 2)
            recorded = self._restore.enter_context(warnings.catch_warnings(record=True))
            assert recorded is not None
            self._warnings = recorded
            warnings.simplefilter("always")

    def leave(self) -> list[str]:
        """The remarks that no other thread has taken."""
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._restore.close()
            remarks = [str(warning.message) for warning in self._warnings]
            self._warnings.clear()
            size = os.lseek(self._file, 0, os.SEEK_CUR)  # descriptor 2 shares this position
            text = os.pread(self._file, size - self._taken, self._taken)
            if self._threads == self._for_good:  # nobody writes
                os.lseek(self._file, 0, os.SEEK_SET)
                self._taken = 0
            else:  # the last line may not be whole yet
                text = text[: text.rfind(b"\n") + 1]
                self._taken += len(text)
            remarks += filter(None, text.decode(errors="replace").splitlines())
            return remarks


_diversion = _Diversion()
_kept = logging.handlers.BufferingHandler(sys.maxsize)


def separate_stderr() -> None:
    """Gives `sys.stderr` a descriptor of its own, which is never led elsewhere."""
    usual = sys.__stderr__
    if usual is not None and sys.stderr is usual:  # not a test's or a notebook's
        sys.stderr = os.fdopen(
            os.dup(usual.fileno()),
            "w",
            buffering=1,
            encoding=usual.encoding,
            errors="backslashreplace",  # file names may be no text in this locale
        )


def keep() -> None:
    """Keeps the remarks of this process, which only decodes, for `take` and its parent to log."""
    separate_stderr()
    _diversion.enter(for_good=True)  # which saves the time of doing it for each image
    logger.addHandler(_kept)
    logger.propagate = False
    logger.setLevel(logging.INFO)


def take() -> list[str]:
    """The remarks since the last call."""
    remarks = [record.getMessage() for record in _kept.buffer]
    _kept.flush()
    return remarks


def log(remarks: list[str]) -> None:
    """Logs what `take` returned in another process."""
    for remark in remarks:
        logger.info("%s", remark)
