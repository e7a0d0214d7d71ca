"""Closes the ports that Paddle leaves open.

Paddle's store listens on all interfaces until the run ends, asks nobody who they are, and ends the
process at a command that it does not know. It is needed only until all processes have joined.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_SO_ATTACH_FILTER = 26  # of Linux's asm-generic/socket.h
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction of a packet filter: return 0


@contextlib.contextmanager
def deaf_afterwards() -> Iterator[None]:
    """Makes the TCP sockets that start to listen in this process meanwhile drop later callers.

    Connections that they have accepted by then go on. On other systems than Linux nothing happens.
    """
    before = set(_descriptors())
    yield
    program = ctypes.create_string_buffer(_DROP_ALL)
    for name, descriptor in _descriptors().items():
        if name in before:
            continue
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
            if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                filter_ = struct.pack("HP", 1, ctypes.addressof(program))
                found.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def _descriptors() -> dict[str, int]:
    """The sockets of this process: file descriptors by names that the kernel uses once."""
    found = {}
    for link in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):  # the descriptor of this listing
            name = os.readlink(link)  # noqa: PTH115
            if name.startswith("socket:"):
                found[name] = int(link.name)
    return found
