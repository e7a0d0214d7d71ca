"""curves.png, looked at pixel by pixel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.training.curves import write_curves

COLOURS = {"blue": (31, 119, 180), "orange": (255, 127, 14), "green": (44, 160, 44)}  # RGB


def records(train: int, val: int = 0, **values: Any) -> list[dict[str, Any]]:
    """So many points of each kind over 1000 updates; `values` replace those of training."""
    common = {"loss": 2.0, "top1": 0.25, "images_per_second": 9.0, "reader_wait": 0.0}
    common["seconds_left"] = 0.0
    found: list[dict[str, Any]] = [
        {"kind": "train", "step": step, "epoch": 0.5, **common, "lr": 0.04, **values}
        for step in np.linspace(1000 / max(train, 1), 1000, train).astype(int).tolist()
    ]
    rest = {"epoch": 0.5, "images": 9, "best": False, "seconds": 1.0}
    found += [
        {"kind": "val", "step": step, "loss": 1.0, "top1": 0.5, "top5": 0.75, **rest}
        for step in np.linspace(1000 / max(val, 1), 1000, val).astype(int).tolist()
    ]
    return found


def draw(folder: Path, points: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Where in the image [H, W] each colour is."""
    folder.mkdir(exist_ok=True)
    text = "".join(f"{json.dumps(point)}\n" for point in points)
    (folder / "metrics.jsonl").write_text(text)
    write_curves(folder)
    assert sorted(file.name for file in folder.iterdir()) == ["curves.png", "metrics.jsonl"]
    image = cv2.imread(str(folder / "curves.png"))[:, :, ::-1]
    assert image.shape == (900, 800, 3)
    return {name: (image == colour).all(axis=2) for name, colour in COLOURS.items()}


@pytest.mark.parametrize("count", [1, 2, 100, 10_000])
def test_with_and_without_validation(tmp_path: Path, count: int) -> None:
    seen = draw(tmp_path, records(count))
    assert [name for name, where in seen.items() if where.any()] == ["blue"]
    seen = draw(tmp_path, records(count, min(count, 20)))
    assert [name for name, where in seen.items() if where.any()] == list(COLOURS)


def test_lines_are_where_their_values_are(tmp_path: Path) -> None:
    """A level line for each: in the upper third the losses, below them the accuracies."""
    seen = draw(tmp_path, records(100, 10))
    upper = {name: np.flatnonzero(where[:350].sum(axis=1) > 300) for name, where in seen.items()}
    lower = {name: np.flatnonzero(where[350:680].sum(axis=1) > 300) for name, where in seen.items()}
    loss = {name: upper[name].mean() for name in ("blue", "orange")}
    top = {name: rows.mean() for name, rows in lower.items()}
    assert loss["blue"] < loss["orange"]  # 2 nats stand higher than 1
    assert top["green"] < top["orange"] < top["blue"]  # 75, 50 and 25 %
    assert top["orange"] - top["green"] == pytest.approx(top["blue"] - top["orange"], abs=2)


def test_the_name_of_the_run_is_drawn_as_it_is(tmp_path: Path) -> None:
    """In any script, and without reading it as a formula: it is longer with each character."""
    ends = []
    for name in ("run", "run \u0436", "run \u0436 $x$", "run \u0436 $x$ \u0e01"):
        draw(tmp_path / name, records(3))
        title = cv2.imread(str(tmp_path / name / "curves.png"), 0)[:25] < 128
        ends.append(np.ptp(np.flatnonzero(title.any(axis=0))))
    assert ends[0] < ends[1] < ends[2] < ends[3]


def test_outliers_and_no_numbers_leave_the_curve_readable(tmp_path: Path) -> None:
    """Some losses of 10^6 among 1000, and a null, do not press the others to the ground."""
    points = records(1000, 10)
    for index in (3, 500, 700):
        points[index]["loss"] = 1e6
    points[300]["loss"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = draw(tmp_path, points)
    level = np.flatnonzero(seen["orange"][:340].sum(axis=1) > 300)
    assert 100 < level.mean() < 300


def test_nothing_recorded(tmp_path: Path) -> None:
    (tmp_path / ".a1b2c3d4.sqz-tmp").touch()  # of a process that was killed
    assert not any(where.any() for where in draw(tmp_path, []).values())


@pytest.mark.parametrize("name", ["$x_^$", "Größe 狗", "a_b^c\\d"])
def test_any_folder_name(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of glyphs that the font lacks
        draw(tmp_path / name, records(5, 5))


def test_all_losses_null(tmp_path: Path) -> None:
    assert draw(tmp_path, records(5, loss=None))["blue"].any()  # accuracy and rate


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(InputError, match=r"curves\.png is a directory"):
        write_curves(tmp_path)


def test_users_settings_do_not_matter(tmp_path: Path) -> None:
    """A matplotlibrc that asks for LaTeX, no screen, and pyplot left alone."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\n")
    (tmp_path / "run").mkdir()
    code = (
        "import sys; from pathlib import Path\n"
        "from squeezenet_paddle.training.curves import write_curves\n"
        "write_curves(Path(sys.argv[1]))\n"
        "import matplotlib\n"
        "print('matplotlib.pyplot' in sys.modules, matplotlib.rcParams['text.usetex'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env={**os.environ, "MATPLOTLIBRC": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("False True\n", "")
    assert (tmp_path / "run" / "curves.png").is_file()
