"""The log of a training run on the console, in train.log and in metrics.jsonl."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from terminal import lines_left, shown_on_a_terminal

from squeezenet_paddle.errors import RunError
from squeezenet_paddle.training.curves import write_curves
from squeezenet_paddle.training.log import (
    RunLog,
    TrainRecord,
    ValRecord,
    append,
    duration,
    read_metrics,
)

TRAIN = TrainRecord(
    step=120,
    epoch=3.25,
    loss=2.30123,
    top1=0.4531,
    lr=0.0398,
    images_per_second=120.34,
    reader_wait=0.012,
    seconds_left=3723.4,
)
VALIDATION = ValRecord(
    step=120, epoch=3.25, loss=1.5, top1=0.5, top5=0.875, images=176, best=True, seconds=6.4
)

# Of a program that records as this module does.
FOLDERS = [str(folder) for folder in Path(__file__).parents[:2]]
IMPORTS = f"import sys; sys.path[:0] = {FOLDERS}; from test_log import *\n"


def at(step: int) -> TrainRecord:
    return dataclasses.replace(TRAIN, step=step)


def steps(folder: Path) -> list[int]:
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_lines_on_console_and_in_train_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLog(tmp_path / "run", max_steps=5000) as log:
        log.train(TRAIN)
        log.validation(VALIDATION)
        log.validation(dataclasses.replace(VALIDATION, step=1300, best=False))
        log.message("two\nlines")
    expected = [
        "epoch 3.25  step  120/5000  loss 2.3012  top-1 45.31%  lr 0.0398     120.3 images/s  "
        "reader wait 1.2%  ETA 1:02:03",
        "epoch 3.25  step  120/5000  validation loss 1.5000  top-1 50.00%  top-5 87.50%  "
        "176 images  6.4 s  best so far",
        "epoch 3.25  step 1300/5000  validation loss 1.5000  top-1 50.00%  top-5 87.50%  "
        "176 images  6.4 s",
        "two",
        "lines",
    ]
    shown = capsys.readouterr()
    assert shown.err.splitlines() == expected  # no bar and no escape codes: this is no terminal
    assert shown.out == ""
    written = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in written)
    assert [line[21:] for line in written] == expected


def test_records_for_programs(tmp_path: Path) -> None:
    before = time.time()
    with RunLog(tmp_path, max_steps=5000) as log:
        log.train(TRAIN)
        log.validation(VALIDATION)
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()  # written at once
    train, val = map(json.loads, lines)
    assert before - 1 < train.pop("time") <= val.pop("time") < time.time() + 1
    assert train == {"kind": "train", **dataclasses.asdict(TRAIN)}
    assert val == {"kind": "val", **dataclasses.asdict(VALIDATION)}


def test_no_number_is_null(tmp_path: Path) -> None:
    """JSON knows neither NaN nor infinity; a strict reader must be able to read every line."""
    with RunLog(tmp_path, max_steps=5000) as log:
        log.train(dataclasses.replace(TRAIN, loss=float("nan"), seconds_left=float("inf")))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert record["loss"] is None
    assert record["seconds_left"] is None
    assert "loss nan" in (tmp_path / "train.log").read_text()


def test_resume_has_each_point_once(tmp_path: Path) -> None:
    with RunLog(tmp_path, max_steps=50) as log:
        for step in (10, 20, 30, 40):
            log.train(at(step))
    with RunLog(tmp_path, max_steps=50, start_step=20) as log:
        assert steps(tmp_path) == [10, 20]
        log.train(at(30))
    assert steps(tmp_path) == [10, 20, 30]
    assert len((tmp_path / "train.log").read_text().splitlines()) == 5  # a history: all of it


def test_start_drops_all(tmp_path: Path) -> None:
    """A run killed before its first checkpoint starts anew, its evaluation at step 0 included."""
    for _ in range(2):
        with RunLog(tmp_path, max_steps=50) as log:
            log.validation(dataclasses.replace(VALIDATION, step=0))
            log.train(at(10))
    assert steps(tmp_path) == [0, 10]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_line_cut_off(tmp_path: Path, cut: int) -> None:
    """Cutting off the line end only, the closing brace too, or half of the line."""
    with RunLog(tmp_path, max_steps=50) as log:
        log.train(at(10))
        log.train(at(20))
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    kept = [10, 20] if cut == 1 else [10]
    assert steps(tmp_path) == kept
    with RunLog(tmp_path, max_steps=50, start_step=20) as log:
        log.train(at(30))
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [*kept, 30]


def test_lines_that_are_no_records_are_left_out(tmp_path: Path) -> None:
    good = json.dumps({"kind": "val", **dataclasses.asdict(VALIDATION)})
    bad = [
        *("\xff", "", "[1]", '"step"', '{"kind": "val"}', '{"step": 5, "kind": "val"}'),
        *(good.replace("120", text) for text in ('"a"', "null", "1.5", "[1]")),
        *(good.replace('"val"', text) for text in ("[]", "{}", '"other"')),
        good.replace("0.875", '"0.875"'),
        "[" * 100_000,
    ]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join([*bad, good]).encode("latin-1"))
    assert steps(tmp_path) == [120]
    assert read_metrics(tmp_path / "none") == []


def test_any_flipped_bit_costs_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A resume goes on with what can be read, and what is read can be plotted."""
    with RunLog(tmp_path, max_steps=50) as log:
        log.train(at(10))
        log.validation(dataclasses.replace(VALIDATION, step=10))
        log.train(at(20))
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    for position, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        file.write_bytes(damaged)
        records = read_metrics(file)
        assert len(records) >= (1 if whole[position] == ord("\n") else 2)
        for record in records:
            fields = dataclasses.fields(TRAIN if record["kind"] == "train" else VALIDATION)
            np.array([record[field.name] for field in fields], float)
        if (position, bit) in ((0, 0), (40, 1)):  # the braces of a line; a digit's neighbour
            caplog.clear()
            RunLog(tmp_path, max_steps=50, start_step=20).close()
            message = f"{file}: 1 of its 3 lines are damaged or cut off and were left out."
            assert caplog.messages == [message]
            assert len(read_metrics(file)) == 2
            write_curves(tmp_path)


def test_untouched_file_is_not_rewritten(tmp_path: Path) -> None:
    with RunLog(tmp_path, max_steps=50) as log:
        log.train(at(10))
    (tmp_path / ".a1b2c3d4.sqz-tmp").touch()  # of a process that was killed
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    RunLog(tmp_path, max_steps=50, start_step=10).close()
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "train.log"]


def test_kill_leaves_whole_lines(tmp_path: Path) -> None:
    """kill -9 of a process that records without end."""
    code = IMPORTS + "log = RunLog(Path(sys.argv[1]), 50)\nwhile True: log.train(TRAIN)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )
    file = tmp_path / "metrics.jsonl"
    deadline = time.time() + 600
    while not (file.exists() and file.stat().st_size > 100_000):
        assert time.time() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    data = file.read_bytes()
    assert data.endswith(b"}\n")
    assert all(json.loads(line)["step"] == 120 for line in data.splitlines())


def test_appends_what_a_first_write_leaves_over() -> None:
    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data[:3]))

    file = Slow()
    append(file, b"ten bytes!")
    assert file.getvalue() == b"ten bytes!"


def test_full_disk_names_the_file(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "train.log").symlink_to(full)
    with RunLog(tmp_path, max_steps=50) as log:
        with pytest.raises(RunError, match=r"train\.log: cannot be written \(No space left"):
            log.message("hello")


def test_bar_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal the bar stands below the lines, and no line is broken by it."""
    code = (
        IMPORTS + "with RunLog(Path(sys.argv[1]), 50, start_step=5) as log:\n"
        "    for step in range(6, 51):\n"
        "        log.tick(step)\n"
        "        if step % 10 == 0: log.train(at(step))\n"
    )
    shown = shown_on_a_terminal(code, tmp_path, columns=150)
    assert b"50/50 " in shown  # the bar's last state
    assert b"| 5/50 " in shown.split(b"epoch")[0]  # it began where the run was resumed
    assert sum(line.startswith(b"epoch 3.25  step ") for line in lines_left(shown)) == 5


def test_durations() -> None:
    assert duration(0.4) == "0:00:00"
    assert duration(59.6) == "0:01:00"
    assert duration(3723) == "1:02:03"
    assert duration(2 * 86400 + 3723) == "2d 01:02:03"
    assert duration(float("nan")) == "?"


def test_import_is_cheap() -> None:
    code = (
        "import sys\nfrom squeezenet_paddle.training import curves, log\n"
        "from squeezenet_paddle.training.visualdl import board\n"
        "print([m for m in ('paddle', 'visualdl', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
