"""Processes that wait for each other and notice a death, played by threads."""

from __future__ import annotations

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
from squeezenet_paddle.parallel.rendezvous import Contact

InTouch = Callable[[int], "list[Contact]"]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contact, "LOST_SECONDS", 0.1)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def in_touch(pool: ThreadPoolExecutor) -> Iterator[InTouch]:
    """Makes the contacts of a number of processes."""
    made: list[Contact] = []

    def in_touch(count: int) -> list[Contact]:
        port = free_port()
        contacts = list(pool.map(lambda i: Contact(i, count, "127.0.0.1", port), range(count)))
        made.extend(contacts)
        return contacts

    yield in_touch
    for each in made:
        each.close(done=False)


def die(each: Contact) -> None:
    """As the system does for a process that is killed."""
    each._closed.set()  # this one's threads must not end the tests
    for connection in each._sockets:
        connection.shutdown(socket.SHUT_RDWR)


def test_all_wait_for_the_slowest(in_touch: InTouch, pool: ThreadPoolExecutor) -> None:
    contacts = in_touch(3)
    for slowest in (0, 1, 2, 1):
        others = [pool.submit(each.meet) for each in contacts if each.rank != slowest]
        time.sleep(0.1)
        assert not any(each.done() for each in others)
        contacts[slowest].meet()
        for each in others:
            each.result(timeout=5)


@pytest.mark.parametrize("dying", [0, 1])
def test_a_death_is_noticed(dying: int, in_touch: InTouch, pool: ThreadPoolExecutor) -> None:
    contacts = in_touch(2)
    waiting = pool.submit(contacts[1 - dying].meet)
    die(contacts[dying])
    with pytest.raises(RunError, match="another process of the run has ended"):
        waiting.result(timeout=5)


def test_a_process_that_has_done_its_part_may_leave_but_is_not_waited_for(
    in_touch: InTouch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Contact, "STUCK_SECONDS", 0.1)
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    contacts = in_touch(2)
    contacts[1].close(done=True)
    time.sleep(0.3)
    assert not ended
    with pytest.raises(RunError, match="another process of the run has ended"):
        contacts[0].meet()
    contacts = in_touch(2)
    die(contacts[1])
    time.sleep(0.5)
    assert ended == [1]
    assert "process 0: another process of the run has ended" in capfd.readouterr().err


def test_those_who_do_not_come_are_counted(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "JOIN_SECONDS", 0.5)
    port = free_port()
    there = [pool.submit(Contact, rank, 3, "127.0.0.1", port) for rank in (0, 1)]
    with pytest.raises(RunError, match=f"2 of 3 processes have come to port {port} within 0.5 s"):
        there[0].result(timeout=5)
    with pytest.raises(
        RunError, match=f"process 1 has not found the other processes at 127.0.0.1:{port}"
    ):
        there[1].result(timeout=5)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=f"cannot listen on port {port}: Address already in use"):
            Contact(0, 2, "127.0.0.1", port)


def test_a_stranger_at_the_port_is_not_counted(pool: ThreadPoolExecutor) -> None:
    port = free_port()
    first = pool.submit(Contact, 0, 2, "127.0.0.1", port)
    for message in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port)) as stranger:
                    stranger.sendall(message)
                break
            except ConnectionRefusedError:  # it does not listen yet
                time.sleep(0.01)
    contacts = [Contact(1, 2, "127.0.0.1", port), first.result(timeout=5)]
    meeting = [pool.submit(each.meet) for each in contacts]
    for each in meeting:
        each.result(timeout=5)
    assert contacts[0].interface == "lo"
    for each in contacts:
        each.close(done=True)


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
