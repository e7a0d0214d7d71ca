"""What is built and handed on: the wheel and the sdist are complete, and the sdist's tests run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from conftest import ROOT

IGNORED = (".*", "*.egg-info", "__pycache__", "build", "dist", "site", "output", "pretrained")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, the sdist, and `sdist/`, the unpacked one."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*IGNORED))
    for name in (".ci", "output", "pretrained"):
        (source / name).mkdir()
    for name in (".ci/run", "output/README.md", "pretrained/README.md"):
        shutil.copy(ROOT / name, source / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist")
    return folder


def files_of(folder: Path, *parts: str) -> set[str]:
    """The files below parts of a folder, but for what Python leaves there."""
    return {
        path.relative_to(folder).as_posix()
        for part in parts
        for path in (folder / part).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_every_file_of_the_package_and_no_other(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n for n in names if ".dist-info/" not in n} == files_of(ROOT, "squeezenet_paddle")
    assert "squeezenet_paddle/py.typed" in names


def test_metadata(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata.get_all("Project-URL")
    assert "squeezenet = squeezenet_paddle.cli.main:main" in archive.read(
        f"{info}/entry_points.txt"
    ).decode("utf-8")
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert not [line for line in required if "paddle" in line]
    assert set(metadata.get_all("Provides-Extra", [])) >= {"cpu", "gpu", "onnxruntime", "openvino"}


def test_the_sdist_has_what_its_tests_need_and_they_run(built: Path) -> None:
    (sdist,) = (built / "sdist").iterdir()
    parts = ("squeezenet_paddle", "tools", "tests", "benchmarks", "docs")
    assert files_of(sdist, *parts) == files_of(ROOT, *parts)
    for name in (
        "Makefile",
        ".ci/run",
        "README.md",
        "CHANGELOG.md",
        "mkdocs.yml",
        "LICENSE",
        "hubconf.py",
    ):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("tests/cli/test_common.py", "tests/network/test_config.py"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=sdist,
        env={**os.environ, "PYTHONPATH": str(sdist)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
