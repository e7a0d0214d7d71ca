"""VisualDL's record file: the curves, images and histograms of a run.

VisualDL's own LogWriter is not used: it begins a new file at every start, of which the board shows
only the newest, loses its buffer when the process is killed, and ignores a full disk. Field names
and numbers are those of VisualDL 2's record.proto.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np
from google.protobuf.message import DecodeError

from ...files import read_regular
from ...protobuf import message_classes

logger = logging.getLogger(__name__)

FILE = "vdlrecords.log"  # VisualDL looks for "vdlrecords" in the name
_LENGTH = struct.Struct("<Q")  # stands before every record
_VALUES = 10  # the byte that a record begins with: its field 1
_LARGEST = 2 << 30  # bytes of a file
_FIRST_CONTENT = 4  # the lowest field number of what a value may hold; it holds one thing

_Record = message_classes(
    "visualdl",
    {
        "Record": [("values", 1, "Value*")],
        "Value": [
            ("id", 1, "int64"),
            ("tag", 2, "string"),
            ("timestamp", 3, "int64"),
            # and one of these
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
    """The two records that a file begins with.

    Args:
        settings: hyper-parameters; those that are None are left out.
        scores: tags of the curves whose last points the board lists with the hyper-parameters.
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
    """A histogram: `counts` [n] values lie between neighbouring `edges` [n + 1]."""
    return _record(tag, step, histogram={"hist": counts.tolist(), "bin_edges": edges.tolist()})


def read_records(
    path: Path, last_step: int, warn: Callable[[str], object] = logger.warning
) -> list[bytes]:
    """The curves, images and histograms of a file up to `last_step`, without its header.

    The format has no checksums. A byte where no whole record begins is passed over, so that a
    damaged record costs only itself; `warn` is called with one line if there is one.
    """
    data = read_regular(path, "file of records", _LARGEST) if path.exists() else b""
    kept, start, lost = [], 0, 0
    parsed = 0  # bytes, of which each whole record has its own once
    while start < len(data) and parsed <= 8 * len(data):
        length = _length_at(data, start)
        parsed += length or 0
        found = None if length is None else _record_at(data, start)
        if found is None:
            start, lost = start + 1, lost + 1
            continue
        value, end = found
        if value.id <= last_step and not (value.HasField("meta_data") or value.HasField("hparam")):
            kept.append(data[start:end])
        start = end
    lost += len(data) - start
    if lost:
        warn(
            f"{path}: {lost} of its {len(data)} bytes are damaged or cut off and were left out; "
            f"the board goes on with the {len(kept)} records that can be read."
        )
    return kept


def _length_at(data: bytes, start: int) -> int | None:
    """The length of the record that may begin at `start`; None if none does."""
    body = start + _LENGTH.size
    if body >= len(data) or data[body] != _VALUES:
        return None
    length = _LENGTH.unpack_from(data, start)[0]
    return length if body + length <= len(data) else None


def _record_at(data: bytes, start: int) -> tuple[Any, int] | None:
    """The value of the record that begins at `start`, and where it ends; None if none does."""
    body = start + _LENGTH.size
    if body > len(data):
        return None
    end = body + _LENGTH.unpack_from(data, start)[0]
    if end > len(data):
        return None
    try:
        record = _Record.FromString(data[body:end])
        record.DiscardUnknownFields()
        # What was written here is written again as the same bytes; anything else is damage.
        if len(record.values) != 1 or record.SerializeToString() != data[body:end]:
            return None
        (value,) = record.values
        contents = [f.name for f, _ in value.ListFields() if f.number >= _FIRST_CONTENT]
        is_text = isinstance(value.tag, str) and value.tag  # newer protobufs give bytes if not
    except (DecodeError, UnicodeDecodeError):
        return None
    return (value, end) if len(contents) == 1 and is_text and value.id >= 0 else None


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
