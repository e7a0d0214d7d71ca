"""The report on an evaluation: a folder of numbers and figures, and report.html, which shows them.

    report.html             everything, for a browser; it needs no network
    metrics.json            every number
    per_class.csv           precision, recall, F1 and support of every class
    confusion_matrix.csv    a row a label, a column a predicted class
    confusion_matrix.png
    confused_pairs.csv      the most frequent errors
    reliability.png         accuracy over confidence
    confidently_wrong.png   the errors that the network was most sure of

The matrix is left out at more than 2,000 classes, the errors' images where there is no error.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.decode import MAX_PIXELS, read_image
from ..data.lists import ImageList
from ..files import atomic_directory, check_directory
from . import plots
from .evaluate import Evaluation
from .metrics import (
    ClassReport,
    Predictions,
    calibration,
    class_report,
    confused_pairs,
    confusion_matrix,
)
from .report_html import MATRIX, RELIABILITY, WRONG, page

REPORT, METRICS = "report.html", "metrics.json"
PER_CLASS, PAIRS, MATRIX_CSV = "per_class.csv", "confused_pairs.csv", "confusion_matrix.csv"
_REQUIRED = (REPORT, METRICS, PER_CLASS, PAIRS, RELIABILITY)
_OPTIONAL = (MATRIX_CSV, MATRIX, WRONG)
_CLASS_COLUMNS = ("id", "name", "precision", "recall", "f1", "support", "predicted")
_PAIR_COLUMNS = ("label", "label_name", "predicted", "predicted_name", "images")
_PAIRS_KEPT, _WRONG_KEPT = 30, 24


@dataclass(frozen=True)
class Report:
    """What a report is about.

    Attributes:
        evaluation: of a model over `images`.
        images: the list.
        num_classes: of the model.
        names: of the classes; None where unknown.
        facts: what was evaluated, and how, as the report shows it.
        max_pixels: that an image may have, as for the evaluation.
    """

    evaluation: Evaluation
    images: ImageList
    num_classes: int
    names: Sequence[str] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS

    def name(self, class_id: int) -> str | None:
        return None if self.names is None else self.names[class_id]


def check_report_target(path: Path) -> None:
    """Refuses a path that `write_report` would refuse, before any work is done.

    Raises:
        InputError: `path` holds something else than a report.
    """
    check_directory(path, _REQUIRED, _OPTIONAL)


def write_report(path: Path, report: Report) -> None:
    """Writes the folder under a temporary name and renames it; an older report is replaced.

    Raises:
        InputError: `path` holds something else than a report, or cannot be written; or an image
            that the evaluation could read cannot be read any more.
    """
    predictions = report.evaluation.predictions
    wrong = _most_confident_errors(predictions)
    classes = class_report(predictions.labels, predictions.predicted, report.num_classes)
    reliability = calibration(predictions.confidence, predictions.predicted == predictions.labels)
    numbers = {
        **report.evaluation.summary(),
        "facts": dict(report.facts),
        "macro": classes.macro,
        "weighted": classes.weighted,
        "expected_calibration_error": reliability.error,
        "calibration": reliability.rows(),
        "confused_pairs": _pairs(report),
        "confidently_wrong": _errors(report, wrong),
        "classes": _classes(report, classes),
    }
    with atomic_directory(path, _REQUIRED, _OPTIONAL) as folder:
        text = json.dumps(numbers, indent=2) + "\n"
        (folder / METRICS).write_text(text, encoding="utf-8")
        _write_rows(folder / PER_CLASS, _CLASS_COLUMNS, numbers["classes"])
        _write_rows(folder / PAIRS, _PAIR_COLUMNS, numbers["confused_pairs"])
        plots.save_reliability(folder / RELIABILITY, reliability)
        if report.num_classes <= plots.LARGEST_MATRIX:
            _write_matrix(folder, report)
        if len(wrong):
            _write_sheet(folder / WRONG, report, wrong)
        html = page(numbers, {file.name for file in folder.iterdir()})
        (folder / REPORT).write_text(html, encoding="utf-8")


def _classes(report: Report, found: ClassReport) -> list[dict[str, Any]]:
    """A row a class; a share of nothing is None."""
    rows = []
    for i in range(report.num_classes):
        support, predicted = int(found.support[i]), int(found.predicted[i])
        shares = (
            float(found.precision[i]) if predicted else None,
            float(found.recall[i]) if support else None,
            float(found.f1[i]) if support + predicted else None,
        )
        rows.append(dict(zip(_CLASS_COLUMNS, (i, report.name(i), *shares, support, predicted))))
    return rows


def _pairs(report: Report) -> list[dict[str, Any]]:
    p = report.evaluation.predictions
    pairs = confused_pairs(p.labels, p.predicted, _PAIRS_KEPT)
    return [{**_named(report, pair.label, pair.predicted), "images": pair.images} for pair in pairs]


def _errors(report: Report, rows: np.ndarray) -> list[dict[str, Any]]:
    p = report.evaluation.predictions
    return [
        {
            "image": report.images.name(p.indices[row]),
            **_named(report, int(p.labels[row]), int(p.predicted[row])),
            "confidence": float(p.confidence[row]),
        }
        for row in rows
    ]


def _named(report: Report, label: int, predicted: int) -> dict[str, Any]:
    return {
        "label": label,
        "label_name": report.name(label),
        "predicted": predicted,
        "predicted_name": report.name(predicted),
    }


def _most_confident_errors(predictions: Predictions) -> np.ndarray:
    """Rows of `predictions`, the most confident first."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_WRONG_KEPT]


def _write_rows(file: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_matrix(folder: Path, report: Report) -> None:
    p = report.evaluation.predictions
    matrix = confusion_matrix(p.labels, p.predicted, report.num_classes)
    names = report.names or [str(i) for i in range(report.num_classes)]
    with (folder / MATRIX_CSV).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["label \\ predicted", *names])
        writer.writerows([name, *row] for name, row in zip(names, matrix.tolist()))
    plots.save_confusion_matrix(folder / MATRIX, matrix, names)


def _write_sheet(file: Path, report: Report, rows: np.ndarray) -> None:
    """The images of errors, read once more."""
    p = report.evaluation.predictions
    tiles = []
    for row, error in zip(rows, _errors(report, rows)):
        image = read_image(report.images.path(p.indices[row]), report.max_pixels)
        predicted, label = (
            plots.short_name(error[f"{key}_name"] or f"class {error[key]}")
            for key in ("predicted", "label")
        )
        lines = (f"{error['confidence']:.2f} {predicted}", f"label: {label}", error["image"])
        tiles.append(plots.Tile(image, *lines))
    title = "Most confidently wrong: the probability of the predicted class, the label, the file"
    plots.save_contact_sheet(file, title, tiles)
