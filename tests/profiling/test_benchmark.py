"""Benchmarks: numbers computed by hand, a whole run, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.profiling import benchmark
from squeezenet_paddle.profiling.benchmark import NotRun, Row, Task, pairs


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    config = ModelConfig(num_classes=3)
    paddle.seed(0)
    info = ModelInfo(config, Preprocess(resize_size=40, crop_size=33))
    write_model_dir(folder / "model", info, SqueezeNet(config).state_dict())
    for i in range(5):
        image = np.full((50, 60, 3), 40 * i, "uint8")
        (folder / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return folder / "model"


def test_a_row_by_hand() -> None:
    times = tuple(float(n) for n in np.random.default_rng(0).permutation(101))  # 0..100
    row = Row("dynamic", "float32", "forward", 4, times, 4)
    assert [row.percentile(share) for share in (50, 90, 99)] == [50, 90, 99]
    assert row.images_per_second == 80  # 4 in 50 ms
    assert str(row).split()[2:] == ["forward", "4", "50.00", "90.00", "99.00", "80.0"]
    files = Row("dynamic", "float32", "files", 4, (2000.0, 1000.0, 4000.0), 300)
    assert str(files).split() == ["dynamic", "float32", "files", "4", "150.0"]
    assert len(str(row)) == len(str(files)) == len(benchmark.HEADER)


def test_pairs_keep_what_an_engine_has() -> None:
    found = pairs(["openvino", "dynamic"], ["float32", "int8"])
    assert found == [("openvino", "float32"), ("openvino", "int8"), ("dynamic", "float32")]
    with pytest.raises(InputError, match="`precision` int8: none .* dynamic has float32"):
        pairs(["dynamic", "paddle"], ["int8"])


def test_an_engine_that_cannot_run_says_why(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "use_fast_cpu_settings", lambda: None)
    monkeypatch.setattr(benchmark, "is_installed", lambda name: True)
    monkeypatch.setattr(benchmark, "computes_bfloat16", lambda: False)
    found = benchmark._measure_here(Task(model_dir, "openvino", "bfloat16"))
    assert found == NotRun("openvino", "bfloat16", "this processor has no such instructions.")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = benchmark._measure_here(Task(model_dir, "openvino"))
    assert isinstance(found, NotRun)
    assert "not installed" in found.reason
    assert str(found).startswith("openvino     float32   not run: ")


def die(task: Task) -> None:
    os._exit(3)


def test_an_engine_that_kills_its_process_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "_measure_here", die)
    found = benchmark.measure(Task(Path("anywhere"), "paddle"))
    assert found == NotRun("paddle", "float32", "its process died.")


def test_a_run(model_dir: Path, run_tool: Run, tmp_path: Path) -> None:
    done = run_tool(
        *("benchmark", "--model_dir", model_dir, "--engine", "dynamic", "onnxruntime"),
        *("--precision", "float32", "int8"),
        *("--batch_size", 1, 3, "--repeat", 2, "--threads", 1, "--num_workers", 0),
        *("--image", model_dir.parent / "*.png", "--json", tmp_path / "b.json"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads((tmp_path / "b.json").read_text())
    rows = report["rows"]
    assert [(r["engine"], r["what"], r["batch_size"], r["images"], r["runs"]) for r in rows] == [
        (engine, *row)
        for engine in ("dynamic", "onnxruntime")
        for row in (("forward", 1, 1, 2), ("forward", 3, 3, 2), ("files", 3, 5, benchmark.PASSES))
    ]
    for row in rows:
        assert 0 < row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["images_per_second"] == pytest.approx(row["images"] / row["median_ms"] * 1e3)
    assert report["machine"]["threads"] == 1
    assert report["machine"]["versions"]["numpy"] == np.__version__
    [missing] = report["not_run"]
    assert (missing["engine"], missing["precision"]) == ("onnxruntime", "int8")
    assert "--precision int8" in missing["reason"]
    lines = done.stdout.splitlines()
    at = lines.index(benchmark.HEADER) + 1
    assert [line.split()[:4] for line in lines[at:-1]] == [
        [r["engine"], r["precision"], r["what"], str(r["batch_size"])] for r in rows
    ]
    assert lines[-1].split()[:4] == ["onnxruntime", "int8", "not", "run:"]
    assert np.__version__ in done.stdout
    assert "5 images, 0 reader processes" in done.stdout


def test_what_is_refused(model_dir: Path, call_tool: Run, tmp_path: Path) -> None:
    model = ("--model_dir", model_dir)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8")
    for parts, arguments in (
        (["--engine", "'mxnet'", "onnxruntime"], (*model, "--engine", "mxnet")),
        (
            ["--precision int8", "dynamic has"],
            (*model, "--engine", "dynamic", "--precision", "int8"),
        ),
        ([str(tmp_path / "none")], ("--model_dir", tmp_path / "none")),
        ([str(tmp_path), "directory"], (*model, "--json", tmp_path)),
        (["--data_dir"], (*model, "--data_dir", tmp_path)),
        (["none of the engines"], (*model, "--engine", "onnxruntime", "--precision", "int8")),
        (["cut.jpg"], (*model, "--engine", "dynamic", "--repeat", 1, "--image", tmp_path)),
    ):
        assert_user_error(call_tool("benchmark", *arguments), *parts)
