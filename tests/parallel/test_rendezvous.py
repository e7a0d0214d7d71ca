"""A barrier over processes, which are threads here, and the death of one of them."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import distributed_worker
import netns
import pytest

from squeezenet_paddle.errors import RunError
from squeezenet_paddle.parallel import rendezvous
from squeezenet_paddle.parallel.rendezvous import Rendezvous

Connected = Callable[[int], "list[Rendezvous]"]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rendezvous, "LOST_SECONDS", 0.1)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def connected(pool: ThreadPoolExecutor) -> Iterator[Connected]:
    """Connects a number of processes."""
    made: list[Rendezvous] = []

    def connected(count: int) -> list[Rendezvous]:
        port = free_port()
        points = list(pool.map(lambda i: Rendezvous(i, count, "127.0.0.1", port), range(count)))
        made.extend(points)
        return points

    yield connected
    for each in made:
        each.close(done=False)


def die(each: Rendezvous) -> None:
    """As the system does for a process that is killed."""
    each._closed.set()  # this one's threads must not end the tests
    for connection in each._sockets:
        connection.shutdown(socket.SHUT_RDWR)


def test_all_wait_for_the_slowest(connected: Connected, pool: ThreadPoolExecutor) -> None:
    points = connected(3)
    for slowest in (0, 1, 2, 1):
        others = [pool.submit(each.barrier) for each in points if each.rank != slowest]
        time.sleep(0.1)
        assert not any(each.done() for each in others)
        points[slowest].barrier()
        for each in others:
            each.result(timeout=60)


@pytest.mark.parametrize("dying", [0, 1])
def test_a_death_is_noticed(dying: int, connected: Connected, pool: ThreadPoolExecutor) -> None:
    points = connected(2)
    waiting = pool.submit(points[1 - dying].barrier)
    die(points[dying])
    with pytest.raises(RunError, match="another process of the run has ended"):
        waiting.result(timeout=60)


def test_a_process_that_has_done_its_part_may_leave_but_is_not_waited_for(
    connected: Connected, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Rendezvous, "STUCK_SECONDS", 0.1)
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    points = connected(2)
    points[1].close(done=True)
    time.sleep(0.3)
    assert not ended
    with pytest.raises(RunError, match="another process of the run has ended"):
        points[0].barrier()
    points = connected(2)
    die(points[1])
    until = time.monotonic() + 60
    while not ended:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert ended == [1]
    assert "process 0: another process of the run has ended" in capfd.readouterr().err


def test_those_who_do_not_come_are_counted(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "JOIN_SECONDS", 2.0)
    port = free_port()
    there = [pool.submit(Rendezvous, rank, 3, "127.0.0.1", port) for rank in (0, 1)]
    with pytest.raises(
        RunError, match=f"2 of 3 processes have arrived at port {port} within 2.0 s"
    ):
        there[0].result(timeout=60)
    with pytest.raises(
        RunError, match=f"process 1 has not reached the other processes at 127.0.0.1:{port}"
    ):
        there[1].result(timeout=60)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"cannot listen on port {port}: Address already in use"):
            Rendezvous(0, 2, "127.0.0.1", port)


def call(port: int) -> socket.socket:
    """Connects to the first process, once it listens."""
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.01)


def test_strangers_at_the_port_are_neither_counted_nor_waited_for(pool: ThreadPoolExecutor) -> None:
    port = free_port()
    first = pool.submit(Rendezvous, 0, 2, "127.0.0.1", port)
    silent = [call(port) for _ in range(10)]
    for message in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
        with call(port) as stranger, contextlib.suppress(OSError):
            stranger.sendall(message)
    start = time.monotonic()
    points = [Rendezvous(1, 2, "127.0.0.1", port), first.result(timeout=60)]
    assert time.monotonic() - start < 4  # each silent one took 5 seconds
    for each in [pool.submit(point.barrier) for point in points]:
        each.result(timeout=60)
    assert points[0].interface == "lo"
    for point in points:
        point.close(done=True)
    for stranger in silent:
        stranger.close()


def test_a_flood_of_connections_does_not_keep_a_process_out(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "MOST_GUESTS", 3)
    port = free_port()
    first = pool.submit(Rendezvous, 0, 2, "127.0.0.1", port)
    silent = [call(port) for _ in range(8)]
    for point in (Rendezvous(1, 2, "127.0.0.1", port), first.result(timeout=60)):
        point.close(done=True)
    for stranger in silent[:4]:
        stranger.settimeout(60)
        while stranger.recv(100):
            pass
    for stranger in silent:
        stranger.close()


def test_who_does_not_know_the_secret_stays_outside(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "JOIN_SECONDS", 1.5)
    port = free_port()
    first = pool.submit(Rendezvous, 0, 3, "127.0.0.1", port, b"secret")
    others = [
        pool.submit(Rendezvous, rank, 3, "127.0.0.1", port, secret)
        for rank, secret in ((1, b"secret"), (2, b"guess"))
    ]
    with pytest.raises(RunError, match="2 of 3 processes have arrived .* or have another SQUEEZE"):
        first.result(timeout=60)
    with pytest.raises(RunError, match="process 1 has not reached the other processes"):
        others[0].result(timeout=60)
    with pytest.raises(RunError, match="process 2 .*; it may have another SQUEEZENET_JOB_SECRET"):
        others[1].result(timeout=60)


def test_the_first_process_has_to_know_the_secret_too(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "JOIN_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        other = pool.submit(Rendezvous, 1, 2, *impostor.getsockname(), b"secret")
        with impostor.accept()[0] as connection:
            connection.sendall(b"squeeze2" + bytes(16))
            connection.recv(100)
            connection.sendall(bytes(32) + b".")
            with pytest.raises(RunError, match="it may have another SQUEEZENET_JOB_SECRET"):
                other.result(timeout=60)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("192.0.2.1", "0.0.0.0")],
)
def test_the_interface_that_is_listened_on(
    host: str, address: str, pool: ThreadPoolExecutor
) -> None:
    """An address that is none of this machine's, as behind NAT, is not known to it."""
    port = free_port()
    first = pool.submit(Rendezvous, 0, 2, host, port)
    call(port).close()
    line = next(
        row.split()
        for row in Path("/proc/net/tcp").read_text().splitlines()
        if row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A"
    )
    found = socket.inet_ntoa(bytes.fromhex(line[1][:8])[::-1])
    Rendezvous(1, 2, "127.0.0.1", port).close(done=True)
    first.result(timeout=60).close(done=True)
    assert found == address


def test_a_busy_process_ends_when_one_on_another_host_is_killed(tmp_path: Path) -> None:
    with netns.two_hosts() as hosts:
        running = [
            host.popen(
                *(sys.executable, distributed_worker.__file__, "fail", tmp_path, 2),
                env={
                    "PADDLE_TRAINER_ID": str(rank),
                    "PADDLE_TRAINERS_NUM": "2",
                    "PADDLE_MASTER": f"{hosts[0].address}:{netns.PORT}",
                    "WORKER_RANK": "1",
                    "WORKER_HOW": "kill",
                    "WORKER_OTHERS": "busy",
                },
            )
            for rank, host in enumerate(hosts)
        ]
        try:
            output = running[0].communicate(timeout=60)[0]
        finally:
            for each in running:
                each.kill()
                each.wait()
    assert running[0].returncode == 1, output
    (line,) = output.splitlines()
    assert line.startswith("process 0: another process of the run has ended")
