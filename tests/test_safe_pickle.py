"""The reader of pickles: arrays come out, code is never run, damage is told in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from limits import limit_this_process
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


def nested(count: int) -> bytes:
    """A dict with a tuple in a tuple as its key."""
    return b"\x80\x02})" + b"\x85" * count + b"Ns."


def doubled(count: int, end: bytes) -> bytes:
    """A tuple of twice a tuple of twice a tuple ..., whose hash takes 2 ** `count` steps."""
    pairs = b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(count))
    return b"\x80\x02}q\xff)q\x00" + pairs + end


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(nested(900_000), id="a key nested deeply"),
        pytest.param(nested(2_000_000), id="a key nested more deeply"),
        pytest.param(doubled(60, b"h\x3cNs."), id="a key whose hash never ends"),
        pytest.param(doubled(60, b"0(h\x3c\x91."), id="a frozenset whose hash never ends"),
        pytest.param(b"\x80\x02}r\xff\xff\xff\x1f0N.", id="a memo of gigabytes"),
        pytest.param(b"\x80\x02}p99999999999\n.", id="a memo of terabytes"),
        pytest.param(b"\x80\x02B\xff\xff\xff\x7fab.", id="bytes that are not there"),
        pytest.param(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", id="more of them"),
        pytest.param(b"\x80\x02" + b"}" * 3_000_000 + b".", id="many dicts"),
        pytest.param(b"\x80\x02L" + b"9" * 3_000_000 + b"L\n.", id="a number of digits"),
        pytest.param(
            b"\x80\x02c_codecs\nencode\nq\x00X\x80\x96\x98\x00%bq\x01" % (b"a" * 10**7)
            + b"h\x00h\x01h\x01\x86R" * 1000
            + b".",
            id="the same bytes over and over",
        ),
        pytest.param(
            b"\x80\x02}(%bu."
            % b"".join(
                b"\x8a\x08" + (2**61 * i - i).to_bytes(8, "little") + b"N" for i in range(4)
            ),
            id="keys of the same hash",
        ),
    ],
)
def test_a_small_pickle_takes_little(bomb: bytes, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(bomb)
    child = os.fork()
    if child == 0:  # by the operating system's limits
        limit_this_process(seconds=20, memory=1 << 30)
        try:
            load_dict((tmp_path / "bomb").read_bytes(), "bomb")
        except InputError as error:
            os._exit(0 if "bomb: this pickle is damaged" in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


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
