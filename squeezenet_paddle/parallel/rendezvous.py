"""The processes of a job in touch with each other: who has come, who has left, who has died.

Paddle's collectives alone would not do: over gloo a process that comes 30 seconds after another
ends the job, and over NCCL a process waits for a dead one for ever. Here all wait for the slowest
as long as it lives, and a death is seen at once, on another machine too.
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

from ..errors import InputError, RunError

JOIN_SECONDS = 50  # from the first process of a job that is ready to the last
# A machine that has vanished with its processes is noticed by the kernel, in half a minute.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
_HELLO = struct.Struct("!8sI")
_MAGIC = b"squeeze1"
_HERE, _LEAVING = b".", b"-"
_SIOCGIFADDR = 0x8915  # of Linux's sockios.h


class Contact:
    """Connections of the first process with each other one.

    Args:
        rank, world_size: which process this is, of how many.
        host, port: where the first one listens until all are there; the port is free afterwards.

    Attributes:
        interface: the network interface that leads to the others; None if that is unknown.

    Raises:
        RunError: not all processes come within JOIN_SECONDS.
    """

    LOST_SECONDS = 2.0  # a launcher that sees the other's end, too, is given the time to act first
    STUCK_SECONDS = 10.0  # then a process that lost another one ends, whatever it is doing

    def __init__(self, rank: int, world_size: int, host: str, port: int) -> None:
        self.rank, self.world_size, self.host, self.port = rank, world_size, host, port
        deadline = time.monotonic() + JOIN_SECONDS
        if rank == 0:
            self._sockets = _accept(world_size, port, deadline)
        else:
            self._sockets = [_connect(rank, host, port, deadline)]
        self.interface = _interface(self._sockets[0].getsockname()[0])
        self._meetings = 0
        self._arrivals = [0] * len(self._sockets)
        self._gone = False
        self._changed = threading.Condition()
        self._closed = threading.Event()
        for i in range(len(self._sockets)):
            threading.Thread(target=self._listen, args=(i,), daemon=True).start()

    @staticmethod
    def from_environment() -> Contact | None:
        """That of the job in the environment, in Paddle's words; None where this one is alone.

        PADDLE_TRAINER_ID is which process this is, of PADDLE_TRAINERS_NUM. The first one listens on
        PADDLE_MASTER, host:port, or else the first of PADDLE_TRAINER_ENDPOINTS.

        Raises:
            InputError: the environment is not complete.
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
        return Contact(rank, world_size, host, int(port))

    def meet(self) -> None:
        """Returns when all processes have called it.

        Raises:
            RunError: one has died or left.
        """
        self._meetings += 1
        if self.rank:
            self._send(_HERE)
        with self._changed:
            self._changed.wait_for(lambda: self._gone or min(self._arrivals) >= self._meetings)
            gone = min(self._arrivals) < self._meetings
        if gone:
            self._give_up()
        if not self.rank:
            self._send(_HERE)

    def check(self) -> None:
        """Called when a collective has failed.

        Raises:
            RunError: it did because another process has died or left.
        """
        with self._changed:
            gone = self._changed.wait_for(lambda: self._gone, self.LOST_SECONDS)
        if gone:
            self._give_up()

    def close(self, done: bool) -> None:
        """Leaves; unless this process has `done` its part, the others take it for dead."""
        self._closed.set()
        if done:
            self._send(_LEAVING)

    def _send(self, message: bytes) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # its thread sees that, too
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
            os._exit(1)  # the main thread may wait for what the dead one does not send

    def _give_up(self) -> None:
        # From now on SIGTERM, a launcher's answer to the same death, ends this process quietly.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(self.LOST_SECONDS)
        raise RunError(_LOST)


_LOST = "another process of the run has ended or is out of reach; this one ends, too."


def _accept(world_size: int, port: int, deadline: float) -> list[socket.socket]:
    """The connections of all other processes with this one, by rank."""
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
                    continue  # somebody else's connection
                raise RunError(
                    f"{len(found) + 1} of {world_size} processes have come to port {port} within "
                    f"{JOIN_SECONDS} s; the others have ended, or do not reach this machine."
                ) from None
            if magic == _MAGIC and 0 < rank < world_size:
                found[rank] = connection
    sockets = [found[rank] for rank in sorted(found)]
    for each in sockets:
        _keep(each)
        with contextlib.suppress(OSError):  # it has died meanwhile, which will be noticed
            each.sendall(_HERE)
    return sockets


def _connect(rank: int, host: str, port: int, deadline: float) -> socket.socket:
    """The connection with the first process, once all others have one, too."""
    while True:
        left = deadline - time.monotonic()
        try:
            connection = socket.create_connection((host, port), timeout=max(left, 0.01))
            connection.sendall(_HELLO.pack(_MAGIC, rank))
            if connection.recv(1) == _HERE:
                _keep(connection)
                return connection
        except OSError:
            pass
        if time.monotonic() >= deadline:
            raise RunError(
                f"process {rank} has not found the other processes at {host}:{port} within "
                f"{JOIN_SECONDS} s; one of them has ended, or the network does not lead there."
            )
        time.sleep(0.1)


def _keep(connection: socket.socket) -> None:
    """Lets it wait for as long as the other side lives."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _interface(address: str) -> str | None:
    """The name of the network interface that has an IPv4 address."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:
                continue  # it has none
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def _number(name: str, default: str) -> int:
    text = os.environ.get(name, default)
    if not text.isdecimal():
        raise InputError(f"the environment's {name} must be a whole number, found {text!r}.")
    return int(text)
