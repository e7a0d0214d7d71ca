"""Work that somebody else may draw out for ever, such as a server that sends a byte a minute."""

from __future__ import annotations

import queue
import threading
from typing import Callable, TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Calls `work` in a thread; returns what it returns, and raises what it raises.

    Raises:
        TimeoutError: it took longer. The thread is left behind, until the process ends.
    """
    results: queue.SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((work(), None))
        except BaseException as error:
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
