"""A barrier for the processes of a job that notices at once when one of them dies.

It stands before every collective of Paddle. Over gloo, a process that is 30 seconds late ends the
job, and over NCCL the others wait for a dead process for ever. Here they wait for the slowest one
for as long as it lives; TCP connections show its death immediately, on another machine too.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections import deque
from typing import NoReturn

from ..errors import InputError, RunError

JOIN_SECONDS = 50  # how long the first process that is ready waits for the last one
# With these, the kernel notices within half a minute that a whole machine has gone.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
SECRET = "SQUEEZENET_JOB_SECRET"  # environment variable; whoever knows it may join
_MAGIC, _NONCE = b"squeeze2", 16
_GREETING = struct.Struct(f"!8s{_NONCE}s")  # of the first process
_HELLO = struct.Struct(f"!I{_NONCE}s32s")  # of the others: rank, nonce, proof
MOST_GUESTS = 256  # connections that have not said yet who they are
_HERE, _LEAVING = b".", b"-"
_SIOCGIFADDR = 0x8915  # of Linux's sockios.h


class Rendezvous:
    """TCP connections between the first process and each of the others.

    Args:
        rank, world_size: index of this process, and how many there are.
        host, port: where the first one listens until all have arrived; then the port is free again.
        secret: what all processes know; whoever does not is not let in.

    Attributes:
        interface: the network interface that leads to the others; None if it is unknown.

    Raises:
        RunError: a process does not arrive within JOIN_SECONDS.
    """

    LOST_SECONDS = 5.0  # after a death, how long the launcher has to end this process first
    STUCK_SECONDS = 10.0  # after a death, when this process ends even in the middle of its work

    def __init__(
        self, rank: int, world_size: int, host: str, port: int, secret: bytes = b""
    ) -> None:
        self.rank, self.world_size, self.host, self.port = rank, world_size, host, port
        deadline = time.monotonic() + JOIN_SECONDS
        if rank == 0:
            self._sockets = _accept(world_size, host, port, secret, deadline)
        else:
            self._sockets = [_connect(rank, host, port, secret, deadline)]
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
        PADDLE_MASTER, host:port, or else on the first of PADDLE_TRAINER_ENDPOINTS. All of them need
        the same SQUEEZENET_JOB_SECRET, or none.

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
        secret = os.environ.get(SECRET, "").encode()
        return Rendezvous(rank, world_size, host, int(port), secret)

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


_ENDED = "one of them has ended, or there is no route to that address"
_OTHER_SECRET = f"it may have another {SECRET} than the first one"
_LOST = "another process of the run has ended or cannot be reached; this one ends, too."


def _accept(
    world_size: int, host: str, port: int, secret: bytes, deadline: float
) -> list[socket.socket]:
    """Accepts a connection from every other process; returns them by rank."""
    found: dict[int, socket.socket] = {}
    guests: deque[_Guest] = deque()  # who have not said yet who they are, the oldest first
    with _listener(host, port) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while len(found) < world_size - 1:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RunError(
                    f"{len(found) + 1} of {world_size} processes have arrived at port {port} "
                    f"within {JOIN_SECONDS} s; the others have ended, cannot reach this machine "
                    f"or have another {SECRET}."
                )
            for key, _ in selector.select(left):
                guest = key.data
                if guest is None:
                    guest = _Guest(listener.accept()[0], secret)
                    guests.append(guest)
                    selector.register(guest.connection, selectors.EVENT_READ, guest)
                    if len(guests) <= MOST_GUESTS:
                        continue
                    guest = guests[0]
                elif guest not in guests or guest.listen():
                    continue
                guests.remove(guest)
                selector.unregister(guest.connection)
                if 0 < guest.rank < world_size:
                    found[guest.rank] = guest.connection
                else:
                    guest.connection.close()
    for guest in guests:
        guest.connection.close()
    sockets = [found[rank] for rank in sorted(found)]
    for each in sockets:
        _keep_alive(each)
        with contextlib.suppress(OSError):  # its thread will notice
            each.sendall(_HERE)
    return sockets


class _Guest:
    """A connection to the first process, until it has proved that it belongs to the job.

    Attributes:
        connection: which does not block.
        rank: of the process; 0, which is the first one's own, if it does not belong to the job.
    """

    def __init__(self, connection: socket.socket, secret: bytes) -> None:
        connection.setblocking(False)
        self.connection, self.rank = connection, 0
        self._secret = secret
        self._greeting = _GREETING.pack(_MAGIC, os.urandom(_NONCE))
        self._received = b""
        with contextlib.suppress(OSError):  # it has left
            connection.sendall(self._greeting)

    def listen(self) -> bool:
        """Takes what has arrived; returns whether more has to come."""
        try:
            data = self.connection.recv(_HELLO.size - len(self._received))
        except OSError:
            data = b""
        self._received += data
        if data and len(self._received) < _HELLO.size:
            return True
        if len(self._received) == _HELLO.size:
            rank, nonce, proof = _HELLO.unpack(self._received)
            if hmac.compare_digest(proof, _proof(self._secret, self._greeting, rank, nonce)):
                with contextlib.suppress(OSError):
                    self.connection.sendall(_proof(self._secret, proof, 0, nonce))
                    self.rank = rank
        return False


def _proof(secret: bytes, greeting: bytes, rank: int, nonce: bytes) -> bytes:
    """What only someone who knows the secret can say in answer to a greeting."""
    return hmac.digest(secret, greeting + _HELLO.pack(rank, nonce, b""), "sha256")


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens where `host` points to, and on all interfaces only if need be.

    That is where the address is none of this machine's, as in a container behind NAT, or where the
    machine's name leads to itself alone, as 127.0.1.1 does on Debian.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        address = socket.gethostbyname(host)
        is_local = address.startswith("127.") and host not in ("localhost", address)
        try:
            listener.bind(("" if is_local else address, port))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            listener.bind(("", port))
        listener.listen(MOST_GUESTS)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise RunError(
            f"the first process of the job cannot listen on port {port}: {error.strerror}."
        ) from None
    return listener


def _connect(rank: int, host: str, port: int, secret: bytes, deadline: float) -> socket.socket:
    """Connects to the first process, and waits until all others have done so."""
    reason = _ENDED
    while True:
        left = deadline - time.monotonic()
        try:
            connection = socket.create_connection((host, port), timeout=max(left, 0.01))
            greeting = connection.recv(_GREETING.size, socket.MSG_WAITALL)
            nonce = os.urandom(_NONCE)
            proof = _proof(secret, greeting, rank, nonce)
            if greeting.startswith(_MAGIC):
                connection.sendall(_HELLO.pack(rank, nonce, proof))
                reason = _OTHER_SECRET  # unless an answer comes
                answer = connection.recv(len(proof), socket.MSG_WAITALL)
                if hmac.compare_digest(answer, _proof(secret, proof, 0, nonce)):
                    reason = _ENDED
                    if connection.recv(1) == _HERE:
                        _keep_alive(connection)
                        return connection
            connection.close()
        except OSError:
            pass
        if time.monotonic() >= deadline:
            raise RunError(
                f"process {rank} has not reached the other processes at {host}:{port} within "
                f"{JOIN_SECONDS} s; {reason}."
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
