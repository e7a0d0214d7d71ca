"""DIGITS models: the folder and both archives, and archives that are not what they seem."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import wild_files as wild
from networks import random_state

from squeezenet_paddle.caffe import digits
from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.caffe.digits import open_digits
from squeezenet_paddle.cli.caffe2paddle import main
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig

CONFIG = ModelConfig(num_classes=3)
STATE = random_state(CONFIG)
MEAN = np.random.default_rng(0).uniform(90, 160, (3, 256, 256)).astype("float32")
FILES = wild.digits_files(CONFIG, STATE, MEAN)


def write(form: str, tmp_path: Path, files: dict[str, bytes] = FILES) -> Path:
    if form == "folder":
        return wild.write_folder(tmp_path / "job", files)
    return {"tar": wild.write_tar, "zip": wild.write_zip}[form](tmp_path / f"job.{form}", files)


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_one_argument_is_all(form: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    argv = ["--digits", write(form, tmp_path), "--verify", "--output_dir", tmp_path / "model"]
    assert main([str(each) for each in argv]) == 0
    out = capsys.readouterr().out
    assert "snapshot: snapshot_iter_100.caffemodel, the newest of 2" in out
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["source"]["classifier_name"] == "conv10_flowers"
    preprocess = config["preprocess"]
    found = [preprocess[key] for key in ("resize", "resize_size", "crop_size", "interpolation")]
    assert found == ["squash", 256, 227, "linear"]
    np.testing.assert_allclose(preprocess["mean"], MEAN.mean((1, 2)), rtol=1e-5)
    names = (tmp_path / "model" / "synset_words.txt").read_text()
    assert names == "flower 0\nflower 1\nflower 2\n"


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
def test_a_snapshot_can_be_chosen(form: str, tmp_path: Path) -> None:
    path = write(form, tmp_path)
    for snapshot in ("9", "snapshot_iter_9.caffemodel"):
        with open_digits(path, snapshot) as model:
            assert model.snapshots == ["snapshot_iter_9.caffemodel", "snapshot_iter_100.caffemodel"]
            state = read_weights(model.caffemodel).state
            np.testing.assert_array_equal(state["conv1.bias"], STATE["conv1.bias"] + 1)
    with pytest.raises(InputError, match="no snapshot 10; there are snapshot_iter_9.caffemodel, "):
        with open_digits(path, "10"):
            pass


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (
            {"image resize mode": "fill"},
            "image resize mode 'fill' is not supported; squash or crop",
        ),
        ({"image dimensions": [256, 256, 1]}, "images of 1 channels"),
        ({"image dimensions": [200, 256, 3]}, "images of 256x200 pixels; only squares"),
        ({"image dimensions": "256"}, "height, width and channels were expected"),
        ([], "a JSON object was expected"),
    ],
)
def test_an_info_that_asks_for_too_much(info: object, message: str, tmp_path: Path) -> None:
    files = {**FILES, "info.json": json.dumps(info).encode()}
    path = write("zip", tmp_path, files)
    with pytest.raises(InputError, match=f"job.zip.info.json: .*{message}"):
        with open_digits(path):
            pass


def test_what_lacks_a_snapshot(tmp_path: Path) -> None:
    path = write("tar", tmp_path, {"labels.txt": b"a\n"})
    with pytest.raises(InputError, match=r"found no .caffemodel in it, but labels.txt"):
        with open_digits(path):
            pass


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "net.tar.gz"
    for content in (b"", b"hello", b"\x1f\x8b damaged", b"PK\x03\x04 damaged", FILES["info.json"]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="this is none or damaged|cannot read this archive"):
            with open_digits(path):
                pass


@pytest.mark.parametrize(
    "name", ["../evil.caffemodel", "/tmp/evil.caffemodel", "a/../../b", "C:\\a"]
)
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_path_that_leads_outside(name: str, form: str, tmp_path: Path) -> None:
    path = write(form, tmp_path, {**FILES, name: b"evil"})
    with pytest.raises(InputError, match="leads outside of it"):
        with open_digits(path):
            pass
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_tar_with_something_else_than_files(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "job.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("mean.binaryproto")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(InputError, match="'mean.binaryproto' in it is no regular file"):
        with open_digits(path):
            pass


def test_a_zip_with_a_link(tmp_path: Path) -> None:
    path = tmp_path / "job.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("labels.txt")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(InputError, match="'labels.txt' in it is no regular file"):
        with open_digits(path):
            pass


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "LARGEST_MEMBER", 1000)
    with pytest.raises(InputError, match="'snapshot_iter_9.caffemodel' in it has .* bytes"):
        with open_digits(write("zip", tmp_path)):
            pass
    monkeypatch.setattr(digits, "MOST_MEMBERS", 3)
    small = {f"{i}.txt": b"" for i in range(4)}
    with pytest.raises(InputError, match="refused, as it holds more than 3 files"):
        with open_digits(write("tar", tmp_path, small)):
            pass


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.caffemodel", bytes(digits.LARGEST_MEMBER + 1))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"'a.caffemodel' in it has 268,435,457 bytes"):
        with open_digits(path):
            pass


def test_two_of_a_name(tmp_path: Path) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for folder in ("a", "b"):
            archive.addfile(tarfile.TarInfo(f"{folder}/labels.txt"))
    (tmp_path / "job.tar").write_bytes(file.getvalue())
    with pytest.raises(InputError, match="two files called labels.txt"):
        with open_digits(tmp_path / "job.tar"):
            pass


def block(name: str, size: int, kind: bytes) -> bytes:
    """A header of a tar file; size counts what follows it."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_headers_that_ask_for_too_much(tmp_path: Path) -> None:
    """A name of three gigabytes, and headers for headers until Python's stack ends."""
    long = tmp_path / "long.tar.gz"
    with gzip.open(long, "wb", compresslevel=1) as file:
        file.write(block("x", 3_000_000_000, tarfile.GNUTYPE_LONGNAME) + bytes(10 << 20))
    nested = tmp_path / "nested.tar"
    one = block("x", 5, tarfile.GNUTYPE_LONGNAME) + b"name\0".ljust(512, b"\0")
    nested.write_bytes(one * 5000 + bytes(1024))
    for path in (long, nested):
        tracemalloc.start()
        with pytest.raises(InputError, match="this is none or damaged"), open_digits(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 50_000_000
