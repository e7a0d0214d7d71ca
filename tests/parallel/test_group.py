"""Sums and broadcasts over processes, on one host and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import distributed_worker
import netns
import numpy as np
import paddle
import pytest

from squeezenet_paddle.errors import InputError, RunError
from squeezenet_paddle.parallel.group import Group, join
from squeezenet_paddle.parallel.rendezvous import Rendezvous

WORKER = Path(distributed_worker.__file__)


def assert_sums(results: list[dict[str, Any]]) -> None:
    """What two processes of the action `sums` have to find."""
    first, second = distributed_worker.gradients(0), distributed_worker.gradients(1)
    shapes = distributed_worker.SHAPES
    assert [result["listens"] for result in results] == [1, 0]  # Paddle's store, to the end
    for result in results:
        assert result["world_size"] == 2
        np.testing.assert_array_equal(result["grads"][0], first[0] + second[0])
        np.testing.assert_array_equal(result["grads"][1], np.zeros(shapes[1]))
        np.testing.assert_array_equal(result["grads"][2], first[2])
        for weights, shape in zip(result["weights"], shapes):
            np.testing.assert_array_equal(weights, np.full(shape, 5.0))
        assert result["sum"] == [2.0**41 + 1, 1.0]
        assert result["sent"] == ["", "00070007", b"first".hex()]
        assert result["lets_in"] == []


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_sums_and_broadcasts_over_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, str(WORKER), "sums", str(tmp_path), "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    results = read(tmp_path)
    assert_sums(results)
    all_cores = sorted(os.sched_getaffinity(0))
    if len(all_cores) > 1:
        assert sorted(results[0]["cores"] + results[1]["cores"]) == all_cores


def test_two_hosts_join_one_job(tmp_path: Path) -> None:
    with netns.two_hosts() as hosts:
        for code, output in netns.run_job(hosts, tmp_path, WORKER, "sums", tmp_path, 1):
            assert code == 0, output
    assert_sums(read(tmp_path))


class FakeRendezvous:
    """The first of two processes, of which the other has died."""

    rank, world_size, host, port, interface = 0, 2, "127.0.0.1", 1, None

    def barrier(self) -> None:
        pass

    def check(self) -> None:
        raise RunError("process 1 has died")


def nccl_error(*_: Any, **__: Any) -> None:
    raise OSError("(External) NCCL error(5), invalid usage. (at /paddle/nccl.cc:1)")


def test_an_error_of_nccl_is_that_of_the_process_which_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paddle raises RuntimeError for gloo and OSError for NCCL."""
    monkeypatch.setattr(paddle.distributed, "all_reduce", nccl_error)
    with pytest.raises(RunError, match="process 1 has died"):
        Group(cast(Any, FakeRendezvous())).sum(np.ones(2))


@pytest.mark.parametrize("check", ["process 1 has died", None])
def test_nccl_that_does_not_start_is_one_line(
    check: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRendezvous()
    if check is None:
        monkeypatch.setattr(fake, "check", lambda: None)
    monkeypatch.setattr(Rendezvous, "from_environment", lambda: fake)
    monkeypatch.setattr(paddle.distributed, "init_parallel_env", nccl_error)
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", "")  # which join sets
    monkeypatch.setenv("PADDLE_CURRENT_ENDPOINT", "")
    with pytest.raises(RunError, match=check or "cannot reach each other: .*NCCL error"):
        join("gpu")


def test_a_process_of_several_has_the_gpu_of_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle takes that one, whatever GPU was set before."""
    monkeypatch.setattr(Rendezvous, "from_environment", FakeRendezvous)
    monkeypatch.setenv("FLAGS_selected_gpus", "1")
    with pytest.raises(InputError, match="`device` gpu:0: this is one of 2 .* has given gpu:1"):
        join("gpu:0")


def test_a_process_alone_is_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)
    parameter = paddle.create_parameter([2], "float32")
    with join("cpu") as group:
        group.sum_gradients([parameter])
        group.broadcast([parameter])
        assert (group.rank, group.world_size) == (0, 1)
        assert group.sum(np.array([1.5])).tolist() == [1.5]
        assert group.broadcast_bytes(b"as it is") == b"as it is"
    assert parameter.grad is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"PADDLE_TRAINERS_NUM": "two"}, "PADDLE_TRAINERS_NUM must be a whole number, found 'two'"),
        ({"PADDLE_TRAINER_ID": ""}, "PADDLE_TRAINER_ID must be a whole number, found ''"),
        ({"PADDLE_MASTER": "host"}, "PADDLE_MASTER must be host:port, found 'host'"),
    ],
)
def test_an_incomplete_environment_is_named(
    wrong: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ID": "1", "PADDLE_MASTER": "127.0.0.1:1"}
    for name, value in {**right, **wrong}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        join("cpu")
