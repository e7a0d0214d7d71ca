"""A stand-in for tools/train.py: starts processes as it does, which do what a test asks for.

    python tests/distributed_worker.py ACTION DIR [NUM_PROCS]

The action of --rank alone (`raise`, `kill`) is taken by the process that WORKER_RANK names.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np

from squeezenet_paddle import cli, launching
from squeezenet_paddle.contact import Contact
from squeezenet_paddle.errors import InputError

RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
CHOSEN = os.environ.get("WORKER_RANK")  # None: all


def is_chosen() -> bool:
    return CHOSEN is None or int(CHOSEN) == RANK


def numbers(scale: int) -> np.ndarray:
    """float64 [2]: exact in float64 alone, and different in each process."""
    return np.array([scale * (RANK + 1), 2.0**40 + RANK])


def sums() -> dict[str, Any]:
    """Each method of a group, with values that the test knows."""
    import paddle

    from squeezenet_paddle.distributed import join

    with join("cpu") as group:
        random = np.random.default_rng(RANK)
        shapes = [(3, 2), (5,), (2, 2, 2)]
        parameters = [paddle.create_parameter(shape, "float32") for shape in shapes]
        grads = [random.standard_normal(shape).astype("float32") for shape in shapes]
        for i, (parameter, grad) in enumerate(zip(parameters, grads)):
            if i != 1 and not (i == 2 and RANK == 1):  # missing in all; in one
                (parameter * paddle.to_tensor(grad)).sum().backward()
        group.sum_gradients(parameters)
        group.broadcast(parameters)
        return {
            "rank": group.rank,
            "world_size": group.world_size,
            "cores": sorted(os.sched_getaffinity(0)),
            "sum": group.sum(numbers(1)).tolist(),
            "grads": [parameter.grad.numpy().tolist() for parameter in parameters],
            "weights": [parameter.numpy().tolist() for parameter in parameters],
            "object": group.broadcast_object({"rank": RANK, "array": np.arange(RANK + 3)})[
                "array"
            ].tolist(),
        }


def main() -> int:
    action, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if not launching.is_started() and count > 1:
        return launching.launch(launching.processes("cpu", None, count), "cpu")
    (folder / f"{RANK}.json").write_text(json.dumps(sums()))
    return 0


if __name__ == "__main__":
    cli.run(main)
