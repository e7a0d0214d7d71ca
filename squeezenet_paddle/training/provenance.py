"""What a run was started with, for whoever finds it: settings.json, and the same in train.log."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import shlex
import sys
import time
from typing import Any

from .. import __version__
from ..files import write_text
from ..run_dir import SETTINGS
from ..settings import settings_of
from .config import TrainConfig
from .plan import effective_settings
from .run import Run

_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "opencv-python-headless", "opencv-python")


def write_settings(run: Run) -> list[str]:
    """Writes settings.json into the directory of a run; the same in words, a line each.

    Raises:
        InputError: it cannot be written.
    """
    settings = effective_settings(run.plan)
    settings.update({k: v for k, v in run.plan.settings.must_match.items() if k.isidentifier()})
    versions = {"squeezenet_paddle": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    record: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(sys.argv),
        "host": platform.node(),
        "system": platform.platform(),
        "device": run.device,
        "processes": run.group.world_size,
        "versions": versions,
        "settings": settings,
    }
    write_text(run.plan.output_dir / SETTINGS, json.dumps(record, indent=2) + "\n")
    lines = [f"command: {record['command']}", f"host: {record['host']}, {record['system']}"]
    lines.append("versions: " + ", ".join(f"{name} {v}" for name, v in versions.items()))
    rest = dict(settings)
    for field in dataclasses.fields(TrainConfig):
        names = [name for name, _ in settings_of(field.metadata["group"])]
        values = {name: rest.pop(name) for name in names}
        lines.append(f"{field.name}: {', '.join(f'{k}={v}' for k, v in values.items())}")
    return [*lines, *(f"{name}: {value}" for name, value in rest.items())]
