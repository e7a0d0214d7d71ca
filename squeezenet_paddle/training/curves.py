"""Plots the curves of a training run, curves.png, from its metrics.jsonl."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.plots import drawing, printable
from ..files import atomic_path
from ..run_dir import CURVES, METRICS
from .log import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, VAL, VAL5 = "tab:blue", "tab:orange", "tab:green"
FEW = 50  # up to so many points are marked individually
MANY = 200  # above so many, they are drawn faintly under the means of neighbours


def write_curves(folder: Path) -> None:
    """Plots loss, accuracy and learning rate of the run in `folder` over its updates.

    Raises:
        InputError: the file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # not that it builds its font cache
    from matplotlib.figure import Figure

    records = read_metrics(folder / METRICS)
    train = [record for record in records if record["kind"] == "train"]
    val = [record for record in records if record["kind"] == "val"]
    with drawing(), atomic_path(folder / CURVES) as temporary:
        figure = Figure(figsize=(8, 9), layout="constrained")
        loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.5))
        _draw(loss, train, "loss", "training", TRAIN)
        _draw(loss, val, "loss", "validation", VAL)
        loss.set_title(_title(folder, val), parse_math=False)
        loss.set_ylabel("loss (nats)")
        loss.set_ylim(0, _highest_loss(train, val))
        _draw(accuracy, train, "top1", "training top-1", TRAIN, scale=100)
        _draw(accuracy, val, "top1", "validation top-1", VAL, scale=100)
        _draw(accuracy, val, "top5", "validation top-5", VAL5, scale=100)
        accuracy.set(ylabel="accuracy (%)", ylim=(0, 101))
        _draw(rate, train, "lr", "learning rate", TRAIN)
        rate.set(ylabel="learning rate", ylim=(0, None), xlabel="update", xlim=(0, None))
        for axes in (loss, accuracy, rate):
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(borderaxespad=2)  # off lines at the edge of the axes
        figure.savefig(temporary, format="png", dpi=100)


def _draw(
    axes: Axes,
    records: Sequence[dict[str, Any]],
    field: str,
    label: str,
    colour: str,
    scale: float = 1,
) -> None:
    if not records:
        return
    steps = np.array([record["step"] for record in records], float)
    values = _values(records, field) * scale
    if len(steps) <= MANY:
        axes.plot(steps, values, ".-" if len(steps) <= FEW else "-", color=colour, label=label)
        return
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
    parts = np.array_split(np.arange(len(steps)), MANY)
    means = [[steps[part].mean(), values[part].mean()] for part in parts]
    axes.plot(*np.transpose(means), color=colour, label=label)


def _values(records: Sequence[dict[str, Any]], field: str) -> np.ndarray:
    """One field of all records, NaN where it is None."""
    return np.array([record[field] for record in records], float)


def _highest_loss(train: Sequence[dict[str, Any]], val: Sequence[dict[str, Any]]) -> float | None:
    """The upper limit of the loss axis, which leaves out the top 1% of each curve."""
    curves = [_values(records, "loss") for records in (train, val)]
    finite = [curve[np.isfinite(curve)] for curve in curves]
    top = max((float(np.percentile(curve, 99)) for curve in finite if len(curve)), default=0.0)
    return 1.05 * top or None


def _title(folder: Path, val: Sequence[dict[str, Any]]) -> str:
    name = printable(folder.resolve().name)
    if not val:
        return name
    best = max(val, key=lambda record: record["top1"] or 0)
    return f"{name}: best validation top-1 {best['top1'] or 0:.2%} at update {best['step']}"
