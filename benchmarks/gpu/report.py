"""Parts of the check, what each finds, and the Markdown page of all of them. No Paddle here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).parents[2]
LIMIT = 900  # seconds of a part
VERDICTS = {True: "PASS", False: "**FAIL**", None: ""}


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        all_variants: compare every combination of the network's options, not each option once.
        train, val: images of each of the ten classes of the sample data.
        crop: their size in the network, in pixels.
        batch: images an update.
        steps: updates of the runs that are compared.
        accuracy_steps: updates of the runs that are scored.
        pixels, batches, timed: size of the images, of the batches, and steps of a timing.
        readers: numbers of reader processes.
        photographs: JPEG files that they read.
    """

    all_variants: bool = True
    train: int = 64
    val: int = 16
    crop: int = 64
    batch: int = 32
    steps: int = 50
    accuracy_steps: int = 200
    pixels: int = 227
    batches: tuple[int, ...] = (32, 256, 1024)
    timed: int = 20
    readers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    photographs: int = 1000


SMALL = Size(False, 3, 1, 36, 8, 4, 4, 49, (2,), 1, (1,), 8)


@dataclass(frozen=True)
class Check:
    """What a part is given.

    Attributes:
        device: "gpu", or "cpu" to try the check itself.
        folder: for its files.
        size: how much it does.
    """

    device: str
    folder: Path
    size: Size


@dataclass(frozen=True)
class Row:
    """A finding: `passed` is None for a figure, which nothing is expected of."""

    what: str
    found: str
    passed: bool | None = None


@dataclass(frozen=True)
class Part:
    """A part of the check, run in a process of its own.

    Attributes:
        name: on the page and for `--only`.
        run: yields what it finds.
        environment: variables of the process, such as Paddle's flags.
    """

    name: str
    run: Callable[[Check], Iterator[Row]]
    environment: Mapping[str, str] = field(default_factory=dict)


def rows_of(part: Part, check: Check) -> Iterator[Row]:
    """What a part finds; an error is a finding, too, and its last."""
    check.folder.mkdir(parents=True, exist_ok=True)
    try:
        yield from part.run(check)
    except (Exception, SystemExit) as error:
        yield Row("the part ended early", reason(f"{type(error).__name__}: {error}"), False)


def run_alone(part: Part, check: Check) -> list[Row]:
    """What a part finds in a new process, which may crash or hang; its output is kept in a file."""
    check.folder.mkdir(parents=True, exist_ok=True)
    rows, log = check.folder / "rows.jsonl", check.folder / "output.log"
    rows.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.name, str(rows)]
    command += ["--device", check.device, "--folder", str(check.folder.parent)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **part.environment}
    with log.open("wb") as output:
        process = subprocess.Popen(
            *(command,), cwd=ROOT, env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            code, how = process.wait(LIMIT), ""
        except subprocess.TimeoutExpired:
            code, how = 1, f"did not end within {LIMIT} s; "
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = rows.read_text(encoding="utf-8") if rows.exists() else ""
    found = [Row(**json.loads(line)) for line in text.splitlines()]
    if code:
        last = reason(log.read_text(encoding="utf-8", errors="replace"))
        found.append(Row("the process ended early", f"{how}exit code {code}: {last}", False))
    return found


def write_rows(part: Part, check: Check, path: Path) -> None:
    """The body of the process: a line of JSON for each finding, at once."""
    with path.open("a", encoding="utf-8") as file:
        for row in rows_of(part, check):
            file.write(f"{json.dumps(asdict(row))}\n")
            file.flush()


def reason(text: str) -> str:
    """One line for an error: the last of its text that is not a hint at Paddle's source."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("[Hint", "[operator", "--", "(at "))]
    return lines[-1][:300] if lines else "no message"


def page(results: Mapping[str, list[Row]]) -> str:
    """The findings as Markdown."""
    lines = ["| part | what | | found |", "| --- | --- | --- | --- |"]
    for name, rows in results.items():
        for i, row in enumerate(rows):
            cells = ("" if i else name, row.what, VERDICTS[row.passed], row.found)
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    failures = sum(row.passed is False for rows in results.values() for row in rows)
    passes = sum(row.passed is True for rows in results.values() for row in rows)
    return "\n".join([*lines, "", f"{passes} passed, {failures} failed.", ""])
