"""Traces the operators that Paddle runs in a step, as a Chrome trace and a table."""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from paddle import profiler

from ..data.loader import Batch
from ..device import use_device
from ..files import atomic_path
from ..network.model import squeezenet1_1
from ..predict import Predictor
from ..temporaries import temporary_directory
from ..training.gradients import make_gradients
from ..training.optim import make_optimizer, scale_gradients

WARM_UP = 2  # steps that are not traced
SHOWN = 12  # operators in the table
_INPUT_SIZE = 227
_LR, _MOMENTUM, _WEIGHT_DECAY = 1e-4, 0.9, 2e-4  # the values change no step's speed

Step = Callable[[], object]


@dataclass(frozen=True)
class Operator:
    """The calls of an operator in a whole trace.

    Attributes:
        name: Paddle's.
        calls: in all steps and threads.
        milliseconds: of all calls together, without the operators that it calls; those of parallel
            threads add up.
        share: of the milliseconds of all operators.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


@dataclass(frozen=True)
class Trace:
    """The result of tracing.

    Attributes:
        milliseconds: of each step, under the profiler.
        operators: the slowest first.
    """

    milliseconds: list[float]
    operators: list[Operator]

    def summary(self) -> dict[str, Any]:
        """The times of the steps as JSON values by key."""
        times = self.milliseconds
        return {
            "steps": len(times),
            "min_ms": round(min(times), 3),
            "median_ms": round(statistics.median(times), 3),
            "max_ms": round(max(times), 3),
        }

    def table(self) -> str:
        """The slowest operators, one line each, under a header."""
        slowest = self.operators[:SHOWN]
        width = max(len("operator"), *(len(each.name) for each in slowest))
        lines = [f"{'operator':<{width}} {'calls':>7} {'ms':>10} {'ms/call':>10} {'share':>7}"]
        lines += [
            f"{each.name:<{width}} {each.calls:>7} {each.milliseconds:>10.2f} "
            f"{each.milliseconds / each.calls:>10.3f} {each.share:>7.1%}"
            for each in slowest
        ]
        return "\n".join(lines)


def inference_step(
    model_dir: Path, batch_size: int, device: str, threads: int | None = None
) -> Step:
    """A step of inference: a batch through the dynamic graph of a model directory.

    Args:
        model_dir: as `model_dir.py` describes it.
        batch_size: random images.
        device: "cpu", "gpu" or "gpu:N".
        threads: on a CPU; None takes one per core that the process may use.
    """
    predictor = Predictor(model_dir, device, "dynamic", threads=threads)
    inputs = _images((batch_size, *predictor.info.preprocess.input_shape))
    return lambda: predictor.logits(inputs)


def training_step(batch_size: int, device: str, threads: int | None = None) -> Step:
    """A step of training: forward, backward and update of SqueezeNet v1.1 with 1000 classes.

    Args:
        batch_size, device, threads: as for `inference_step`.
    """
    use_device(device)
    network = squeezenet1_1()
    inputs = _images((batch_size, 3, _INPUT_SIZE, _INPUT_SIZE))
    labels = np.random.default_rng(1).integers(0, network.config.num_classes, batch_size)
    batch = Batch(np.arange(batch_size), inputs, labels)
    gradients = make_gradients(network, device, seed=0, threads=threads)
    parameters = dict(network.named_parameters())
    optimizer = make_optimizer("momentum", parameters, _MOMENTUM, _WEIGHT_DECAY)

    def step() -> None:
        gradients.add(batch, epoch=0)
        scale_gradients(parameters.values(), 1 / batch_size)
        optimizer.step(_LR)
        for parameter in parameters.values():
            parameter.clear_gradient(False)

    return step


def _images(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 60, shape).astype("float32")


def trace(step: Step, steps: int, path: Path, device: str = "cpu") -> Trace:
    """Runs a step under Paddle's profiler, after `WARM_UP` runs without it.

    Args:
        step: what to run; operators in threads that it starts are traced too.
        steps: how often.
        path: where the Chrome trace goes, JSON.
        device: which one the step computes on.

    Raises:
        InputError: the file cannot be written.
    """
    for _ in range(WARM_UP):
        step()
    targets = [profiler.ProfilerTarget.CPU]
    if device != "cpu":
        targets.append(profiler.ProfilerTarget.GPU)
    with temporary_directory() as folder, atomic_path(path) as target:
        written = folder / "trace.json"
        # Without a handler Paddle writes to a folder in the working directory.
        watch = profiler.Profiler(
            targets=targets, on_trace_ready=lambda done: done.export(str(written), format="json")
        )
        milliseconds = []
        watch.start()
        for _ in range(steps):
            start = time.perf_counter()
            step()
            milliseconds.append((time.perf_counter() - start) * 1e3)
            watch.step()
        watch.stop()
        content = json.loads(written.read_bytes())
        events = content["traceEvents"] = [e for e in content["traceEvents"] if e]  # the last is {}
        target.write_text(json.dumps(content), encoding="utf-8")
    return Trace(milliseconds, _operators(events))


def _operators(events: Sequence[dict[str, Any]]) -> list[Operator]:
    """The operators by their own time, without that of the operators that they call."""
    calls: dict[str, int] = defaultdict(int)
    milliseconds: dict[str, float] = defaultdict(float)
    running: dict[str, list[tuple[str, float]]] = defaultdict(list)  # name and end, by thread
    spans = [(*_span(e), e["tid"], e["name"]) for e in events if e.get("cat") == "Operator"]
    for start, end, thread, title in sorted(spans, key=lambda span: (span[0], -span[1])):
        name = title.partition("[")[0].split()[0]  # of "conv2d dygraph[1.234 ms]"
        callers = running[thread]
        while callers and callers[-1][1] <= start:
            callers.pop()
        if callers:
            milliseconds[callers[-1][0]] -= end - start
        callers.append((name, end))
        calls[name] += 1
        milliseconds[name] += end - start
    total = sum(milliseconds.values())
    operators = [Operator(name, calls[name], ms, ms / total) for name, ms in milliseconds.items()]
    return sorted(operators, key=lambda each: each.milliseconds, reverse=True)


def _span(event: dict[str, Any]) -> tuple[float, float]:
    """Start and end in milliseconds; Paddle cuts off the fractions of "ts"."""
    start, end = (float(event["args"][key].split()[0]) for key in ("start_time", "end_time"))
    return start / 1e3, end / 1e3
