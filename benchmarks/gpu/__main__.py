"""Checks everything that may differ on a GPU, and writes a page of Markdown.

    make gpu-check
    python -m benchmarks.gpu --output gpu-check.md
    python -m benchmarks.gpu --device cpu --only gradients resume

Each part runs in a process of its own, so that one that fails, crashes or hangs is a line of the
page and the next one still runs. The exit code is 1 if anything failed. With `--device cpu` every
part runs with small numbers, to try the check itself.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from squeezenet_paddle.files import write_text
from squeezenet_paddle.process_settings import use_fast_cpu_settings

from . import machine, numbers, speed, training, usage
from .report import SMALL, Check, Part, Row, Size, page, run_alone, write_rows

FLOAT32 = {"NVIDIA_TF32_OVERRIDE": "0"}
SAME_BITS = {**FLOAT32, "FLAGS_cudnn_deterministic": "1"}


def parts(size: Size) -> list[Part]:
    """The parts in their order."""
    timings = [
        Part(f"speed, batch {batch}, {name}", partial(speed.training, batch=batch, way=name))
        for batch in size.batches
        for name in speed.WAYS
    ]
    return [
        Part("machine", machine.machine),
        Part("gradients", partial(numbers.against_cpu, exact=True), FLOAT32),
        Part("gradients, TF32 allowed", partial(numbers.against_cpu, exact=False)),
        Part("curve", training.curve, SAME_BITS),
        Part("processes", training.processes, SAME_BITS),
        Part("mixed precision", training.mixed_precision),
        Part("resume", training.resume, SAME_BITS),
        Part("usage", usage.usage, FLOAT32),
        *timings,
        Part("readers", speed.readers),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="(default: gpu)")
    parser.add_argument(
        "--output", type=Path, default=Path("gpu-check.md"), help="(default: gpu-check.md)"
    )
    parser.add_argument("--folder", type=Path, help="for its files (default: a temporary one)")
    parser.add_argument("--only", nargs="+", metavar="PART", help="(default: all parts)")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)  # the body of a process
    args = parser.parse_args(argv)
    size = Size() if args.device == "gpu" else SMALL
    by_name = {part.name: part for part in parts(size)}

    def check(name: str) -> Check:
        return Check(args.device, args.folder / name.replace(", ", "_").replace(" ", "_"), size)

    if args.part is not None:
        use_fast_cpu_settings()
        name, rows = args.part
        write_rows(by_name[name], check(name), Path(rows))
        return 0
    if unknown := set(args.only or ()) - set(by_name):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(by_name)}")
    temporary = None
    if args.folder is None:
        temporary = tempfile.TemporaryDirectory(prefix="gpu_check.")
        args.folder = Path(temporary.name)
    args.folder = args.folder.resolve()
    results: dict[str, list[Row]] = {}
    for name in args.only or by_name:
        results[name] = run_alone(by_name[name], check(name))
        for row in results[name]:
            verdict = {True: "PASS", False: "FAIL", None: "    "}[row.passed]
            print(f"{verdict} {name}: {row.what}: {row.found}", flush=True)
        write_text(args.output.absolute(), page(results))  # what is known, whatever comes
    if temporary is not None:
        temporary.cleanup()
    print(f"{platform.node()}: the page is {args.output}")
    return int(any(row.passed is False for rows in results.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
