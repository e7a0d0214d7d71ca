"""A model directory whose exported program writes a file when it is run: nothing here runs it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from networks import VARIANTS, assert_same, pixels, small_model_dir

from squeezenet_paddle.engines import load as engine_loading
from squeezenet_paddle.engines.load import ENGINES
from squeezenet_paddle.engines.paddle_inference import compile_paddle
from squeezenet_paddle.export.export import Export, export
from squeezenet_paddle.files import sha256
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.predict import Predictor

SIZE = 40
GRAPH, PARAMETERS = "inference.pdmodel", "inference.pdiparams"


def old_format() -> Any:
    """Makes Paddle 3 build programs in the format of Paddle 2, which both versions run."""
    guard = getattr(getattr(paddle, "pir_utils", None), "OldIrGuard", contextlib.nullcontext)
    return guard()


def write_program(folder: Path, target: Path) -> None:
    """Writes a program that classifies, and saves one of its parameters to `target`."""
    static = paddle.static
    paddle.enable_static()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(old_format())
            program, start = static.Program(), static.Program()
            stack.enter_context(static.program_guard(program, start))
            x = static.data("data", [None, 3, SIZE, SIZE], "float32")
            weight = static.create_parameter([3, 5], "float32")
            logits = x.mean([2, 3]) @ weight
            executor = static.Executor(paddle.CPUPlace())
            executor.run(start)
            inputs_outputs = ([x], [logits])
            static.save_inference_model(
                str(folder / "inference"), *inputs_outputs, executor, program=program
            )
            armed = static.normalize_program(program, *inputs_outputs)
            block = armed.global_block()
            block.append_op(
                type="save",
                inputs={"X": [block.var(weight.name)]},
                attrs={"file_path": str(target), "overwrite": True},
            )
            (folder / GRAPH).write_bytes(armed.desc.serialize_to_string())
    finally:
        paddle.disable_static()


def test_no_engine_runs_the_program_of_a_model_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, target = small_model_dir(tmp_path / "model", VARIANTS[0]), tmp_path / "was run"
    info = read_info(model)
    export(model, info, Export("paddle", SIZE), [np.zeros((60, 60, 3), "uint8")], model)
    inputs = pixels(VARIANTS[0], 2, SIZE)
    expected = Predictor(model, "cpu", "dynamic").logits(inputs)
    record = json.loads((model / "exports.json").read_text())
    for name in record["paddle"]["files"]:
        (model / name).unlink()
    write_program(model, target)
    files = {name: sha256((model / name).read_bytes()) for name in (GRAPH, PARAMETERS)}
    record["paddle"]["files"] = files
    (model / "exports.json").write_text(json.dumps(record))

    compile_paddle(model / GRAPH, model / PARAMETERS, threads=1)(inputs)
    assert target.exists()  # so it is a program that writes files
    target.unlink()

    for name in [name for name, precisions in ENGINES.items() if "float32" in precisions]:
        assert_same(Predictor(model, "cpu", name).logits(inputs), expected)
    monkeypatch.setattr(engine_loading, "is_installed", lambda name: name in ("paddle", "dynamic"))
    predictor = Predictor(model, "cpu")
    assert predictor.engine == "paddle"
    assert_same(predictor.logits(inputs), expected)
    export(model, info, Export("paddle", SIZE), [np.zeros((60, 60, 3), "uint8")], model)
    assert not target.exists()
