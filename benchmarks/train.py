"""What a training step costs: ours, paddle.vision's network and, if installed, PyTorch, in one run.

    python benchmarks/train.py
    python benchmarks/train.py --size 64 --steps 20
    python benchmarks/train.py --layers

A step is forward, backward and an SGD update of SqueezeNet v1.1 with 1000 classes. Each way runs in
a process of its own, and the median of its steps counts. `--layers` shows instead where the time of
a plain step of ours goes, that is, with the layers as Paddle has them and the batch in one piece.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable

import numpy as np

from squeezenet_paddle.cli.shared_flags import positive_int
from squeezenet_paddle.network.config import FIRES, ModelConfig, layer_table
from squeezenet_paddle.process_settings import use_fast_cpu_settings

LR, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 2e-4
Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=positive_int, default=32, help="(default: 32)")
    parser.add_argument("--size", type=positive_int, default=227, help="pixels (default: 227)")
    parser.add_argument(
        "--steps", type=positive_int, default=5, help="timed steps, after one more (default: 5)"
    )
    parser.add_argument("--layers", action="store_true", help="a plain step by layer")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)  # the body of a process
    args = parser.parse_args()
    if args.way is not None:
        print(median_seconds(WAYS[args.way](args.batch_size, args.size), args.steps))
        return
    images = f"a batch of {args.batch_size} at {args.size} pixels, medians of {args.steps}"
    print(f"{machine()}\n{images}")
    (print_layers if args.layers else print_ways)(args)


def print_ways(args: argparse.Namespace) -> None:
    ours = None
    print(f"{'':<32}  s a step  images/s  ours is")
    for name in WAYS:
        seconds = run_alone(name, args)
        if seconds is None:
            print(f"{name:<32}  not installed")
            continue
        ours = ours or seconds
        print(f"{name:<32} {seconds:9.3f} {args.batch_size / seconds:9.1f} {seconds / ours:7.2f}x")


def run_alone(way: str, args: argparse.Namespace) -> float | None:
    """Median seconds of a step in a new process; None where the library is missing."""
    if way.startswith("PyTorch") and importlib.util.find_spec("torch") is None:
        return None
    command = [sys.executable, "-W", "ignore", __file__, "--way", way, "--steps", str(args.steps)]
    command += ["--batch_size", str(args.batch_size), "--size", str(args.size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def median_seconds(run: Callable[[], Any], count: int) -> float:
    """Of `count` runs, after one that is not timed."""
    seconds = []
    for _ in range(count + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def random_batch(batch_size: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(0, 60, (batch_size, 3, size, size)).astype("float32")
    return inputs, rng.integers(0, 1000, batch_size)


def ours(
    batch_size: int,
    size: int,
    device: str = "cpu",
    data_format: str = "NCHW",
    amp: tuple[str, str] | None = None,
) -> Step:
    """As tools/train.py does it by default; `amp` is a level and a type."""
    use_fast_cpu_settings()
    from squeezenet_paddle.data.loader import Batch
    from squeezenet_paddle.network.model import squeezenet1_1
    from squeezenet_paddle.training.gradients import Amp, make_gradients
    from squeezenet_paddle.training.optim import make_optimizer, scale_gradients

    network = squeezenet1_1(data_format=data_format)
    inputs, labels = random_batch(batch_size, size)
    if data_format == "NHWC":
        inputs = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))
    batch = Batch(np.arange(batch_size), inputs, labels)
    gradients = make_gradients(network, device, seed=0, amp=None if amp is None else Amp(*amp))
    parameters = dict(network.named_parameters())
    optimizer = make_optimizer("momentum", parameters, MOMENTUM, WEIGHT_DECAY)

    def step() -> None:
        gradients.add(batch, epoch=0)
        scale_gradients(parameters.values(), 1 / batch_size)
        optimizer.step(LR)
        for parameter in parameters.values():
            parameter.clear_gradient(False)

    return step


def paddle_vision(batch_size: int, size: int) -> Step:
    """The dynamic graph as it comes. The network is nearly ours: conv1 is padded by a pixel."""
    import paddle

    network = paddle.vision.models.squeezenet1_1()
    optimizer = paddle.optimizer.Momentum(
        LR, MOMENTUM, parameters=network.parameters(), weight_decay=WEIGHT_DECAY
    )
    inputs, labels = random_batch(batch_size, size)

    def step() -> None:
        logits = network(paddle.to_tensor(inputs))
        loss = paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(labels))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        loss.item()

    return step


def pytorch(
    batch_size: int,
    size: int,
    channels_last: bool = False,
    device: str = "cpu",
    amp: bool = False,
) -> Step:
    """`amp` is float16 with a loss scale, on a GPU."""
    import torch
    from torch import nn

    class Fire(nn.Module):
        def __init__(self, channels: int, squeeze: int, expand: int) -> None:
            super().__init__()
            self.squeeze1x1 = nn.Conv2d(channels, squeeze, 1)
            self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
            self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu_(self.squeeze1x1(x))
            expanded = [torch.relu_(expand(x)) for expand in (self.expand1x1, self.expand3x3)]
            return torch.cat(expanded, 1)

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(inplace=True), pool()]
    channels = 64
    for name, (squeeze, expand) in FIRES.items():
        layers.append(Fire(channels, squeeze, expand))
        channels = 2 * expand
        if name in ("fire3", "fire5"):
            layers.append(pool())
    layers += [nn.Dropout(0.5), nn.Conv2d(512, 1000, 1), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(device, memory_format=memory_format)
    optimizer = torch.optim.SGD(network.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY)
    inputs, labels = map(torch.from_numpy, random_batch(batch_size, size))
    scaler = torch.amp.GradScaler(device, enabled=amp)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.float16, enabled=amp):
            logits = network(inputs.to(device, memory_format=memory_format))
            loss = nn.functional.cross_entropy(logits, labels.to(device))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss.item()

    return step


WAYS: dict[str, Callable[[int, int], Step]] = {
    "ours": ours,
    "paddle.vision, dynamic graph": paddle_vision,
    "PyTorch": pytorch,
    "PyTorch, channels last": lambda *sizes: pytorch(*sizes, channels_last=True),
}


def print_layers(args: argparse.Namespace) -> None:
    """Forward and backward of every layer by itself, on the input that it has in the network."""
    warnings.filterwarnings("ignore", message="No ccache found")
    use_fast_cpu_settings()
    import paddle

    from squeezenet_paddle.network.model import squeezenet1_1

    network = squeezenet1_1()
    inputs, labels = random_batch(args.batch_size, args.size)
    x, y = paddle.to_tensor(inputs), paddle.to_tensor(labels)
    calls: list[tuple[str, Any, Any]] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, given, name=name: calls.append((name, layer, given[0]))
        )
        for name, layer in network.named_sublayers()
        if not list(layer.children())
    ]
    network(x)
    for hook in hooks:
        hook.remove()

    def step() -> None:
        paddle.nn.functional.cross_entropy(network(x), y).backward()
        network.clear_gradients()

    whole = median_seconds(step, args.steps)
    # Forward, backward, and what both would take without the bias.
    seconds: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for name, layer, given in calls:
        passes = time_layer(layer, given, name == "conv1", args.steps)
        without = passes
        if isinstance(layer, paddle.nn.Conv2D):
            layer.bias = None
            without = time_layer(layer, given, name == "conv1", args.steps)
        seconds[name] += (*passes, sum(without))
    seconds["all layers"] = total = sum(seconds.values(), np.zeros(3))
    rows = layer_table(ModelConfig(), args.size, args.size)
    work = {row.layer.name.replace("/", "."): row.multiply_adds for row in rows}
    print(f"{'ms':<18} forward backward  biases of both  share  Gflop/s")
    for name, (forward, backward, without) in seconds.items():
        both = forward + backward
        bias = f"{(both - without) * 1e3:.1f}" if both != without else ""
        # The two gradients take as much again each; but the image needs none.
        flops = 2 * args.batch_size * work.get(name, 0) * (2 if name == "conv1" else 3)
        rate = f"{flops / both / 1e9:.1f}" if flops else ""
        print(
            f"{name:<18} {forward * 1e3:7.1f} {backward * 1e3:8.1f} {bias:>15} "
            f"{both / total[:2].sum():6.1%} {rate:>8}"
        )
    print(f"a whole step takes {whole * 1e3:.0f} ms, {args.batch_size / whole:.1f} images/s")


def time_layer(layer: Any, given: Any, first: bool, steps: int) -> tuple[float, float]:
    """Median seconds of a layer's forward and of its backward pass."""
    import paddle

    inputs = [x.detach() for x in (given if isinstance(given, list) else [given])]
    for x in inputs:
        x.stop_gradient = first
    forward, backward = [], []
    for _ in range(steps + 1):
        start = time.perf_counter()
        output = layer(inputs if isinstance(given, list) else inputs[0])
        forward.append(time.perf_counter() - start)
        grad = paddle.ones_like(output)
        start = time.perf_counter()
        output.backward(grad)
        backward.append(time.perf_counter() - start)
        for x in inputs:
            x.clear_gradient(False)
        layer.clear_gradients()
    return statistics.median(forward[1:]), statistics.median(backward[1:])


def machine() -> str:
    """The processor, its cores that we may use, and the versions of what is compared."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [n for n in cpuinfo.read_text().splitlines() if n.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}, " + ", ".join(versions())


def versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name, package in (("PaddlePaddle", "paddlepaddle"), ("PyTorch", "torch")):
        try:
            found.append(f"{name} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
