"""Reads the tensors of a .pth, .pt or .safetensors file, without PyTorch and without running it.

Three formats: the zip archive of PyTorch 1.6 and later (data.pkl, and a file a storage), the one
before it (five pickles and then the storages), and safetensors (a JSON header and then the values).
The pickles are read by `safe_pickle`: a name that tensors do not need is refused.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from ..errors import InputError
from ..file_kinds import kind_of
from ..safe_pickle import NUMPY_NAMES, RefusedPickleError, checked_key, load, one_line

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LARGEST_PICKLE = 64 << 20  # bytes; that of a SqueezeNet's state dict has some 10,000
LARGEST_STORAGES = 512 << 20  # all that are read together
LARGEST_RANK = 32  # of a tensor

# How numpy reads the elements of a storage; there is no bfloat16, the upper half of a float32.
_STORAGE_TYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
_SAFETENSORS_TYPES = {
    **{"F32": "f4", "F64": "f8", "F16": "f2", "BF16": "bfloat16", "I64": "i8", "I32": "i4"},
    **{"I16": "i2", "I8": "i1", "U8": "u1", "BOOL": "u1"},
}


@dataclass(frozen=True)
class Storage:
    """A row of numbers in a file, and how to get at its bytes."""

    kind: str
    count: int
    byte_order: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file; its values are read when they are asked for."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > LARGEST_RANK:
            raise ValueError("a tensor with a shape that makes no sense")
        if any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a tensor with a shape that makes no sense")
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        if 0 not in self.shape and last >= self.storage.count:
            raise ValueError("a tensor that is larger than its storage")

    def values(self) -> np.ndarray:
        """The values as float32.

        Raises:
            ValueError: the storage is not in the file, or not as long as it should be.
        """
        kind, count, order = self.storage.kind, self.storage.count, self.storage.byte_order
        size = _element_size(kind)
        if math.prod(self.shape) > count:
            raise ValueError("a tensor that repeats its storage")
        data = self.storage.read()
        if len(data) != count * size:
            raise ValueError(f"a storage of {len(data)} bytes where {count * size} were expected")
        if kind == "bfloat16":
            halves = np.frombuffer(data, f"{order}u2").astype("uint32")
            numbers = (halves << 16).view("float32")
        else:
            numbers = np.frombuffer(data, f"{order}{kind}")
        strides = [step * numbers.itemsize for step in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides)
        with np.errstate(over="ignore"):  # an infinity is reported with its layer's name later
            return view.astype("float32")


def read_checkpoint(data: bytes, name: str) -> tuple[str, dict[Any, Any]]:
    """What a file of PyTorch or safetensors holds.

    Args:
        data: the file.
        name: what errors call it.

    Returns:
        The name of its format, and the dict in it, with a `Tensor` for each tensor.

    Raises:
        InputError: it is another file, is damaged, or its pickle asks for what tensors do not need.
    """
    kind = kind_of(data)
    if kind == "a safetensors file":
        return "safetensors", _read_safetensors(data, name)
    if kind != "a PyTorch checkpoint":
        advice = {
            "a caffemodel": "; squeezenet convert (tools/caffe2paddle.py) converts it",
            "a TorchScript program": "; save the state_dict() of its module instead",
        }.get(kind, "")
        raise InputError(
            f"{name}: a PyTorch checkpoint or a safetensors file was expected, "
            f"found {kind}{advice}."
        )
    is_zip = data.startswith(b"PK")
    wanted = "a dict of tensors was expected, as torch.save(model.state_dict(), FILE) writes it"
    try:
        content = _read_zip(data, name) if is_zip else _read_legacy(data, name)
    except RefusedPickleError as error:
        raise InputError(f"{str(error).rstrip('.')}; {wanted}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{name}: {wanted}; found {type(content).__name__.lower()}.")
    return "PyTorch, zip" if is_zip else "PyTorch, before 1.6", content


def _read_zip(data: bytes, name: str) -> Any:
    archive = zipfile.ZipFile(io.BytesIO(data))
    pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
    root = pickles[0].filename[: -len("data.pkl")]
    orders = {b"big": ">"}
    sizes: list[int] = []  # of the storages that were read

    def read(entry_name: str, largest: int) -> bytes:
        try:
            entry = archive.getinfo(root + entry_name)
            if entry.file_size > largest:
                raise ValueError(f"{entry_name} of {entry.file_size:,} bytes")
            return archive.read(entry)
        except KeyError:
            raise ValueError(f"{entry_name} is missing") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"{entry_name}: {error}") from error

    has_order = f"{root}byteorder" in archive.namelist()
    with damage_named(name):
        order = orders.get(read("byteorder", 16), "<") if has_order else "<"
        pickled = read("data.pkl", LARGEST_PICKLE)

    def storage(kind: str, key: str, count: int) -> Storage:
        def values() -> bytes:
            data = read(f"data/{key}", LARGEST_STORAGES - sum(sizes))
            sizes.append(len(data))
            return data

        return Storage(kind, count, order, values)

    return load(io.BytesIO(pickled), name, _NAMES, _Persistent(storage))


def _read_legacy(data: bytes, name: str) -> Any:
    stream = io.BytesIO(data)
    order = "<"
    kinds: dict[str, Storage] = {}
    places: dict[str, tuple[int, int]] = {}

    def storage(kind: str, key: str, count: int) -> Storage:
        def read() -> bytes:
            if key not in places:
                raise ValueError(f"storage {key} is missing")
            start, end = places[key]
            return data[start:end]

        return kinds.setdefault(key, Storage(kind, count, order, read))

    parts = [load(stream, name, _NAMES) for _ in range(3)]
    if parts[0] != LEGACY_MAGIC or not isinstance(parts[2], dict):
        raise InputError(f"{name}: this PyTorch checkpoint is damaged: its header is another.")
    order = "<" if parts[2].get("little_endian", True) else ">"
    content = load(stream, name, _NAMES, _Persistent(storage))
    keys = load(stream, name, _NAMES)
    at = stream.tell()
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in kinds:
            raise InputError(f"{name}: this PyTorch checkpoint is damaged: an unknown storage.")
        count = int.from_bytes(data[at : at + 8], "little" if order == "<" else "big")
        start, at = at + 8, at + 8 + count * _element_size(kinds[key].kind)
        places[key] = (start, at)
    return content


def _read_safetensors(data: bytes, name: str) -> dict[str, Any]:
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:start].decode("utf-8"))
        header.pop("__metadata__", None)
        return {key: _safetensor(entry, data, start) for key, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{name}: this safetensors file is damaged ({type(error).__name__}: {error})."
        ) from error


def _safetensor(entry: Mapping[str, Any], data: bytes, start: int) -> Tensor:
    shape = tuple(entry["shape"])
    begin, end = (start + int(n) for n in entry["data_offsets"])
    if not start <= begin <= end <= len(data):
        raise ValueError(f"values at {begin} to {end} of {len(data)} bytes")
    kind = _SAFETENSORS_TYPES[entry["dtype"]]
    count = (end - begin) // _element_size(kind)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return Tensor(Storage(kind, count, "<", lambda: data[begin:end]), 0, shape, tuple(strides))


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Reports a ValueError of reading as damage of the file `name`."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{name}: this file is damaged: {one_line(error)}.") from error


def _element_size(kind: str) -> int:
    return 2 if kind == "bfloat16" else np.dtype(kind).itemsize


class _Persistent:
    """Answers to the persistent ids of a pickle, all of which mean storages."""

    def __init__(self, storage: Callable[[str, str, int], Storage]) -> None:
        self._storage = storage

    def __call__(self, pid: Any) -> Storage:
        what, kind, key, _device, count, *view = pid
        if what != "storage" or any(view) or kind not in _STORAGE_TYPES.values():
            raise ValueError("it refers to something else than a storage")
        if not isinstance(key, str) or type(count) is not int:
            raise ValueError("a storage without a name or a size")
        return self._storage(kind, key, count)


class _Ignored:
    """What a checkpoint holds besides: settings, random states, devices."""

    def __new__(cls, *args: object, **settings: object) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *args: object, **settings: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: object) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _dict_of(pairs: Iterable[tuple[Any, Any]] = ()) -> dict[Any, Any]:
    """Stands in for OrderedDict."""
    return {checked_key(key): value for key, value in pairs}


def _default_dict(factory: object = None) -> dict[Any, Any]:
    """Stands in for defaultdict."""
    return {}


def _size(extents: Any = ()) -> tuple[Any, ...]:
    """Stands in for torch.Size."""
    if not isinstance(extents, (list, tuple)):
        raise ValueError("a size that is no list")
    return tuple(extents)


def _rebuild_parameter(tensor: Any, *rest: object) -> Any:
    return tensor


_IGNORED = (
    *(("torch", name) for name in ("device", "float32", "float16", "bfloat16", "int64")),
    *(("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")),
    *(("argparse", "Namespace"), ("pathlib", "PosixPath"), ("pathlib", "WindowsPath")),
    *(("builtins", "set"), ("__builtin__", "set")),
)
_NAMES: dict[tuple[str, str], Any] = {
    **NUMPY_NAMES,
    ("collections", "OrderedDict"): _dict_of,
    ("collections", "defaultdict"): _default_dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{
        (module, name): kind
        for module in ("torch", "torch.cuda")
        for name, kind in _STORAGE_TYPES.items()
    },
    **dict.fromkeys(_IGNORED, _Ignored),
}
