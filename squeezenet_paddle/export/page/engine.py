"""Compiles the C code of a network to WebAssembly with SIMD, by the clang of ziglang."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from ...errors import RunError
from ...model_dir import ModelInfo
from ..c import generate

_GLUE = Path(__file__).parent / "engine.c"
_FLAGS = (
    *("-target", "wasm32-wasi", "-mexec-model=reactor", "-msimd128"),
    *("-std=c99", "-O3", "-Wl,--strip-all", "-Wl,--export=__heap_base"),
)


def engine(info: ModelInfo) -> bytes:
    """A WebAssembly module that classifies images; it imports nothing.

    Args:
        info: the network, its preprocessing and its calibration, which are compiled in.

    Raises:
        RunError: the compiler failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "squeezenet.h").write_text(generate.header(info, ""), encoding="utf-8")
        (folder / "squeezenet.c").write_text(generate.source(info), encoding="utf-8")
        target = folder / "engine.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-I", str(folder)]
        command += ["-o", str(target), str(_GLUE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not target.is_file():
            lines = done.stderr.strip().splitlines() or ["it says nothing"]
            raise RunError(f"ziglang does not compile the network: {lines[0]}")
        return target.read_bytes()
