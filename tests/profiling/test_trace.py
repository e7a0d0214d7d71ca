"""Traces of steps: what is in the file, the table of operators, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paddle
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.profiling.trace import Operator, Trace, _operators

CONVOLUTIONS = 26  # of either version


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace") / "model"
    config = ModelConfig(num_classes=3)
    paddle.seed(0)
    info = ModelInfo(config, Preprocess(resize_size=40, crop_size=33))
    write_model_dir(folder, info, SqueezeNet(config).state_dict())
    return folder


def event(thread: str, name: str, start: float, end: float, cat: str = "Operator") -> Any:
    """As Paddle writes it; times in microseconds."""
    span = {"start_time": f"{start:.3f} us", "end_time": f"{end:.3f} us"}
    # The fraction of "ts" is cut off, so that by it neighbours would overlap.
    return {
        **{"name": f"{name} dygraph[{end - start:.3f} us]", "ph": "X", "pid": 1, "tid": thread},
        **{"ts": int(start), "dur": end - start, "cat": cat, "args": span},
    }


def test_operators_by_hand() -> None:
    events = [
        event("1", "layer", 1000.2, 4000.9),  # calls two
        event("1", "conv2d", 1000.3, 2000.3),
        event("1", "relu", 2000.4, 2100.4),
        event("1", "relu", 4000.95, 4100.95),  # after it
        event("2", "conv2d", 500.0, 6500.0),  # beside it
        event("2", "conv2d", 500.0, 6500.0, cat="OperatorInner"),
        {"name": "process_name", "ph": "M", "pid": 1, "tid": "1", "args": {"name": "p"}},
    ]
    operators = _operators(events)
    assert [each.name for each in operators] == ["conv2d", "layer", "relu"]
    assert [each.calls for each in operators] == [2, 1, 2]
    assert [each.milliseconds for each in operators] == pytest.approx([7.0, 1.9007, 0.2])
    assert sum(each.share for each in operators) == pytest.approx(1)


def test_summary_and_table_by_hand() -> None:
    trace = Trace([3.0, 1.0, 2.5], [Operator("conv2d", 4, 6.0, 0.75), Operator("relu", 2, 2, 0.25)])
    assert trace.summary() == {"steps": 3, "min_ms": 1.0, "median_ms": 2.5, "max_ms": 3.0}
    lines = trace.table().splitlines()
    assert lines[1].split() == ["conv2d", "4", "6.00", "1.500", "75.0%"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("what", ["inference", "train"])
def test_a_trace(what: str, model_dir: Path, run_tool: Run, tmp_path: Path) -> None:
    which = ("--model_dir", model_dir) if what == "inference" else ("--train",)
    done = run_tool(
        *("trace", *which, "--batch_size", 2, "--steps", 2, "--threads", 2),
        *("--output", tmp_path / "new" / "t.json"),
    )
    assert done.returncode == 0, done.stderr
    first, _, *table = done.stdout.splitlines()
    summary = json.loads(first)
    assert (summary["what"], summary["steps"]) == (what, 2)
    assert 0 < summary["min_ms"] <= summary["median_ms"] <= summary["max_ms"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["t.json"]
    events = json.loads((tmp_path / "new" / "t.json").read_text())["traceEvents"]
    spans = [each for each in events if each["ph"] == "X"]
    assert all(each["dur"] >= 0 and each["ts"] > 0 for each in spans)
    convolutions = [
        each["tid"]
        for each in spans
        if each["cat"] == "Operator" and each["name"].startswith("conv2d ")
    ]
    # Two threads take an image each, or one that is fast takes both; what ran before the first step
    # is not there.
    assert len(convolutions) == CONVOLUTIONS * 2 * 2
    assert len(set(convolutions)) <= 2
    calls = {line.split()[0]: int(line.split()[1]) for line in table}
    assert calls["conv2d"] == CONVOLUTIONS * 2 * 2
    backward = [name for name in calls if "Conv2dGrad" in name]
    assert len(backward) == (1 if what == "train" else 0)


def test_what_is_refused(model_dir: Path, call_tool: Run, tmp_path: Path) -> None:
    for parts, arguments in (
        (["--model_dir", "--train"], ()),
        (["not allowed with"], ("--train", "--model_dir", model_dir)),
        ([str(tmp_path / "none")], ("--model_dir", tmp_path / "none")),
        ([str(tmp_path), "directory"], ("--train", "--output", tmp_path)),
        (["--steps"], ("--train", "--steps", 0)),
    ):
        assert_user_error(call_tool("trace", *arguments), *parts)
