"""The model card of a bundle: what its reader has to know of the model, as a README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import export_record as record
from ...download import KNOWN_FILES
from ...errors import InputError
from ...evaluation import pages
from ...evaluation.compare import variant
from ...evaluation.metrics import second_k
from ...evaluation.report import METRICS, versions
from ...files import read_bytes
from ...model_dir import ModelInfo, read_weights
from ...run_dir import MODELS, REPORT_DIR, model_dir_of

CARD = "README.md"
_CLASSES, _PAIRS, _WORST = 50, 10, 5  # rows of the card's tables
_FILES = {
    CARD: "this page",
    "predict.py": "classifies images",
    record.ONNX: "the network, with class names and preprocessing in its metadata",
    record.ONNX_INT8: "the same in 8-bit integers: smaller and faster, a little less exact",
    record.LABELS: "class names, and what each file takes and gives",
    record.PAGE: "classifies in a browser, without a server or a network: open it",
    record.C_FOLDER: "the network in C, which needs only a compiler: see README.md there",
    "golden": "drawn images, and the logits that the files give for them",
}


@dataclass(frozen=True)
class Scores:
    """How a model did on a list of images.

    Attributes:
        images, top1, top5, loss: as `Evaluation.summary` has them.
        list: which images.
        chose: they also chose which update of the training was kept.
        details: metrics.json of the report, with confusions; empty where there is no report.
    """

    images: int
    top1: float
    top5: float
    loss: float
    list: str
    chose: bool
    details: Mapping[str, Any]


def read_scores(model_dir: Path, info: ModelInfo, report_dir: Path | None) -> Scores | None:
    """The scores of a model, from a report of eval or finetune, or from config.json.

    Args:
        model_dir: as `model_dir.py` describes it.
        info: its description.
        report_dir: what eval wrote with its `report_dir`; None for the report that finetune wrote
            into its run.

    Returns:
        None where nothing is known.

    Raises:
        InputError: `report_dir` is no report, or one of other weights.
    """
    fingerprint = read_weights(model_dir, info).fingerprint
    folder = model_dir_of(model_dir)
    if report_dir is not None:
        details = _read_report(report_dir)
        if details["fingerprint"] != fingerprint:
            raise InputError(
                f"`report_dir` {report_dir}: this report is of other weights than those of "
                f"{model_dir}; eval writes one."
            )
        return _of_report(details, chose=False)
    own = folder.parent / REPORT_DIR
    if folder.name in MODELS and (own / METRICS).is_file():
        details = _read_report(own)
        if details["fingerprint"] == fingerprint:
            return _of_report(details, chose=True)
    for name, scores in info.scores.items():
        return _scores(scores, name, True, {})
    return None


def _read_report(folder: Path) -> dict[str, Any]:
    """metrics.json of a report; of an older one, which says nothing of its weights, None for it."""
    file = folder / METRICS
    try:
        details = json.loads(read_bytes(file, "report of eval").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}).") from error
    if not isinstance(details, dict) or not {"images", "facts", "classes"} <= set(details):
        raise InputError(f"{file}: the numbers of a report were expected, as eval writes them.")
    return {"fingerprint": None, **details}


def _of_report(details: Mapping[str, Any], chose: bool) -> Scores:
    return _scores(details, Path(details["facts"]["list"]).name, chose, details)


def _scores(
    values: Mapping[str, Any], name: str, chose: bool, details: Mapping[str, Any]
) -> Scores:
    top1, top5, loss = (values[key] for key in ("top1", "top5", "loss"))
    return Scores(values["images"], top1, top5, loss, name, chose, details)


def model_card(
    folder: Path, info: ModelInfo, description: Mapping[str, Any], scores: Scores | None
) -> str:
    """The text of README.md.

    Args:
        folder: the bundle, complete but for this file.
        info: of the model directory.
        description: of model.onnx.
        scores: None where nothing is known.
    """
    classes = info.network.num_classes
    details = {} if scores is None else scores.details
    rows = [row for row in details.get("classes", []) if row["support"]]
    environment = pages.environment(Path(__file__).parent, _escaped)
    return environment.get_template("README.md.j2").render(
        network=f"SqueezeNet {variant(info.network)}",
        classes=classes,
        names=info.names,
        shown=_CLASSES,
        k=second_k(classes),
        scores=scores,
        pairs=details.get("confused_pairs", [])[:_PAIRS],
        worst=sorted(rows, key=lambda row: row["recall"])[:_WORST],
        calibration=info.calibration,
        description=description,
        preprocess=description["preprocess"],
        weights=_weights(info.source),
        by_authors=_is_by_authors(info.source),
        files=_files(folder),
        versions=versions(),
    )


def _escaped(text: str) -> str:
    """Text as Markdown shows it, in a line and in a table."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", text)


def _files(folder: Path) -> list[tuple[str, int | None, str]]:
    """Name, size in bytes and purpose of each file; a folder counts as one."""
    rows = []
    for name, purpose in _FILES.items():
        path = folder / name
        inside = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        size = sum(file.stat().st_size for file in inside)
        if size or name == CARD:
            rows.append((f"{name}/" if path.is_dir() else name, size or None, purpose))
    return rows


def _weights(source: Mapping[str, Any]) -> list[str]:
    """Where weights came from, a sentence for each step, the first one first."""
    steps: list[str] = []
    while source:
        if source["format"] == "trained":
            how = "Fine-tuned" if source.get("pretrained") else "Trained from scratch"
            step = f"{how} on {source['images']:,} images, to update {source['step']:,}."
        else:
            step = f"Converted from {source['file']} (SHA-256 {source['sha256']})."
        if compressed := source.get("compressed"):
            step += f" Compressed afterwards, to {compressed['bytes']:,} bytes."
        steps.insert(0, step)
        source = source.get("pretrained") or {}
    return steps


def _is_by_authors(source: Mapping[str, Any]) -> bool:
    """Whether all began with a file that is known to be the SqueezeNet authors' own."""
    while source.get("pretrained"):
        source = source["pretrained"]
    known = {file.digest for files in KNOWN_FILES.values() for file in files}
    return source.get("sha256") in known
