"""Time and memory of converting a Caffe file, beyond what importing Paddle takes.

    python benchmarks/convert.py --caffemodel pretrained/squeezenet_v1.1.caffemodel

prints seconds and megabytes of both, and the difference.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TOOL = Path(__file__).parent.parent / "tools" / "caffe2paddle.py"
# A process of its own: it prints its seconds and its peak memory in MB.
MEASURE = """
import resource, runpy, sys, time, warnings
warnings.filterwarnings("ignore")
start = time.perf_counter()
try:
    {what}
except SystemExit as ended:
    assert not ended.code, ended.code
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - start, peak)
"""


def measure(what: str, arguments: list[str], repeat: int) -> tuple[float, float]:
    """Median seconds and megabytes of a statement in a new process."""
    runs = []
    for _ in range(repeat):
        command = [sys.executable, "-c", MEASURE.format(what=what), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak = done.stdout.split()[-2:]
        runs.append((float(seconds), float(peak)))
    return statistics.median(r[0] for r in runs), statistics.median(r[1] for r in runs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--caffemodel", type=Path, required=True, help="the file (required)")
    parser.add_argument("--repeat", type=int, default=5, help="runs, of which the median counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--caffemodel", str(args.caffemodel), "--output_dir", f"{folder}/model"]
        rows = {
            "import paddle": measure("import paddle", [], args.repeat),
            "caffe2paddle.py": measure(
                f"runpy.run_path({str(TOOL)!r}, run_name='__main__')", arguments, args.repeat
            ),
        }
    megabytes = args.caffemodel.stat().st_size / 1e6
    print(f"{args.caffemodel.name}, {megabytes:.1f} MB, median of {args.repeat} runs")
    for name, (seconds, peak) in rows.items():
        print(f"  {name:<18} {seconds:6.2f} s {peak:7.0f} MB")
    (paddle_s, paddle_mb), (tool_s, tool_mb) = rows.values()
    print(f"  {'beyond Paddle':<18} {tool_s - paddle_s:6.2f} s {tool_mb - paddle_mb:7.0f} MB")


if __name__ == "__main__":
    main()
