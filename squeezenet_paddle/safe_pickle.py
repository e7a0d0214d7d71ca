"""Reads pickles of dicts, lists, numbers and arrays of numbers; runs no code.

A pickle is a program for a small machine, and may call any function it names. This is that machine
without what arrays have no need of. It answers to the few names by which arrays are pickled with
stand-ins, so that not even numpy's own code for unpickling sees what is in the file, and refuses
every other name. Every operation takes as much time and memory as it takes bytes of the file, which
Python's own machine does not promise: there nine bytes ask for gigabytes, and the hash of a few
nested tuples never ends. So the keys of a dict are texts and small numbers, there is a limit to the
number of operations, and functions get the bytes of a file once.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, Callable

import numpy as np

from .errors import InputError

LARGEST = 1_000_000  # operations of a pickle; the weights of a SqueezeNet take 1,000
_SMALL = 64  # values of this length do not count where a function is called


class RefusedPickleError(InputError):
    """A pickle that asks for a name which it has no need of; none of it was run."""


_NUMBERS = ("u1", "f2", "f4", "f8")


class PickledArray:
    """Stands in for numpy.ndarray.

    Attributes:
        values: the array; None unless it holds uint8 or floats.
    """

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, data = state
        if dtype.name in _NUMBERS:
            values = np.frombuffer(data, dtype.byte_order + dtype.name)
            self.values = values.reshape(shape, order="F" if is_fortran else "C")


def load_dict(data: bytes, where: str) -> dict:
    """Loads a pickled dict.

    Args:
        data: the pickle; a str of Python 2 becomes bytes.
        where: the name of its file, for errors.

    Raises:
        InputError: it is damaged, is no dict, or names something that numpy arrays do not need.
    """
    content = load(io.BytesIO(data), where, NUMPY_NAMES, encoding="bytes")
    if not isinstance(content, dict):
        raise InputError(f"{where}: a pickled dict was expected; found {type(content).__name__}.")
    return content


def load(
    stream: BinaryIO,
    where: str,
    names: Mapping[tuple[str, str], Any],
    persistent_load: Callable[[Any], Any] | None = None,
    encoding: str = "utf-8",
) -> Any:
    """Loads the next pickle of a stream.

    Args:
        stream: it is left behind the pickle. Protocols 2 to 5, which all but the text of the first
            Pythons are.
        where: the name of its file, for errors.
        names: (module, name) -> the stand-in for it; every other name is refused.
        persistent_load: gives the object that the pickle means by a persistent id.
        encoding: of the str of Python 2; "bytes" keeps them as bytes.

    Raises:
        InputError: it is damaged, or names anything else than `names`.
    """
    try:
        return _Machine(stream, names, persistent_load, encoding).run()
    except _ForbiddenNameError as error:
        raise RefusedPickleError(
            f"{where}: refused, as this pickle asks for {error}, which arrays do not need; "
            "none of it was run."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything, says Python's manual
        raise InputError(
            f"{where}: this pickle is damaged ({type(error).__name__}: {one_line(error)})."
        ) from error


class _ForbiddenNameError(Exception):
    """A pickle asks for a name that is not among those it may."""


class _PickledDtype:
    """Stands in for numpy.dtype."""

    def __init__(self, name: str | bytes, align: object, copy: object) -> None:
        self.name = _text(name)
        self.byte_order = "="

    def __setstate__(self, state: tuple) -> None:
        self.byte_order = _text(state[1])


def _reconstruct(array_type: object, shape: object, dtype: object) -> PickledArray:
    """Stands in for numpy's function: makes an array, whose state comes next."""
    return PickledArray()


def _encode(text: str, encoding: object) -> bytes:
    """Stands in for _codecs.encode, by which old protocols store bytes."""
    return text.encode("latin1")


def _text(name: str | bytes) -> str:
    """A name as str; that of a Python 2 pickle is bytes."""
    return name.decode() if isinstance(name, bytes) else name


def one_line(what: object) -> str:
    """A text that may quote bytes of a file, as one printable line."""
    text = " ".join(str(what).split())
    return text if text.isprintable() else ascii(text)


NUMPY_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # numpy 2
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encode,
}


class _Machine:
    """Runs one pickle; the operations are those of Python's pickletools.py, without those of text.

    Attributes:
        stack: values that later operations take.
        marks: lengths that the stack had at its marks.
        memo: values that may be taken again, by number.
    """

    def __init__(
        self,
        stream: BinaryIO,
        names: Mapping[tuple[str, str], Any],
        persistent_load: Callable[[Any], Any] | None,
        encoding: str,
    ) -> None:
        self._stream, self._names, self._encoding = stream, names, encoding
        self._persistent_load = persistent_load
        self._bytes = self._passed = 0  # read, and passed to functions
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle ends with."""
        for _ in range(LARGEST):
            code = self.take(1)
            if code == b".":
                return self.stack.pop()
            if code not in _OPERATIONS:
                raise ValueError(f"no operation of arrays: {code!r}")
            _OPERATIONS[code](self)
        raise ValueError(f"more than {LARGEST:,} operations")

    def take(self, count: int) -> bytes:
        """The next bytes of the file."""
        data = self._stream.read(max(count, 0))
        if len(data) != count:
            raise EOFError("it ends early")
        self._bytes += count
        return data

    def number(self, form: str) -> Any:
        """The next number of the file, in struct's notation."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text_of_python_2(self, data: bytes) -> str | bytes:
        """A str of Python 2, which may be either."""
        return data if self._encoding == "bytes" else data.decode(self._encoding)

    def above_mark(self) -> list[Any]:
        """Takes the values above the last mark off the stack."""
        at = self.marks.pop()
        values = self.stack[at:]
        del self.stack[at:]
        return values

    def collect(self, count: int) -> None:
        """Makes a tuple of the uppermost values."""
        values = tuple(self.stack[-count:])
        if len(values) < count:
            raise IndexError("it takes more values than it has")
        self.stack[-count:] = [values]

    def get(self, module: str, name: str) -> None:
        """Puts what stands in for a name on the stack."""
        if (module, name) not in self._names:
            raise _ForbiddenNameError(one_line(f"{module}.{name}"))
        self.stack.append(self._names[module, name])

    def get_line_by_line(self) -> None:
        """The same for a name that is in the next two lines."""
        module, name = (self._stream.readline().decode().rstrip("\n") for _ in range(2))
        self.get(module, name)

    def get_from_stack(self) -> None:
        """The same for a name that is on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        if not (type(name) is type(module) is str):
            raise TypeError("a name that is no text")
        self.get(module, name)

    def call(self) -> None:
        """Calls what stands in for a function or a class."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple or not callable(function):
            raise TypeError("a call of something that is no function")
        lengths = [len(each) for each in arguments if isinstance(each, (str, bytes, tuple, list))]
        self._passed += sum(length for length in lengths if length > _SMALL)
        if self._passed > self._bytes:
            raise ValueError("it uses the same values over and over")
        self.stack.append(function(*arguments))

    def set_state(self) -> None:
        """Gives the uppermost value but one its state; a dict needs none."""
        state, value = self.stack.pop(), self.stack[-1]
        if not isinstance(value, dict):
            value.__setstate__(state)

    def put_into_dict(self, values: list[Any]) -> None:
        """Puts keys and values, one after the other, into the uppermost dict."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise TypeError("entries of something that is no dict")
        for key, value in zip(values[::2], values[1::2]):
            target[checked_key(key)] = value

    def put_into_list(self, values: list[Any]) -> None:
        """Adds values to the uppermost list."""
        if type(self.stack[-1]) is not list:
            raise TypeError("elements of something that is no list")
        self.stack[-1].extend(values)

    def load_persistent(self) -> None:
        """Asks the caller for an object outside of the pickle."""
        if self._persistent_load is None:
            raise ValueError("it refers to objects outside of it")
        self.stack.append(self._persistent_load(self.stack.pop()))


def checked_key(key: Any) -> Any:
    """A key of a dict whose hash is soon computed, and is shared by few others.

    Raises:
        TypeError: it is another one.
    """
    if type(key) in (str, bytes, type(None)) or (type(key) is int and abs(key) < 2**60):
        return key
    raise TypeError(f"a text was expected as a key, found {type(key).__name__}")


def _skipping(count: int) -> Callable[[_Machine], None]:
    """An operation that does nothing, with so many bytes that belong to it."""

    def operation(machine: _Machine) -> None:
        machine.take(count)

    return operation


def _pushing(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    """An operation that puts a value on the stack."""
    return lambda machine: machine.stack.append(value(machine))


def _remembering(number: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    """An operation that gives the uppermost value a number."""
    return lambda machine: machine.memo.__setitem__(number(machine), machine.stack[-1])


def _texts(form: str) -> dict[str, Callable[[_Machine], Any]]:
    """How bytes and texts are read whose length comes first, in this form."""
    data = lambda machine: machine.take(machine.number(form))  # noqa: E731
    return {
        "bytes": data,
        "text": lambda machine: data(machine).decode("utf-8", "surrogatepass"),
        "str": lambda machine: machine.text_of_python_2(data(machine)),
    }


_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _skipping(1),  # the protocol
    b"\x95": _skipping(8),  # a frame
    b"N": _pushing(lambda machine: None),
    b"\x88": _pushing(lambda machine: True),
    b"\x89": _pushing(lambda machine: False),
    b"J": _pushing(lambda machine: machine.number("<i")),
    b"K": _pushing(lambda machine: machine.number("<B")),
    b"M": _pushing(lambda machine: machine.number("<H")),
    b"\x8a": _pushing(
        lambda machine: int.from_bytes(machine.take(machine.number("<B")), "little", signed=True)
    ),
    b"G": _pushing(lambda machine: machine.number(">d")),
    b"U": _pushing(_texts("<B")["str"]),
    b"T": _pushing(_texts("<i")["str"]),
    b"\x8c": _pushing(_texts("<B")["text"]),
    b"X": _pushing(_texts("<I")["text"]),
    b"\x8d": _pushing(_texts("<Q")["text"]),
    b"C": _pushing(_texts("<B")["bytes"]),
    b"B": _pushing(_texts("<I")["bytes"]),
    b"\x8e": _pushing(_texts("<Q")["bytes"]),
    b"\x96": _pushing(_texts("<Q")["bytes"]),  # a bytearray
    b"(": lambda machine: machine.marks.append(len(machine.stack)),
    b"]": _pushing(lambda machine: []),
    b"\x8f": _pushing(lambda machine: []),  # a set, which is made a list
    b"}": _pushing(lambda machine: {}),
    b")": _pushing(lambda machine: ()),
    b"\x85": lambda machine: machine.collect(1),
    b"\x86": lambda machine: machine.collect(2),
    b"\x87": lambda machine: machine.collect(3),
    b"t": _pushing(lambda machine: tuple(machine.above_mark())),
    b"\x91": _pushing(lambda machine: tuple(machine.above_mark())),  # a frozenset
    b"a": lambda machine: machine.put_into_list([machine.stack.pop()]),
    b"e": lambda machine: machine.put_into_list(machine.above_mark()),
    b"\x90": lambda machine: machine.put_into_list(machine.above_mark()),  # of a set
    b"s": lambda machine: machine.put_into_dict([machine.stack.pop(), machine.stack.pop()][::-1]),
    b"u": lambda machine: machine.put_into_dict(machine.above_mark()),
    b"h": _pushing(lambda machine: machine.memo[machine.number("<B")]),
    b"j": _pushing(lambda machine: machine.memo[machine.number("<I")]),
    b"q": _remembering(lambda machine: machine.number("<B")),
    b"r": _remembering(lambda machine: machine.number("<I")),
    b"\x94": _remembering(lambda machine: len(machine.memo)),
    b"c": _Machine.get_line_by_line,
    b"\x93": _Machine.get_from_stack,
    b"R": _Machine.call,
    b"\x81": _Machine.call,  # of a class
    b"b": _Machine.set_state,
    b"Q": _Machine.load_persistent,
}
