"""Progress of long work on standard error: a bar on a terminal, else a line every 15 seconds."""

from __future__ import annotations

import errno
import re
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Callable, TypeVar

from tqdm import tqdm

# tqdm's own lock is one of processes too: a semaphore that stays in shared memory after a kill.
tqdm.set_lock(threading.RLock())

INTERVAL = 15.0  # seconds between two lines
_LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_noinv_fmt}, ETA {remaining}"

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

T = TypeVar("T")

_spelling: Callable[[str], str] = str


class Progress:
    """Shows how much of some work is done, how fast it goes and how long it will take.

    Work of less than 15 seconds shows nothing, unless on a terminal. Use it as a context.

    Args:
        what: the work, such as "checking".
        total: how much there is to do.
        unit: what is counted, in the plural, or "B" for bytes.
        done: how much of it is done already.
    """

    def __init__(self, what: str, total: int, unit: str = "images", done: int = 0) -> None:
        amounts: dict[str, Any] = {
            "total": total,
            "initial": done,
            "unit": unit if unit == "B" else f" {unit}",
            "unit_scale": unit == "B",
        }
        # A bar below another one, as that of a validation, goes when it is done (leave=None).
        self._bar = tqdm(desc=what, dynamic_ncols=True, leave=None, disable=None, **amounts)
        self._line = {"prefix": what, "bar_format": _LINE, **amounts}
        self._done = done
        self._start = time.monotonic()
        self._next_line = self._start + INTERVAL

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """Adds to what is done."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """Sets how much is done, what was done at the start included."""
        self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if self._bar.disable and now >= self._next_line:  # it is, where there is no terminal
            self._next_line = now + INTERVAL
            say(tqdm.format_meter(done, elapsed=now - self._start, **self._line))


def track(
    items: Iterable[T], what: str, unit: str = "images", total: int | None = None
) -> Iterator[T]:
    """Yields `items` and shows how many of them, or of `total`, are done."""
    count = len(items) if total is None and isinstance(items, Collection) else total
    with Progress(what, count or 0, unit) as progress:
        for item in items:
            yield item
            progress.update()


def spell_settings(spelling: Callable[[str], str]) -> None:
    """Sets how `say` spells the settings that a line names between backticks; as they are, else."""
    global _spelling
    _spelling = spelling


def say(text: str) -> None:
    """Writes a line to standard error, above the bar if there is one."""
    try:
        tqdm.write(printable(_spelling(text)), file=sys.stderr)
    except OSError as error:
        if error.errno != errno.EIO:  # the terminal is gone, and the work need not go with it
            raise


def printable(text: str) -> str:
    """The text without characters that a terminal obeys or that turn the reading direction.

    They come in class names, prototxts, archives and the answers of servers. Each is shown as
    Python writes it, as "\\x1b"; line ends and tabs stay.
    """
    return _COMMANDS.sub(lambda match: repr(match[0])[1:-1], text)
