"""VisualDL's record file: the curves, images and histograms of a run.

It is not written by VisualDL's LogWriter, which begins a new file at every start (of a folder the
board shows only the newest), loses what it still holds when the process is killed, and hides that
the disk is full. Fields and numbers are those of VisualDL 2's record.proto.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...protobuf import message_classes

FILE = "vdlrecords.log"  # VisualDL looks for "vdlrecords" in the name
_LENGTH = struct.Struct("<Q")  # stands before every record

_Record = message_classes(
    "visualdl",
    {
        "Record": [("values", 1, "Value*")],
        "Value": [
            ("id", 1, "int64"),
            ("tag", 2, "string"),
            ("timestamp", 3, "int64"),
            # and one of
            ("value", 4, "float"),
            ("image", 5, "Image"),
            ("histogram", 8, "Histogram"),
            ("meta_data", 10, "MetaData"),
            ("hparam", 13, "HParam"),
        ],
        "Image": [("encoded_image_string", 4, "bytes")],
        "Histogram": [("hist", 1, "double+"), ("bin_edges", 2, "double+")],
        "MetaData": [("display_name", 1, "string")],
        "HParam": [("hparamInfos", 1, "HparamInfo*"), ("metricInfos", 2, "HparamInfo*")],
        "HparamInfo": [
            ("int_value", 1, "int64"),
            ("float_value", 2, "double"),
            ("string_value", 3, "string"),
            ("name", 4, "string"),
        ],
    },
)["Record"]


def header(settings: Mapping[str, object], scores: Sequence[str]) -> bytes:
    """What a file begins with.

    Args:
        settings: hyper-parameters; those that are None are left out.
        scores: tags of the curves whose last points the board shows beside them.
    """
    infos = [{"name": k, **_typed(v)} for k, v in settings.items() if v is not None]
    metrics = [{"name": tag, "float_value": 0.0} for tag in scores]
    return _record("meta_data_tag", 0, meta_data={"display_name": ""}) + _record(
        "hparam", 1, hparam={"hparamInfos": infos, "metricInfos": metrics}
    )


def scalar(tag: str, step: int, value: float) -> bytes:
    """A point of a curve."""
    return _record(tag, step, value=value)


def image(tag: str, step: int, png: bytes) -> bytes:
    """An image."""
    return _record(tag, step, image={"encoded_image_string": png})


def histogram(tag: str, step: int, counts: np.ndarray, edges: np.ndarray) -> bytes:
    """How many values (`counts` [n]) lie between `edges` [n + 1]."""
    return _record(tag, step, histogram={"hist": counts.tolist(), "bin_edges": edges.tolist()})


def records_until(path: Path, step: int) -> Iterator[bytes]:
    """What a file holds after its header, up to `step`; ends where a record was cut off."""
    data, start = path.read_bytes() if path.exists() else b"", 0
    while len(data) >= start + _LENGTH.size:
        end = start + _LENGTH.size + _LENGTH.unpack_from(data, start)[0]
        if len(data) < end:
            return
        (value,) = _Record.FromString(data[start + _LENGTH.size : end]).values
        if value.id <= step and not (value.HasField("meta_data") or value.HasField("hparam")):
            yield data[start:end]
        start = end


def _record(tag: str, step: int, **value: Any) -> bytes:
    milliseconds = round(time.time() * 1000)
    record = _Record(values=[{"id": step, "tag": tag, "timestamp": milliseconds, **value}])
    data = record.SerializeToString()
    return _LENGTH.pack(len(data)) + data


def _typed(value: object) -> dict[str, object]:
    if isinstance(value, float):
        return {"float_value": value}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"int_value": value}
    return {"string_value": str(value)}
