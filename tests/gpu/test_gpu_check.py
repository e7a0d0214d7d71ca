"""The check of a GPU: every part on the CPU with small numbers, and on a GPU where there is one."""

from __future__ import annotations

from pathlib import Path

import paddle
import pytest

from benchmarks.gpu.__main__ import main, parts
from benchmarks.gpu.report import SMALL, Check, Part, Row, Size, page, rows_of, run_alone

pytestmark = pytest.mark.usefixtures("blank_figures")

HAS_GPU = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="Paddle finds no GPU on this machine")


# Without a GPU there is no TF32 to be allowed.
ON_CPU = [part for part in parts(SMALL) if "TF32" not in part.name]


@pytest.mark.parametrize("part", ON_CPU, ids=lambda part: part.name)
def test_every_part_runs_on_the_cpu(part: Part, tmp_path: Path) -> None:
    rows = list(rows_of(part, Check("cpu", tmp_path, SMALL)))
    assert rows
    assert [row for row in rows if row.passed is False] == []


@needs_gpu
@pytest.mark.parametrize("part", parts(Size()), ids=lambda part: part.name)
def test_every_part_passes_on_a_gpu(part: Part, tmp_path: Path) -> None:
    rows = run_alone(part, Check("gpu", tmp_path / part.name, Size()))
    assert rows
    assert [row for row in rows if row.passed is False] == []


def test_a_part_that_fails_is_a_line_and_the_next_one_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if HAS_GPU:
        pytest.skip("this machine has a GPU, so that the part passes")
    output = tmp_path / "page.md"
    names = ("machine", "speed, batch 32, PyTorch")
    arguments = ["--device", "gpu", "--output", str(output), "--folder", str(tmp_path / "work")]
    assert main([*arguments, "--only", *names]) == 1
    text = output.read_text(encoding="utf-8")
    [failed] = [line for line in text.splitlines() if "FAIL" in line]
    assert "`device` gpu: Paddle finds 0 GPUs on this machine." in failed
    assert f"\n| {names[1]} | images/s |" in text
    assert text.endswith("\n0 passed, 1 failed.\n")
    assert "FAIL machine: " in capsys.readouterr().out


def test_a_process_that_dies_is_a_line(tmp_path: Path) -> None:
    """A crash in CUDA ends the process; here it is a part that the process does not know."""
    part = Part("no such part", lambda check: iter(()))
    [row] = run_alone(part, Check("cpu", tmp_path / "part", SMALL))
    assert row.passed is False
    assert "exit code 1: KeyError: 'no such part'" in row.found


def test_the_page() -> None:
    rows = {"one": [Row("a", "1|2", True), Row("b", "3")], "two": [Row("c", "4", False)]}
    assert page(rows).splitlines()[2:] == [
        "| one | a | PASS | 1/2 |",
        "|  | b |  | 3 |",
        "| two | c | **FAIL** | 4 |",
        "",
        "1 passed, 1 failed.",
    ]
