"""Writes the report on an evaluation: one page that holds everything, and its numbers as files.

    report.html             the page, with its images embedded; it needs no other file
    metrics.json            every number
    per_class.csv           precision, recall, F1 and support of every class
    confusion_matrix.csv    one row per label, one column per predicted class
    confusion_matrix.png
    confused_pairs.csv      the most frequent confusions
    reliability.png         accuracy over confidence
    confidently_wrong.png   the errors with the highest confidence

With more than 2,000 classes there is no matrix, and without an error there are no images of errors.
"""

from __future__ import annotations

import base64
import csv
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .. import __version__
from ..data.decode import MAX_PIXELS, read_image
from ..data.lists import ImageList
from ..files import atomic_directory, check_directory
from ..model_dir import read_weights
from ..predict import Predictor
from ..run_dir import CURVES, MODELS, model_dir_of
from . import pages, plots
from .compare import variant
from .evaluate import Evaluation
from .metrics import (
    ClassReport,
    Predictions,
    calibration,
    class_report,
    confused_pairs,
    confusion_matrix,
    neglected_classes,
    second_k,
)

REPORT, METRICS = "report.html", "metrics.json"
PER_CLASS, PAIRS, MATRIX_CSV = "per_class.csv", "confused_pairs.csv", "confusion_matrix.csv"
MATRIX, RELIABILITY, WRONG = "confusion_matrix.png", "reliability.png", "confidently_wrong.png"
_REQUIRED = (REPORT, METRICS, PER_CLASS, PAIRS, RELIABILITY)
_OPTIONAL = (MATRIX_CSV, MATRIX, WRONG)
_CLASS_COLUMNS = ("id", "name", "precision", "recall", "f1", "support", "predicted")
_PAIR_COLUMNS = ("label", "label_name", "predicted", "predicted_name", "images")
_PAIRS_KEPT, _WRONG_KEPT = 30, 24
_EMBEDDED_SIDE = 400  # pixels of an embedded photograph
_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "onnxruntime", "openvino", "numpy")


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        evaluation: of a model on `images`.
        images: the list.
        num_classes: of the model.
        names: class names; None where unknown.
        facts: what was evaluated and how, as the report shows it.
        max_pixels: the limit of an image's size in the evaluation.
        curves: image of the training curves; None where there is none.
        unknown: what `score_unknown` returned; None without.
        fingerprint: of the weights, see `model_dir.Weights`; None where unknown.
    """

    evaluation: Evaluation
    images: ImageList
    num_classes: int
    names: Sequence[str] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS
    curves: Path | None = None
    unknown: Mapping[str, Any] | None = None
    fingerprint: str | None = None

    def name(self, class_id: int) -> str | None:
        return None if self.names is None else self.names[class_id]


def report_of(
    predictor: Predictor,
    images: ImageList,
    evaluation: Evaluation,
    names: Sequence[str] | None = None,
    ten_crop: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Report:
    """The report on what `score_list` returned.

    Args:
        predictor, images, ten_crop, max_pixels: what `score_list` was called with.
        evaluation: its result.
        names: class names; None for those of the model directory.
    """
    info = predictor.info
    crops = "ten crops" if ten_crop else "center crop"
    size = f"{info.preprocess.resize_size} pixels ({info.preprocess.resize})"
    facts = {
        "model": str(predictor.model_dir),
        "network": f"SqueezeNet {variant(info.network)}, {info.network.num_classes} classes",
        "list": str(images.source or images.root),
        "engine": f"{predictor.engine}, {predictor.precision}",
        "input": f"{crops} of {info.preprocess.crop_size} pixels from {size}",
    }
    folder = model_dir_of(predictor.model_dir)
    curves = folder.parent / CURVES if folder.name in MODELS else folder / CURVES
    return Report(
        *(evaluation, images, info.network.num_classes, names or info.names, facts, max_pixels),
        curves if curves.is_file() else None,
        fingerprint=read_weights(predictor.model_dir, info).fingerprint,
    )


def check_report_target(path: Path) -> None:
    """Refuses what `write_report` would refuse, before any work is done.

    Raises:
        InputError: `path` holds something other than a report.
        ModuleNotFoundError: a package that a report needs is not installed.
    """
    for package in ("jinja2", "matplotlib", "sklearn"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    check_directory(path, _REQUIRED, _OPTIONAL)


def write_report(path: Path, report: Report) -> None:
    """Writes the folder under a temporary name and renames it; an older report is replaced.

    Raises:
        InputError: `path` holds something other than a report, or cannot be written; or an image
            that the evaluation could read cannot be read any more.
    """
    predictions = report.evaluation.predictions
    wrong = _most_confident_errors(predictions)
    classes = class_report(predictions.labels, predictions.predicted, report.num_classes)
    reliability = calibration(predictions.confidence, predictions.predicted == predictions.labels)
    numbers = {
        **report.evaluation.summary(),
        "facts": dict(report.facts),
        "fingerprint": report.fingerprint,
        "macro": classes.macro,
        "weighted": classes.weighted,
        "expected_calibration_error": reliability.error,
        "unknown": None if report.unknown is None else dict(report.unknown),
        "calibration": reliability.rows(),
        "confused_pairs": _pairs(report),
        "confidently_wrong": _errors(report, wrong),
        "classes": _classes(report, classes),
    }
    images = [
        read_image(report.images.path(index), report.max_pixels)
        for index in predictions.indices[wrong]
    ]
    with atomic_directory(path, _REQUIRED, _OPTIONAL) as folder:
        text = json.dumps(numbers, indent=2) + "\n"
        (folder / METRICS).write_text(text, encoding="utf-8")
        _write_rows(folder / PER_CLASS, _CLASS_COLUMNS, numbers["classes"])
        _write_rows(folder / PAIRS, _PAIR_COLUMNS, numbers["confused_pairs"])
        plots.save_reliability(folder / RELIABILITY, reliability)
        if report.num_classes <= plots.LARGEST_MATRIX:
            _write_matrix(folder, report)
        if images:
            _write_sheet(folder / WRONG, numbers["confidently_wrong"], images)
        html = _page(numbers, folder, images, report.curves, report.evaluation.trust)
        (folder / REPORT).write_text(html, encoding="utf-8")


def _classes(report: Report, scores: ClassReport) -> list[dict[str, Any]]:
    """One row per class, with None for an undefined score."""
    rows = []
    for i in range(report.num_classes):
        support, predicted = int(scores.support[i]), int(scores.predicted[i])
        shares = (
            float(scores.precision[i]) if predicted else None,
            float(scores.recall[i]) if support else None,
            float(scores.f1[i]) if support + predicted else None,
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


def _write_sheet(
    file: Path, errors: Sequence[Mapping[str, Any]], images: Sequence[np.ndarray]
) -> None:
    tiles = []
    for error, image in zip(errors, images):
        predicted = _class_name(error["predicted_name"], error["predicted"])
        label = _class_name(error["label_name"], error["label"])
        lines = (f"{error['confidence']:.2f} {predicted}", f"label: {label}", error["image"])
        tiles.append(plots.Tile(image, *lines))
    title = "Most confidently wrong: the probability of the predicted class, the label, the file"
    plots.save_contact_sheet(file, title, tiles)


def _class_name(name: str | None, class_id: int) -> str:
    return plots.short_name(name or f"class {class_id}")


def _page(
    numbers: Mapping[str, Any],
    folder: Path,
    images: Sequence[np.ndarray],
    curves: Path | None,
    trust: Mapping[str, float] | None,
) -> str:
    """report.html, from the numbers of metrics.json and the files that are in the folder."""
    environment = pages.environment(Path(__file__).parent)
    environment.filters["share"] = lambda value: "" if value is None else f"{value:.2%}"
    environment.filters["named"] = _class_name
    figures = {"matrix": folder / MATRIX, "reliability": folder / RELIABILITY, "curves": curves}
    sources = [plots.resized(i, min(_EMBEDDED_SIDE, max(i.shape))) for i in images]
    return environment.get_template(f"{REPORT}.j2").render(
        **numbers,
        trust=trust,
        k=second_k(len(numbers["classes"])),
        present=[row for row in numbers["classes"] if row["support"]],
        neglected=_neglected(numbers["classes"]),
        date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        versions=versions(),
        figures={
            key: _data_uri(file.read_bytes(), "png") if file and file.is_file() else None
            for key, file in figures.items()
        },
        photographs=[
            _data_uri(cv2.imencode(".jpg", i, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(), "jpeg")
            for i in sources
        ],
        files=sorted(file.name for file in folder.iterdir()),
    )


def _neglected(classes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of `neglected_classes`."""
    support, recall = (
        np.array([row[key] or 0 for row in classes]) for key in ("support", "recall")
    )
    return [classes[i] for i in neglected_classes(support, recall)]


def versions() -> str:
    """Versions of this package and of what it computes with."""
    found = [f"squeezenet_paddle {__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join([*found, f"OpenCV {cv2.__version__}"])


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
