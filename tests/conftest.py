"""What the tests share: real files where there are any, and the tools run as a user runs them."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import HealthCheck, settings

from squeezenet_paddle.cli.common import Parser, fail
from squeezenet_paddle.errors import InputError, RunError

ROOT = Path(__file__).parent.parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real weights and images, named by SQUEEZENET_ASSETS."""
    folder = Path(os.environ.get("SQUEEZENET_ASSETS", ROOT.parent / "shared")).resolve()
    if not (folder / "caffe" / "squeezenet_v1.1.caffemodel").is_file():
        reason = f"no real weights and images in {folder} (SQUEEZENET_ASSETS names another folder)"
        if os.environ.get("SQUEEZENET_REQUIRE_ASSETS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


# No test fails because the machine is busy.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def run_tool() -> Run:
    """Runs `python tools/NAME.py ARGS` and gives back the finished process."""

    def run(
        name: str, *args: object, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, args)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **(env or {})},
        )

    return run


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """Saves figures as one white pixel: drawing takes half of a tiny run, and few tests look."""
    from matplotlib.figure import Figure
    from runs import save_blank

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_blank)
        yield


@pytest.fixture(autouse=True)
def _no_running_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages spell settings as the flags of the command that runs, and none does yet."""
    monkeypatch.setattr(Parser, "flags", {})


@pytest.fixture
def call_tool(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command as `run_tool` does, but in this process."""

    def call(name: str, *args: object) -> subprocess.CompletedProcess[str]:
        command = [name, *map(str, args)]
        code: object = 0
        try:
            code = importlib.import_module(f"squeezenet_paddle.cli.{name}").main(command[1:])
        except (InputError, RunError) as error:
            with pytest.raises(SystemExit):
                fail(str(error))
            code = 2 if isinstance(error, InputError) else 1
        except SystemExit as ended:
            code = ended.code
        return subprocess.CompletedProcess(command, code or 0, *capsys.readouterr())

    return call


def assert_user_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The process ended as a mistake of the user should: code 2 and one line with these parts."""
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr
