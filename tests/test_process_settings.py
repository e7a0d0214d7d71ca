"""The process settings: given where they help, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squeezenet_paddle.process_settings import use_fast_cpu_settings

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu sse2 fma avx avx2\nbugs\t\t:\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (AMD, "5"),
        (AMD.replace("avx2", "avx512"), None),
        (AMD.replace("fma", ""), None),
        (AMD.replace("AuthenticAMD", "GenuineIntel"), None),
        (None, None),
    ],
)
def test_mkl_is_told_of_an_amd_processor_with_avx2_alone(
    cpuinfo: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, encoding: str) -> str:
        assert str(path) == "/proc/cpuinfo"
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(os, "environ", {})
    use_fast_cpu_settings()
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ({}, {"MKL_DEBUG_CPU_TYPE": "5", "MKL_NUM_THREADS": "1"}),
        (
            {"MKL_DEBUG_CPU_TYPE": "4", "MKL_NUM_THREADS": "3"},
            {"MKL_DEBUG_CPU_TYPE": "4", "MKL_NUM_THREADS": "3"},
        ),
    ],
)
def test_what_the_user_has_set_stays(
    users: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: AMD)
    monkeypatch.setattr(os, "environ", users)
    use_fast_cpu_settings()
    assert os.environ == expected
