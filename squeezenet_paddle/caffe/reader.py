"""Reads a .caffemodel or .prototxt, in either of Caffe's formats (V1 and today's), into layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from ..errors import InputError
from ..file_kinds import kind_of
from ..files import read_bytes
from ..safe_pickle import one_line
from .schema import BlobShape, LayerParameter, NetParameter
from .wire import Blob, BrokenError, Scanner, TooMuchError

# V1 names its types by an enum, DATA for today's "Data"; these are not spelled the same.
_V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "ELTWISE": "Eltwise",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}


LARGEST_NET = 10_000  # layers; those of SqueezeNet have 70 to 140
LARGEST_PROTOTXT = 1 << 20  # bytes; those of SqueezeNet have 10,000

_HINTS = {
    "a prototxt": ", not the binary file of weights",
    "a text file": ", not the binary file of weights",
    "a PyTorch checkpoint": "; squeezenet convert-torch (tools/torch2paddle.py) converts it",
    "a safetensors file": "; squeezenet convert-torch (tools/torch2paddle.py) converts it",
    "an HDF5 file": "; save the network with Caffe's snapshot_format BINARYPROTO",
    "a zip archive": "; --digits takes the archive of a DIGITS model",
    "a gzip archive": "; --digits takes the archive of a DIGITS model",
}


@dataclass(frozen=True)
class CaffeLayer:
    """A layer of a file.

    Attributes:
        name: e.g. "fire2/squeeze1x1".
        type: today's name of the type, e.g. "Convolution", for either format.
        bottoms, tops: names of the blobs that it reads and writes.
        blobs: its parameters, float32, in the shape that the file gives them.
        message: the protobuf message, for its `convolution_param` and the like.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: tuple[np.ndarray, ...]
    message: Any


def parse_caffemodel(data: bytes, name: str) -> list[CaffeLayer]:
    """The layers of a binary .caffemodel file; `name` is what errors call it.

    Raises:
        InputError: it is no such file, is damaged or cut off, or is in the V0 format.
    """
    net = NetParameter()
    try:
        rest, blobs = Scanner(data).net()
        net.ParseFromString(rest)
    except TooMuchError as error:
        raise InputError(f"{name}: no SqueezeNet has so much in its file: {error}.") from error
    except (DecodeError, ValueError) as error:
        raise InputError(_other_kind(data, name)) from error
    layers = _layers(net, name, blobs)
    if not layers:
        raise InputError(_other_kind(data, name))
    return layers


def _other_kind(data: bytes, name: str) -> str:
    """What is wrong with a file that is no caffemodel."""
    kind = kind_of(data)
    if kind == "a caffemodel":
        return f"{name}: this caffemodel is damaged or cut off, or holds no layers."
    if kind[:1].isdigit():
        return f"{name}: not a caffemodel, or one that is damaged or cut off: {kind}."
    return f"{name}: a caffemodel was expected, found {kind}{_HINTS.get(kind, '')}."


def read_prototxt(path: Path) -> list[CaffeLayer]:
    """The layers of a text .prototxt file, without blobs. Unknown fields are ignored.

    Raises:
        InputError: it is no such file, or is in the V0 format.
    """
    data = read_bytes(path, "prototxt")
    if len(data) > LARGEST_PROTOTXT:
        raise InputError(
            f"{path}: a prototxt of at most {LARGEST_PROTOTXT:,} bytes was expected, found "
            f"{len(data):,}."
        )
    net = NetParameter()
    try:
        text_format.Parse(data.decode("utf-8"), net, allow_unknown_field=True)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: a prototxt was expected, found a binary file.") from error
    except (text_format.ParseError, RecursionError) as error:
        raise InputError(f"{path}: not a prototxt: {one_line(error)}.") from error
    layers = _layers(net, str(path))
    if not layers:
        raise InputError(f"{path}: a prototxt with layers was expected, found none.")
    return layers


def _layers(
    net: Any, name: str, blobs: Mapping[int, Sequence[Sequence[Blob]]] | None = None
) -> list[CaffeLayer]:
    if len(net.layers) + len(net.layer) > LARGEST_NET:
        raise InputError(
            f"{name}: no SqueezeNet has so much in its file: over {LARGEST_NET} layers."
        )
    for v1 in net.layers:
        if v1.HasField("layer"):
            raise InputError(
                f"{name}: layer {_text(v1.layer.name)!r} is in Caffe's V0 format of "
                "2013; upgrade the file with Caffe's upgrade_net_proto_binary first."
            )
    if net.layers and net.layer:
        raise InputError(
            f"{name}: layers in both formats, {len(net.layers)} 'layers' (V1) and "
            f"{len(net.layer)} 'layer'; one of them was expected."
        )
    result = _inputs(net) if net.layers or net.layer else []
    of_layers = blobs[2 if net.layers else 100] if blobs else itertools.repeat(())
    for message, own in zip(net.layers or net.layer, of_layers):
        if net.layers:
            enum_name = message.DESCRIPTOR.fields_by_name["type"].enum_type
            kind = enum_name.values_by_number[message.type].name
            kind = _V1_TYPES.get(kind, "".join(map(str.capitalize, kind.split("_"))))
        else:
            kind = _text(message.type)
        arrays = tuple(
            blob_array(blob, f"{name}: layer {_text(message.name)!r}, blob {i}")
            for i, blob in enumerate(own)
        )
        result.append(
            CaffeLayer(
                _text(message.name),
                kind,
                tuple(map(_text, message.bottom)),
                tuple(map(_text, message.top)),
                arrays,
                message,
            )
        )
    return result


def _inputs(net: Any) -> list[CaffeLayer]:
    """The inputs that a net names outside of its layers, as Input layers."""
    shapes = [list(shape.dim) for shape in net.input_shape]
    shapes += [list(net.input_dim[at : at + 4]) for at in range(0, len(net.input_dim), 4)]
    result = []
    for i, name in enumerate(map(_text, net.input)):
        message = LayerParameter(name=name, type="Input", top=[name])
        if i < len(shapes):
            message.input_param.shape.add(dim=shapes[i])
        result.append(CaffeLayer(name, "Input", (), (name,), (), message))
    return result


def _text(value: str | bytes) -> str:
    """A name as printable text; protobuf gives bytes where a damaged file's is not UTF-8."""
    text = value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


def read_blob(data: bytes, where: str) -> np.ndarray:
    """The array in a file that is one blob.

    Raises:
        InputError: it is damaged.
    """
    try:
        return blob_array(Scanner(data).blob(), where)
    except (BrokenError, TooMuchError) as error:
        raise InputError(f"{where}: {error}.") from error


def blob_array(blob: Blob, where: str) -> np.ndarray:
    """A blob as float32. As in Caffe, legacy dimensions win over `shape`, double over float.

    Raises:
        InputError: its numbers are not as many as its shape says.
    """
    if blob.legacy:
        shape = [blob.legacy.get(number, 0) for number in (1, 2, 3, 4)]
    else:
        try:
            shape = list(BlobShape.FromString(blob.shape or b"").dim)
        except DecodeError as error:
            raise InputError(f"{where}: its shape is damaged.") from error
    number, kind = (8, "<f8") if any(blob.numbers[8]) else (5, "<f4")
    if any(len(part) % np.dtype(kind).itemsize for part in blob.numbers[number]):
        raise InputError(f"{where}: its list of values is broken off.")
    with np.errstate(over="ignore"):  # an infinity is reported with the layer's name later
        values = np.frombuffer(b"".join(blob.numbers[number]), kind).astype("float32")
    try:
        if len(shape) <= 32 and min(shape, default=0) >= 0 and math.prod(shape) == len(values):
            return values.reshape(shape)
    except ValueError:  # 0 times what no array can have
        pass
    extents = "x".join(map(str, shape[:32])) or "scalar"
    raise InputError(f"{where}: its shape is {extents} but it holds {len(values)} values.")
