"""A barrier for the processes of a job that notices at once when one of them dies.

It stands before every collective of Paddle. Over gloo, a process that is 30 seconds late ends the
job, and over NCCL the others wait for a dead process for ever. Here they wait for the slowest one
for as long as it lives; TCP connections show its death immediately, on another machine too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import NoReturn

from ..errors import InputError, RunError

JOIN_SECONDS = 50  # how long the first process that is ready waits for the last one
# With these, the kernel notices within half a minute that a whole machine has gone.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
_HELLO = struct.Struct("!8sI")
_MAGIC = b"squeeze1"
_HERE, _LEAVING = b".", b"-"
_SIOCGIFADDR = 0x8915  # of Linux's sockios.h


class Rendezvous:
    """TCP connections between the first process and each of the others.

    Args:
        rank, world_size: index of this process, and how many there are.
        host, port: where the first one listens until all have arrived; then the port is free again.

    Attributes:
        interface: the network interface that leads to the others; None if it is unknown.

    Raises:
        RunError: a process does not arrive within JOIN_SECONDS.
    """

    LOST_SECONDS = 5.0  # after a death, how long the launcher has to end this process first
    STUCK_SECONDS = 10.0  # after a death, when this process ends even in the middle of its work

    def __init__(self, rank: int, world_size: int, host: str, port: int) -> None:
        self.rank, self.world_size, self.host, self.port = rank, world_size, host, port
        deadline = time.monotonic() + JOIN_SECONDS
        if rank == 0:
            self._sockets = _accept(world_size, port, deadline)
        else:
            self._sockets = [_connect(rank, host, port, deadline)]
        self.interface = _interface(self._sockets[0].getsockname()[0])
        self._barriers = 0  # passed by this process
        self._arrivals = [0] * len(self._sockets)  # at barriers, of each connected process
        self._gone = False  # whether one has died or left
        self._changed = threading.Condition()
        self._closed = threading.Event()
        for i in range(len(self._sockets)):
            threading.Thread(target=self._listen, args=(i,), daemon=True).start()

    @staticmethod
    def from_environment() -> Rendezvous | None:
        """Connects the job that Paddle's variables describe; None for a single process.

        This process has the rank PADDLE_TRAINER_ID of PADDLE_TRAINERS_NUM. The first one listens on
        PADDLE_MASTER, host:port, or else on the first of PADDLE_TRAINER_ENDPOINTS.

        Raises:
            InputError: the environment is incomplete.
        """
        world_size = _number("PADDLE_TRAINERS_NUM", "1")
        if world_size == 1:
            return None
        rank = _number("PADDLE_TRAINER_ID", "")
        endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
        master = os.environ.get("PADDLE_MASTER", endpoints[0])
        host, _, port = master.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(
                f"the environment's PADDLE_MASTER must be host:port, found {master!r}."
            )
        return Rendezvous(rank, world_size, host, int(port))

    def barrier(self) -> None:
        """Waits until all processes have called it.

        Raises:
            RunError: one has died or left.
        """
        self._barriers += 1
        if self.rank:
            self._send(_HERE)
        with self._changed:
            self._changed.wait_for(lambda: self._gone or min(self._arrivals) >= self._barriers)
            gone = min(self._arrivals) < self._barriers
        if gone:
            self._give_up()
        if not self.rank:
            self._send(_HERE)

    def check(self) -> None:
        """Finds out whether a collective failed because another process has died or left.

        Raises:
            RunError: it did.
        """
        with self._changed:
            gone = self._changed.wait_for(lambda: self._gone, self.LOST_SECONDS)
        if gone:
            self._give_up()

    def close(self, done: bool) -> None:
        """Leaves the job; unless `done`, the others end as if this process had died."""
        self._closed.set()
        if done:
            self._send(_LEAVING)

    def _send(self, message: bytes) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # its thread notices
                each.sendall(message)

    def _listen(self, i: int) -> None:
        message = _HERE
        while message == _HERE:
            try:
                message = self._sockets[i].recv(1)
            except OSError:
                message = b""
            with self._changed:
                if message == _HERE:
                    self._arrivals[i] += 1
                else:
                    self._gone = True
                self._changed.notify_all()
        if message != _LEAVING and not self._closed.wait(self.STUCK_SECONDS):
            print(f"process {self.rank}: {_LOST}", file=sys.stderr, flush=True)
            os._exit(1)  # the main thread may be waiting for the dead process

    def _give_up(self) -> NoReturn:
        """Raises the error, late enough for the launcher to act first.

        The launcher answers the same death with SIGTERM, which from now on ends this process.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(self.LOST_SECONDS)
        raise RunError(_LOST)


_LOST = "another process of the run has ended or cannot be reached; this one ends, too."


def _accept(world_size: int, port: int, deadline: float) -> list[socket.socket]:
    """Accepts a connection from every other process; returns them by rank."""
    found: dict[int, socket.socket] = {}
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
            listener.listen(world_size)
        except OSError as error:
            raise RunError(
                f"the first process of the job cannot listen on port {port}: {error.strerror}."
            ) from None
        while len(found) < world_size - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = listener.accept()[0]
                connection.settimeout(5)
                magic, rank = _HELLO.unpack(connection.recv(_HELLO.size, socket.MSG_WAITALL))
            except (OSError, struct.error):
                if time.monotonic() < deadline:
                    continue  # not of this job
                raise RunError(
                    f"{len(found) + 1} of {world_size} processes have arrived at port {port} "
                    f"within {JOIN_SECONDS} s; the others have ended or cannot reach this machine."
                ) from None
            if magic == _MAGIC and 0 < rank < world_size:
                found[rank] = connection
    sockets = [found[rank] for rank in sorted(found)]
    for each in sockets:
        _keep_alive(each)
        with contextlib.suppress(OSError):  # its thread will notice
            each.sendall(_HERE)
    return sockets


def _connect(rank: int, host: str, port: int, deadline: float) -> socket.socket:
    """Connects to the first process, and waits until all others have done so."""
    while True:
        left = deadline - time.monotonic()
        try:
            connection = socket.create_connection((host, port), timeout=max(left, 0.01))
            connection.sendall(_HELLO.pack(_MAGIC, rank))
            if connection.recv(1) == _HERE:
                _keep_alive(connection)
                return connection
        except OSError:
            pass
        if time.monotonic() >= deadline:
            raise RunError(
                f"process {rank} has not reached the other processes at {host}:{port} within "
                f"{JOIN_SECONDS} s; one of them has ended, or there is no route to that address."
            )
        time.sleep(0.1)


def _keep_alive(connection: socket.socket) -> None:
    """Lets a connection wait without a limit, but only as long as the other side lives."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _interface(address: str) -> str | None:
    """The network interface with this IPv4 address; None if it is unknown."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                continue  # no IPv4 address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def _number(name: str, default: str) -> int:
    text = os.environ.get(name, default)
    if not text.isdecimal():
        raise InputError(f"the environment's {name} must be a whole number, found {text!r}.")
    return int(text)
