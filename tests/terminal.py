"""A terminal for the tests, as a program sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios


def shown_on_a_terminal(
    code: str, *arguments: object, columns: int = 100, stream: str = "stderr"
) -> bytes:
    """All that a Python program writes to a standard stream where that is a terminal."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, **{stream: its})
    os.close(its)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return shown


def lines_left(shown: bytes) -> list[bytes]:
    """What stands in each line in the end."""
    return [line.rstrip(b"\r").split(b"\r")[-1] for line in shown.split(b"\n")]
