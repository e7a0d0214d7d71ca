"""The end of the demo: its C program without a C compiler of the system, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks import small_model_dir

from squeezenet_paddle.cli import demo
from squeezenet_paddle.network.config import ModelConfig


def test_the_c_program_is_built_by_ziglang_where_the_system_has_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    demo.draw_own_images(tmp_path / "own")
    images = [tmp_path / "own" / "disc" / "disc_00.jpg", tmp_path / "own" / "ring" / "ring_01.jpg"]
    small_model_dir(tmp_path / "mine", ModelConfig("1.1", 3))
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    demo.c_program(tmp_path / "mine", tmp_path, images)
    out = capfd.readouterr().out
    assert "ziglang cc" in out
    lines = out.splitlines()
    for name in ("disc_00.ppm", "ring_01.ppm"):
        answer = lines[lines.index(str(tmp_path / "c" / "golden" / name)) + 1]
        assert answer.split()[-2:][0] == "class"
