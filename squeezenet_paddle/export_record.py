"""The files that an export adds to a model directory, and the record of which weights they hold.

    inference.json or .pdmodel, inference.pdiparams   static graph for Paddle Inference
    model.onnx, model_int8.onnx                       ONNX
    model.caffemodel, deploy.prototxt                 Caffe
    int8.json                                         statistics for int8, of earlier versions
    c/                                                C code; see `export/c/write.py`
    model.html                                        a page that classifies in a browser
    labels.json                                       class names; input and output of each model
    exports.json                                      how each was made, and from which weights

An export is tied to the weights it was made from, by their checksum in `exports.json`: engines
refuse a stale one, and retraining deletes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_regular, sha256, write_text

FORMATS = ("paddle", "onnx", "caffe")
RECORD = "exports.json"
GRAPHS = ("inference.json", "inference.pdmodel")  # of Paddle 3 and 2
PARAMETERS = "inference.pdiparams"
ONNX, ONNX_INT8 = "model.onnx", "model_int8.onnx"
CAFFEMODEL, PROTOTXT = "model.caffemodel", "deploy.prototxt"
STATISTICS, LABELS = "int8.json", "labels.json"
_LARGEST_RECORD, _LARGEST_FILE = 16 << 20, 512 << 20  # bytes
C_FOLDER = "c"
PAGE = "model.html"
NAMES = (
    *GRAPHS,
    PARAMETERS,
    ONNX,
    ONNX_INT8,
    CAFFEMODEL,
    PROTOTXT,
    STATISTICS,
    LABELS,
    C_FOLDER,
    PAGE,
    RECORD,
)


def read_record(folder: Path) -> dict[str, Any]:
    """The contents of exports.json by kind of export; empty where there is none.

    Raises:
        InputError: it is damaged.
    """
    file = folder / RECORD
    if not file.exists():
        return {}
    data = read_regular(file, "record of exports", _LARGEST_RECORD)
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}).") from error
    if not isinstance(record, dict) or not all(isinstance(v, dict) for v in record.values()):
        raise InputError(f"{file}: a JSON object of objects was expected.")
    for kind, entry in record.items():
        files = entry.get("files")
        if not (isinstance(files, dict) and files and all(map(_is_inside, files))):
            raise InputError(
                f"{file}, {kind}: files must have the checksum of each, by names inside the folder."
            )
    return record


def _is_inside(name: str) -> bool:
    """Whether the name of a file leads nowhere else than into the folder it is relative to."""
    return name.isprintable() and not {"", ".", ".."} & set(name.split("/"))


def add_record(folder: Path, kind: str, entry: Mapping[str, Any], files: Sequence[str]) -> None:
    """Adds an export, with the checksums of its files, to exports.json."""
    checksums = {name: sha256((folder / name).read_bytes()) for name in files}
    record = {**read_record(folder), kind: {**entry, "files": checksums}}
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def write_labels(folder: Path, fingerprint: str, names: Sequence[str] | None) -> None:
    """Writes labels.json: the class names, and the descriptions of all exports of these weights."""
    models = {
        next(iter(entry["files"])): entry["description"]
        for entry in read_record(folder).values()
        if entry.get("fingerprint") == fingerprint and "description" in entry
    }
    labels = {"classes": names, "models": models}
    write_text(folder / LABELS, json.dumps(labels, indent=2, ensure_ascii=False) + "\n")


def command(folder: Path, kind: str) -> str:
    """The command that makes an export."""
    flags = "onnx --precision int8 --image IMAGES" if kind == "int8" else kind
    return f"squeezenet export --model_dir {folder} --format {flags}"


def find(folder: Path, kind: str, fingerprint: str, needed: str) -> tuple[dict[str, Any], bytes]:
    """The record of an export and one of its files, if it belongs to the expected weights.

    Args:
        folder: the model directory.
        kind: of the export.
        fingerprint: that of the model directory.
        needed: the name of the file.

    Raises:
        InputError: there is none, it lacks that file, it belongs to other weights, or one of its
            files was changed.
    """
    entry, how = read_record(folder).get(kind), command(folder, kind)
    if entry is None:
        raise InputError(f"{folder} has no {kind} export; make it by: {how}")
    if entry.get("fingerprint") != fingerprint:
        raise InputError(
            f"{folder}: its {kind} export is of other weights or another config.json; "
            f"replace it by: {how}"
        )
    if needed not in entry["files"]:
        raise InputError(f"{folder / RECORD}, {kind}: {needed} was expected among its files.")
    files = {}
    for name, checksum in entry["files"].items():
        exists = (folder / name).exists()
        files[name] = read_regular(folder / name, "export", _LARGEST_FILE) if exists else b""
        if sha256(files[name]) != checksum:
            raise InputError(
                f"{folder / name} is not the file that was exported; replace it by: {how}"
            )
    return entry, files[needed]
