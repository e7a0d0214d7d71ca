"""A stand-in for tools/train.py, which starts its processes as that does.

    python tests/distributed_worker.py ACTION FOLDER NUM_PROCS

Each process does what ACTION says and writes RANK.json into FOLDER. WORKER_RANK chooses the one
process that acts differently from the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from squeezenet_paddle.cli import common
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.parallel import launcher
from squeezenet_paddle.parallel.rendezvous import Rendezvous

RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
CHOSEN = os.environ.get("WORKER_RANK", str(RANK)) == str(RANK)
SHAPES = [(3, 2), (5,), (2, 2, 2)]


def gradients(rank: int) -> list[np.ndarray | None]:
    """Gradients of a process: the second one is missing in all, the third in process 1."""
    random = np.random.default_rng(rank)
    grads: list[np.ndarray | None] = [random.standard_normal(s).astype("float32") for s in SHAPES]
    grads[1] = None
    if rank == 1:
        grads[2] = None
    return grads


def sums(folder: Path) -> int:
    """Calls each method of the group and writes what it returned."""
    import paddle

    from squeezenet_paddle.parallel.group import join

    with join("cpu") as group:
        parameters = [paddle.create_parameter(shape, "float32") for shape in SHAPES]
        for parameter, grad in zip(parameters, gradients(group.rank)):
            parameter.set_value(paddle.full(parameter.shape, 5.0 + group.rank))
            if grad is not None:
                (parameter * paddle.to_tensor(grad)).sum().backward()
        group.sum_gradients(parameters)
        group.broadcast(parameters)
        sent = [group.broadcast_bytes(bytes([group.rank, 7]) * count) for count in (0, 2)]
        sent.append(group.broadcast_bytes(b"" if group.rank else b"first"))
        write(
            folder,
            world_size=group.world_size,
            grads=[parameter.grad.numpy().tolist() for parameter in parameters],
            weights=[parameter.numpy().tolist() for parameter in parameters],
            sum=group.sum(np.array([2.0**40 + group.rank, 0.5])).tolist(),
            sent=[data.hex() for data in sent],
            listens=len(listening()),
            lets_in=[port for port in listening() if lets_in(port)],
            cores=sorted(os.sched_getaffinity(0)),
        )
    return 0


def listening() -> list[int]:
    """The ports on which this process listens."""
    links = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this listing
            links.add(str(link.readlink()))
    rows = [row.split() for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    rows += [row.split() for row in Path("/proc/self/net/tcp6").read_text().splitlines()[1:]]
    mine = [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]
    return [int(row[1].rpartition(":")[2], 16) for row in mine]


def lets_in(port: int) -> bool:
    """Whether a stranger can connect to a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True


def barrier(folder: Path) -> int:
    """Waits for the others once."""
    rendezvous = Rendezvous.from_environment()
    assert rendezvous is not None
    rendezvous.barrier()
    rendezvous.close(done=True)
    write(folder, port=rendezvous.port)
    return 0


def fail(folder: Path) -> int:
    """Fails as WORKER_HOW says after a barrier; the others wait for it at the next one."""
    rendezvous = Rendezvous.from_environment()
    assert rendezvous is not None
    rendezvous.barrier()
    write(folder, pid=os.getpid())
    if not CHOSEN:
        if os.environ.get("WORKER_OTHERS") == "busy":
            Rendezvous.STUCK_SECONDS = 1.0
            time.sleep(600)
        rendezvous.barrier()
    how = os.environ["WORKER_HOW"]
    if how == "mistake":
        raise InputError("cat.jpg is a dog.")
    print(f"last words of process {RANK}", flush=True)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "defect":
        raise AssertionError("a defect")
    return int(how)


def train(folder: Path) -> int:
    """Waits for SIGINT, SIGTERM or SIGHUP, and saves."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: came.append(number))
    write(folder, pid=os.getpid())
    while not came or os.environ.get("WORKER_HOW") == "stubborn":
        time.sleep(0.01)
    time.sleep(0.3)
    write(folder, pid=os.getpid(), came=came)
    return launcher.INTERRUPTED


def save_together(folder: Path) -> int:
    """Waits for a signal, which the chosen process does not handle yet, and then for the others."""
    came: list[int] = []
    if not CHOSEN:
        signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    rendezvous = Rendezvous.from_environment()
    assert rendezvous is not None
    write(folder, pid=os.getpid())
    while not came:
        time.sleep(0.01)
    rendezvous.barrier()
    return launcher.INTERRUPTED


def write(folder: Path, **values: Any) -> None:
    path = folder / f"{RANK}.json"
    path.with_suffix(".new").write_text(json.dumps(values))
    path.with_suffix(".new").replace(path)


def main() -> int:
    action, folder, num_procs = sys.argv[1:]
    if not launcher.is_started():
        return launcher.launch(launcher.processes("cpu", None, int(num_procs)), "cpu")
    actions = (sums, barrier, fail, train, save_together)
    return {each.__name__: each for each in actions}[action](Path(folder))


if __name__ == "__main__":
    common.run(main)
