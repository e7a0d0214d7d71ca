"""The engines besides Paddle's dynamic graph: nothing runs as something else unnoticed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from squeezenet_paddle.runtimes import OpenvinoEngine


@pytest.mark.parametrize(
    ("capabilities", "precision", "warned"),
    [
        (["FP32", "INT8"], "bfloat16", True),
        (["FP32", "INT8"], "float32", False),
        (["FP32", "BF16", "INT8"], "bfloat16", False),
    ],
)
def test_bfloat16_on_a_processor_without_it(
    capabilities: list[str],
    precision: str,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = SimpleNamespace(get_property=lambda device, name: capabilities)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    OpenvinoEngine(b"", 3, precision, threads=1)
    assert ("computes in float32" in caplog.text) == warned
