"""The reader of pickles: arrays come out, code is never run, damage is told in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from python2_pickle import python2_pickle

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.safe_pickle import load_dict

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
CONTENT = {b"data": PIXELS, b"labels": [1, 2, 3]}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", "f8", "f2"])
def test_arrays_come_out(dtype: str, order: str) -> None:
    array = np.asarray(PIXELS.astype(dtype), order=order)
    for data in (python2_pickle({b"data": array}), pickle.dumps({b"data": array}, protocol=2)):
        values = load_dict(data, "file")[b"data"].values
        np.testing.assert_array_equal(values, array)
        assert values.dtype == array.dtype


@pytest.mark.parametrize("array", [PIXELS.astype("int8"), np.array(["text"])])
def test_arrays_of_something_else_have_no_values(array: np.ndarray) -> None:
    assert load_dict(python2_pickle({b"data": array}), "file")[b"data"].values is None


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'evil'}",)

    evil = pickle.dumps({b"data": Evil()}, protocol=2)
    assert b"system" in evil
    with pytest.raises(InputError, match=r"file: refused, .* asks for (posix|nt)\.system"):
        load_dict(evil, "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        b"builtins\neval",
        b"__builtin__\neval",
        b"numpy\nfromfile",
        b"numpy\nload",
        b"numpy.core.multiarray\nscalar",
        b"_codecs\ndecode",
        b"copyreg\n_reconstructor",
        b"os\nsystem",
    ],
)
def test_other_names_are_refused(name: bytes) -> None:
    asked = name.decode().replace("\n", r"\.")
    with pytest.raises(InputError, match=f"file: refused, .* asks for {asked}"):
        load_dict(b"\x80\x02c" + name + b"\n.", "file")


@pytest.mark.parametrize(
    ("damaged", "match"),
    [
        (b"", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b"\x80\x02N.", "a pickled dict was expected; found NoneType"),
        (python2_pickle(CONTENT)[:5000], "damaged"),
        (python2_pickle(CONTENT).replace(b"M\x00\x0c", b"M\x01\x0c"), "damaged .*reshape"),
        (b"not a pickle", "damaged"),
    ],
)
def test_damaged_pickle(damaged: bytes, match: str) -> None:
    with pytest.raises(InputError, match=f"file: .*{match}"):
        load_dict(damaged, "file")
