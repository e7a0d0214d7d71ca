"""Kill commands at random moments, let them finish, and compare with what was never killed.

    python tests/kill_many.py --count 1000

Every command is killed (SIGKILL) after a random time, again and again in the same place, then run
to its end; what it leaves must equal, bit for bit, what an uninterrupted run leaves. Prints a line
for each command: kills, runs that were finished after them, how many of these were identical,
and temporary files and processes that were left. Networks and images are small.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from killed import alive
from runs import finetune_flags, flags, make_image_folder, make_pretrained, make_tiny_data, tool

from squeezenet_paddle.temporaries import leftovers

KILLS = 5  # in one place, before the command is let to its end
FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ("training.trainer", "cli.finetune", "cli.export", "cli.compress")
FORKS.set_forkserver_preload([f"squeezenet_paddle.{name}" for name in PRELOADED])
# Of a record of training or validation: what depends on the speed of the machine.
TIMES = ("time", "seconds", "images_per_second", "reader_wait", "seconds_left")


@dataclass(frozen=True)
class Subject:
    """A command, and what of its output is compared.

    Attributes:
        name: for the table.
        arguments: of the command, by the folder it works in.
        result: what it has left there, by name.
        prepare: puts into the folder what the command starts from.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], dict[str, str]]
    prepare: Callable[[Path], object] = str


def hashes(folder: Path, *patterns: str) -> dict[str, str]:
    """The SHA-256 of files below a folder, by their path."""
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(files)
    }


def run_result(folder: Path) -> dict[str, str]:
    """Weights, scores and the names of all files of a run; features by their size."""
    run = folder / "run"
    found = hashes(folder, "run/*/model.pdparams", "run/*_list.txt", "run/images.json")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = {k: v for k, v in json.loads(line).items() if k not in TIMES}
        found[f"metrics {record['kind']} {record['step']}"] = json.dumps(record)
    names = [str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()]
    return {**found, **dict.fromkeys(names, "is there"), **found}


def subjects(base: Path) -> list[Subject]:
    """The commands, on data that is made below a folder."""
    data = make_tiny_data(base / "data")
    images = make_image_folder(base / "images")
    model = make_pretrained(base / "model")
    lists = [str(data / f"{part}_list.txt") for part in ("train", "val")]
    compress = ("--max_loss", "50", "--num_images", "8", "--num_workers", "0")
    tuning = ("--no_check", "--num_epochs", "4")
    return [
        Subject(
            "train",
            lambda folder: [
                "train",
                *flags(data, folder / "run", "--max_steps", 30, "--save_interval", 3),
                *("--eval_interval", "7", "--ema_decay", "0.9", "--num_workers", "1"),
            ],
            run_result,
        ),
        Subject(
            "finetune",
            lambda folder: ["finetune", *finetune_flags(images, model, folder / "run", *tuning)],
            run_result,
        ),
        Subject(
            "features of check_images",
            lambda folder: [
                "check_images",
                *("--images", str(images), "--pretrained", str(model), "--num_workers", "0"),
                *("--output_dir", str(folder / "run")),
            ],
            lambda folder: hashes(folder, "run/check.csv", "run/features/*.f16"),
        ),
        Subject(
            "prepare_images",
            lambda folder: [
                *("prepare_images", "--list", *lists, "--output_dir", str(folder / "run")),
                *("--resize_size", "200", "--format", "png", "--num_workers", "2"),
            ],
            lambda folder: hashes(folder, "run/**/*.png", "run/*_list.txt"),
        ),
        Subject(
            "make_sample_data",
            lambda folder: [
                *("make_sample_data", "--output_dir", str(folder / "run")),
                *("--train_images", "3", "--val_images", "1", "--seed", "5"),
            ],
            lambda folder: hashes(folder, "run/**/*"),
            lambda folder: make_tiny_data(folder / "run"),
        ),
        Subject(
            "export",
            lambda folder: ["export", "--model_dir", str(folder / "run"), "--format", "onnx"],
            lambda folder: hashes(folder, "run/*"),
            lambda folder: shutil.copytree(model, folder / "run"),
        ),
        Subject(
            "compress",
            lambda folder: [
                *("compress", "--model_dir", str(model), "--image", str(images), *compress),
                *("--output_dir", str(folder / "run")),
            ],
            lambda folder: hashes(folder, "run/*"),
        ),
    ]


def _run(arguments: list[str], log: str) -> None:
    """The body of a process that runs a command."""
    os.setsid()
    with open(log, "ab") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        code = tool(arguments[0]).main(arguments[1:])
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
        raise
    sys.exit(code or 0)


def start(arguments: list[str], log: Path) -> Any:
    process = FORKS.Process(target=_run, args=(arguments, str(log)))
    process.start()
    return process


def rounds(
    subject: Subject, base: Path, rng: random.Random
) -> Iterator[tuple[int, bool, int, int]]:
    """Kills a command some times and finishes it, again and again.

    Yields:
        kills, whether the result is that of an uninterrupted run, temporary files left in the
        end, and processes left two seconds after a kill.
    """
    place, log = base / "whole", base / "log"
    place.mkdir(parents=True)
    subject.prepare(place)
    begin = time.monotonic()
    process = start(subject.arguments(place), log)
    process.join()
    seconds = time.monotonic() - begin
    if process.exitcode != 0:
        raise RuntimeError(f"{subject.name}: {log.read_text()}")
    expected = subject.result(place)
    while True:
        place = base / "killed"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        subject.prepare(place)
        kills = left = 0
        while kills < KILLS:
            begin = time.monotonic()
            process = start(subject.arguments(place), log)
            process.join(rng.uniform(0, 1.1 * seconds))
            if process.exitcode is not None:  # done before it could be killed
                seconds = min(seconds, time.monotonic() - begin)  # the first one loads Paddle
                if subject.name not in ("make_sample_data", "export", "compress"):
                    break
                continue
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            until = time.monotonic() + 2
            while alive(process.pid) and time.monotonic() < until:
                time.sleep(0.02)
            left += len(alive(process.pid))
        process = start(subject.arguments(place), log)
        process.join()
        same = process.exitcode == 0 and subject.result(place) == expected
        if not same:
            print(f"{subject.name}: {log.read_text()[-2000:]}", file=sys.stderr)
            found = subject.result(place) if process.exitcode == 0 else {}
            for key in sorted({*found, *expected}):
                if found.get(key) != expected.get(key):
                    print(key, found.get(key), expected.get(key), file=sys.stderr)
        yield kills, same, len(leftovers(place, below=True)), left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="kills of all commands together")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="commands by name")
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        chosen = [s for s in subjects(base) if args.only is None or s.name in args.only]
        running = [rounds(s, base / s.name.replace(" ", "_"), rng) for s in chosen]
        totals = {subject.name: [0, 0, 0, 0, 0] for subject in chosen}
        while sum(row[0] for row in totals.values()) < args.count and time.monotonic() < end:
            for subject, each in zip(chosen, running):
                kills, same, temporary, processes = next(each)
                row = totals[subject.name]
                for i, value in enumerate((kills, 1, same, temporary, processes)):
                    row[i] += value
                if time.monotonic() > end:
                    break
    columns = ("kills", "finished", "identical", "files left", "processes left")
    print(f"{'command':26}" + "".join(f"{column:>15}" for column in columns))
    totals["all"] = [sum(row[i] for row in totals.values()) for i in range(5)]
    for name, row in totals.items():
        print(f"{name:26}" + "".join(f"{value:15,}" for value in row))
    finished, same, *left = totals["all"][1:]
    return 0 if finished == same and not any(left) else 1


if __name__ == "__main__":
    sys.exit(main())
