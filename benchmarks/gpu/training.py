"""Runs of train and what they come to: the CPU's curve, processes, mixed precision, resuming."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from squeezenet_paddle.datasets.samples import make_sample_data
from squeezenet_paddle.training import checkpoint

from .report import ROOT, Check, Row, reason

# A rounding in the last bit becomes a percent after some dozens of updates, once a value crosses
# the 0 of a ReLU; ELU has no such kink.
SMOOTH = ("--activation", "elu")
LIMIT_FIRST, LIMIT_CURVE = 1e-5, 0.02  # of the loss: of the first update, and of all
LIMIT_PROCESSES = 1e-3
LIMIT_ACCURACY = 0.1  # of top-1, below that of float32
KILLED_AFTER = 3  # updates


def sample_data(check: Check) -> Path:
    """Drawn images of ten classes."""
    folder = check.folder / "data"
    make_sample_data(folder, seed=0, train=check.size.train, val=check.size.val)
    return folder


def flags(check: Check, run: Path, device: str, *more: object, val: bool = False) -> list[str]:
    """The command line of train for a run on the sample data beside it; later flags win."""
    data, size = check.folder / "data", check.size
    lists = ["--train_list", data / "train_list.txt"]
    lists += ["--val_list", data / "val_list.txt"] if val else []
    given = (
        *(*lists, "--output_dir", run, "--device", device, "--num_workers", 0, "--num_classes", 10),
        *("--resize_size", size.crop + 4, "--crop_size", size.crop, "--batch_size", size.batch),
        *("--optimizer", "adam", "--lr", 1e-3, "--log_interval", 1),
        *("--max_steps", size.steps, *more),
    )
    return [str(value) for value in given]


def train(arguments: list[str]) -> Path:
    """Trains in this process; the directory of the run."""
    if code := import_module("squeezenet_paddle.cli.train").main(arguments):
        raise RuntimeError(f"train ended with exit code {code}")
    return Path(arguments[arguments.index("--output_dir") + 1])


def records(run: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of a kind, "train" or "val"."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(run: Path) -> np.ndarray:
    """The loss of each update."""
    return np.array([record["loss"] for record in records(run, "train")])


def weights(run: Path) -> Mapping[str, np.ndarray]:
    """Everything in the newest checkpoint of a run."""
    newest = checkpoint.load_newest(run / "checkpoints")
    assert newest is not None
    return newest.arrays


def curve(check: Check) -> Iterator[Row]:
    """A seeded run on the device and on the CPU.

    The one on the device has a reader, whose memory is overwritten from batch to batch: a copy to
    the device that comes too late shows here.
    """
    sample_data(check)
    found, expected = (
        losses(train(flags(check, check.folder / name, device, *SMOOTH, "--num_workers", readers)))
        for name, device, readers in (("device", check.device, 1), ("cpu", "cpu", 0))
    )
    off = np.abs(found - expected) / expected
    yield Row("loss of the first update", f"differs by {off[0]:.1e}", bool(off[0] < LIMIT_FIRST))
    yield Row(
        f"loss of {len(off)} updates",
        f"differs by {off.max():.1e} at most; {expected[0]:.3f} to {expected[-1]:.3f} on the CPU, "
        f"to {found[-1]:.3f} on the {check.device}",
        bool(off.max() < LIMIT_CURVE),
    )


def processes(check: Check) -> Iterator[Row]:
    """One process against two on one device, and against one on each GPU."""
    import paddle

    sample_data(check)
    arguments = (*SMOOTH, "--optimizer", "momentum", "--lr", 2e-3, "--clip_norm", 20)
    expected = losses(train(flags(check, check.folder / "one", check.device, *arguments)))

    def row(what: str, run: Path) -> Row:
        off = float((np.abs(losses(run) - expected) / expected).max())
        return Row(what, f"loss differs by {off:.1e} at most", off < LIMIT_PROCESSES)

    what, run = f"2 processes on one {check.device}", check.folder / "two"
    failure = _run_by_hand(flags(check, run, check.device, *arguments), 2)
    if failure and check.device == "gpu":
        yield Row(what, f"not possible here: {failure}")
    elif failure:
        yield Row(what, failure, False)
    else:
        yield row(what, run)
    count = paddle.device.cuda.device_count() if check.device == "gpu" else 0
    if count > 1:
        run = check.folder / "gpus"
        _finish(_start(flags(check, run, "gpu", *arguments, "--num_gpus", count)))
        yield row(f"{count} processes on {count} GPUs", run)
    elif check.device == "gpu":
        yield Row("a process on each GPU", "there is one GPU")


def _run_by_hand(arguments: list[str], count: int) -> str:
    """Runs processes that share a device, as no launcher starts them; what failed, or ""."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    job = {"PADDLE_TRAINERS_NUM": str(count), "PADDLE_MASTER": f"127.0.0.1:{port}"}
    running = [
        _start(arguments, {**job, "PADDLE_TRAINER_ID": str(rank), "FLAGS_selected_gpus": "0"})
        for rank in range(count)
    ]
    try:
        for process in running:
            _finish(process)
    except RuntimeError as error:
        return str(error)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return ""


def _start(
    arguments: list[str], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "squeezenet_paddle", "train", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen[str]) -> None:
    _, text = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {reason(text)}")


def mixed_precision(check: Check) -> Iterator[Row]:
    """The accuracy of both levels and both types beside that of float32."""
    sample_data(check)
    common = ("--max_steps", check.size.accuracy_steps, "--eval_interval", check.size.steps)

    def top1(name: str, *more: object) -> tuple[float, Path]:
        arguments = flags(check, check.folder / name, check.device, *common, *more, val=True)
        run = train(arguments)
        return max(record["top1"] for record in records(run, "val")), run

    float32, _ = top1("float32")
    yield Row("float32", f"top-1 {float32:.1%}")
    for level in ("O1", "O2"):
        for dtype in ("float16", "bfloat16"):
            name = f"{level}, {dtype}"
            try:
                found, run = top1(f"{level}_{dtype}", "--amp", level, "--amp_dtype", dtype)
            except Exception as error:  # the other types may work
                refused = check.device == "cpu" and "mixed precision needs a GPU" in str(error)
                yield Row(name, reason(str(error)), None if refused else False)
                continue
            newest = checkpoint.load_newest(run / "checkpoints")
            scale = None if newest is None else newest.record["loss_scale"]
            scaled = "" if scale is None else f", loss scale {scale['value']:g}"
            finite = bool(np.isfinite(losses(run)).all())
            yield Row(
                name,
                f"top-1 {found:.1%}{scaled}, {'no' if finite else 'a'} loss that is not finite",
                finite and found > float32 - LIMIT_ACCURACY,
            )


def resume(check: Check) -> Iterator[Row]:
    """A run that is killed and goes on, against one that is not, bit for bit."""
    sample_data(check)
    common = ("--save_interval", 1, "--lr_policy", "constant")
    killed = check.folder / "killed"
    process = _start(flags(check, killed, check.device, *common, "--max_steps", 10**6))
    try:
        while _steps(killed) < KILLED_AFTER:
            if process.poll() is not None:
                _finish(process)
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    last, whole = _steps(killed) + KILLED_AFTER, check.folder / "whole"
    for run in (killed, whole):
        # Each in a process of its own: on a CPU a second run in one has other last bits.
        _finish(_start(flags(check, run, check.device, *common, "--max_steps", last)))
    found, expected = weights(killed), weights(whole)
    differing = [key for key in expected if not np.array_equal(found[key], expected[key])]
    yield Row(
        f"killed after update {last - KILLED_AFTER}, resumed to {last}",
        f"{len(expected) - len(differing)} of {len(expected)} arrays are the same bit for bit",
        not differing,
    )


def _steps(run: Path) -> int:
    """Updates that a run has saved."""
    folder = run / "checkpoints"
    files = folder.glob("step_*.ckpt") if folder.is_dir() else ()
    return max((int(path.stem[5:]) for path in files), default=0)
