"""CIFAR-10's archive: a small one in the same format, damaged ones, and ones that mean harm."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import runpy
import struct
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Run, assert_user_error
from PIL import Image

from squeezenet_paddle.data.lists import read_list, read_names
from squeezenet_paddle.datasets import cifar10
from squeezenet_paddle.download import KnownFile
from squeezenet_paddle.errors import InputError

NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer"]
NAMES += [b"dog", b"frog", b"horse", b"ship", b"truck"]
Files = dict[str, bytes]


class Python2Pickler(pickle._Pickler):
    """Writes every string as Python 2 wrote its str, which the published archive is made of."""

    def save_str(self, text: str | bytes) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch = {**pickle._Pickler.dispatch, str: save_str, bytes: save_str}  # noqa: RUF012


def python2_pickle(content: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def batch(seed: int, count: int = 3) -> dict[bytes, object]:
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": b"a batch",
        b"labels": rng.integers(0, 10, count).tolist(),
        b"data": rng.integers(0, 256, (count, 3072), np.uint8),
        b"filenames": [b"image.png"] * count,
    }


def contents() -> dict[str, dict[bytes, object]]:
    """What is in the files of a small archive: five batches of 3 images, one of 4 for testing."""
    found = {f"data_batch_{number}": batch(number) for number in range(1, 6)}
    found["test_batch"] = batch(6, count=4)
    found["batches.meta"] = {b"num_cases_per_batch": 3, b"label_names": NAMES, b"num_vis": 3072}
    return found


def files(**changed: object) -> Files:
    """The files of a small archive; of `changed`, bytes are a file and a dict changes one."""
    found = {}
    for name, content in contents().items():
        change = changed.get(name.replace(".", "_"), {})
        found[name] = change if isinstance(change, bytes) else python2_pickle({**content, **change})
    return found


def tar_gz(path: Path, files: Files, *others: tuple[tarfile.TarInfo, bytes]) -> str:
    """Writes an archive as the published one is laid out; `others` come last. Its checksum."""
    folder = tarfile.TarInfo("cifar-10-batches-py")
    folder.type = tarfile.DIRTYPE
    members = [(folder, b""), *(regular(f"cifar-10-batches-py/{n}", d) for n, d in files.items())]
    members.append(regular("cifar-10-batches-py/readme.html", b"<html>"))
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for member, data in [*members, *others]:
            tar.addfile(member, io.BytesIO(data))
    return digest(path)


def regular(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The name of the archive in an otherwise empty folder."""
    return tmp_path / "cifar.tar.gz"


def assert_refused(archive: Path, match: str, sha256: str | None = None) -> None:
    """The archive is refused and nothing is written, neither the images nor anything else."""
    with pytest.raises(InputError, match=match) as caught:
        cifar10.prepare(archive, archive.parent / "out", sha256 or digest(archive))
    assert str(archive) in str(caught.value)
    assert list(archive.parent.iterdir()) == [archive]


# What goes well


@pytest.mark.parametrize(
    "dump", [python2_pickle, functools.partial(pickle.dumps, protocol=2)], ids=["py2", "py3"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_images_lists_and_names(archive: Path, dump: functools.partial, order: str) -> None:
    original = contents()
    for content in original.values():
        if b"data" in content:
            content[b"data"] = np.asarray(content[b"data"], order=order)
    sha256 = tar_gz(archive, {name: dump(content) for name, content in original.items()})
    out = archive.parent / "made" / "out"

    assert cifar10.prepare(archive, out, sha256) == (15, 4)

    names = [name.decode() for name in NAMES]
    assert read_names(out / "synset_words.txt", 10) == names
    train = [original[f"data_batch_{number}"] for number in range(1, 6)]
    for split, list_name, batches in (
        ("train", "train_list.txt", train),
        ("test", "val_list.txt", [original["test_batch"]]),
    ):
        labels = [label for b in batches for label in b[b"labels"]]
        pixels = np.concatenate([b[b"data"] for b in batches])
        listed = read_list(out / list_name, None, 10)
        assert listed.labels.tolist() == labels
        paths = [listed.path(index) for index in range(len(listed))]
        assert paths == [
            out / split / names[label] / f"{index:05d}.png" for index, label in enumerate(labels)
        ]
        for path, row in zip(paths, pixels):
            with Image.open(path) as image:
                assert image.mode == "RGB"
                np.testing.assert_array_equal(
                    np.asarray(image), row.reshape(3, 32, 32).T.swapaxes(0, 1)
                )
        assert len(list((out / split).rglob("*.png"))) == len(labels)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["train", "test", "train_list.txt", "val_list.txt", "synset_words.txt", "cifar10.json"]
    )


def test_red_is_red_and_up_is_up(archive: Path) -> None:
    planes = np.zeros((1, 3, 32, 32), np.uint8)
    planes[0, 0] = 200  # red
    planes[0, 1, 0, :] = 100  # green in the top row
    planes[0, 2, :, 31] = 50  # blue in the right column
    red = {b"data": planes.reshape(1, 3072), b"labels": [9]}
    sha256 = tar_gz(archive, files(test_batch=red))
    cifar10.prepare(archive, archive.parent / "out", sha256)
    with Image.open(archive.parent / "out" / "test" / "truck" / "00000.png") as image:
        assert image.size == (32, 32)
        assert image.getpixel((5, 5)) == (200, 0, 0)
        assert image.getpixel((5, 0)) == (200, 100, 0)
        assert image.getpixel((31, 5)) == (200, 0, 50)


def test_own_folder_is_replaced(archive: Path) -> None:
    sha256 = tar_gz(archive, files())
    out = archive.parent / "out"
    cifar10.prepare(archive, out, sha256)
    (out / "train" / "left_over.png").touch()
    cifar10.prepare(archive, out, sha256)
    assert not (out / "train" / "left_over.png").exists()


def test_folder_of_the_user_is_left_alone(archive: Path) -> None:
    sha256 = tar_gz(archive, files())
    theirs = archive.parent / "out" / "train_list.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    with pytest.raises(InputError, match=r"out exists"):
        cifar10.prepare(archive, theirs.parent, sha256)
    assert list(theirs.parent.iterdir()) == [theirs]


# Another archive than expected


def test_wrong_checksum(archive: Path) -> None:
    found = tar_gz(archive, files())
    assert_refused(archive, f"sha256 is {found}, expected {'0' * 64}", "0" * 64)


def test_checksum_is_compared_before_anything_is_read(archive: Path) -> None:
    archive.write_bytes(b"no archive at all")
    assert_refused(archive, f"expected {cifar10.ARCHIVE.digest}", cifar10.ARCHIVE.digest)


def test_no_archive(archive: Path) -> None:
    with pytest.raises(InputError, match=r"cifar\.tar\.gz: cannot read .*No such file"):
        cifar10.prepare(archive, archive.parent / "out")


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_truncated(archive: Path, kept: float) -> None:
    tar_gz(archive, files())
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * kept)])
    assert_refused(archive, "cut off, damaged")


def test_last_byte_lacks(archive: Path) -> None:
    tar_gz(archive, files())
    archive.write_bytes(archive.read_bytes()[:-1])
    assert_refused(archive, "cut off, damaged")


def test_truncated_before_compression(archive: Path) -> None:
    tar_gz(archive, files())
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes())[:20_000], 1))
    assert_refused(archive, "cut off, damaged|lacks")


def test_damaged_bytes_never_show_a_traceback(archive: Path) -> None:
    """The tar is damaged before compression, so that gzip's own checksum does not notice."""
    tar_gz(archive, files())
    tar = gzip.decompress(archive.read_bytes())
    rng = np.random.default_rng(0)
    headers = [at for at in range(0, len(tar), 512) if tar[at + 257 : at + 262] == b"ustar"]
    for _ in range(150):
        damaged = bytearray(tar)
        start = headers[rng.integers(len(headers))]
        for at in start + rng.integers(0, 800, rng.integers(1, 4)):
            damaged[at % len(tar)] = rng.integers(256)
        archive.write_bytes(gzip.compress(bytes(damaged), 1))
        with contextlib.suppress(InputError):
            cifar10.read_archive(archive, digest(archive))


# Tars and pickles that mean harm


def test_code_in_a_pickle_is_not_run(archive: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {archive.parent / 'evil'}",)

    evil = pickle.dumps({b"data": Evil(), b"labels": [1]}, protocol=2)
    assert b"system" in evil
    tar_gz(archive, files(data_batch_3=evil))
    assert_refused(archive, r"data_batch_3: refused, .* asks for (posix|nt)\.system")


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
def test_other_names_are_refused(archive: Path, name: bytes) -> None:
    tar_gz(archive, files(batches_meta=b"\x80\x02c" + name + b"\n."))
    asked = name.decode().replace("\n", r"\.")
    assert_refused(archive, rf"batches\.meta: refused, .* asks for {asked}")


@pytest.mark.parametrize("name", ["../evil", "cifar-10-batches-py/../../evil", "/tmp/evil"])
def test_path_to_the_outside_is_refused(archive: Path, name: str) -> None:
    tar_gz(archive, files(), regular(name, b"evil"))
    assert_refused(archive, f"'{name}' would be written outside")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_link_or_device_is_refused(archive: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("cifar-10-batches-py/link")
    member.type = kind
    member.linkname = "/etc/passwd"
    tar_gz(archive, files(), (member, b""))
    assert_refused(archive, "'cifar-10-batches-py/link' is a link or a device")


# Other contents than expected


def test_missing_batch(archive: Path) -> None:
    some = files()
    del some["data_batch_4"], some["batches.meta"]
    tar_gz(archive, some)
    assert_refused(archive, r"lacks batches\.meta, data_batch_4")


def test_files_elsewhere_in_the_tar_do_not_count(archive: Path) -> None:
    some = files()
    moved = some.pop("test_batch")
    tar_gz(archive, some, regular("elsewhere/test_batch", moved), regular("test_batch", moved))
    assert_refused(archive, "lacks test_batch")


def test_duplicate_member(archive: Path) -> None:
    again = regular("cifar-10-batches-py/test_batch", files()["test_batch"])
    tar_gz(archive, files(), again)
    assert_refused(archive, "'cifar-10-batches-py/test_batch' is in it twice")


def test_member_of_too_many_bytes(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "MAX_MEMBER", 10_000)
    tar_gz(archive, files(data_batch_2=bytes(10_001)))
    assert_refused(archive, "data_batch_2' has 10001 bytes; at most 10000")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({b"data": np.zeros((3, 3071), np.uint8)}, r"shape \[n, 3072\] .* found \[3, 3071\]"),
        ({b"data": np.zeros(3072, np.uint8)}, r"found \[3072\]"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, r"found \[0, 3072\]"),
        ({b"data": np.zeros((3, 3072), np.int8)}, "array of uint8"),
        ({b"data": np.zeros((3, 3072), np.float32)}, "array of uint8"),
        ({b"data": [[0] * 3072] * 3}, "array of uint8"),
        ({b"data": None}, "array of uint8"),
        ({b"labels": [0, 1]}, "3 'labels' were expected, found 2"),
        ({b"labels": None}, "3 'labels' were expected, found no list"),
        ({b"labels": [0, 1, 10]}, r"label 2 must be .* of 0\.\.9; found 10"),
        ({b"labels": [0, -1, 1]}, "label 1 .* found -1"),
        ({b"labels": [10**5000, 1, 1]}, "label 0 .* found something else"),
        ({b"labels": [0, True, 1]}, "label 1 .* found something else"),
        ({b"labels": [0, 1, b"2"]}, "label 2 .* found something else"),
    ],
)
def test_wrong_batch(archive: Path, change: dict[bytes, object], match: str) -> None:
    tar_gz(archive, files(data_batch_5=change))
    assert_refused(archive, f"data_batch_5: .*{match}")


@pytest.mark.parametrize(
    "names",
    [None, NAMES[:9], [*NAMES, b"more"], [*NAMES[:9], b"../x"], [*NAMES[:9], b""], [*NAMES[:9], 3]],
)
def test_wrong_names(archive: Path, names: object) -> None:
    tar_gz(archive, files(batches_meta={b"label_names": names}))
    assert_refused(archive, r"batches\.meta: .*'label_names'")


def test_same_name_twice(archive: Path) -> None:
    tar_gz(archive, files(batches_meta={b"label_names": [*NAMES[:9], b"Bird"]}))
    assert_refused(archive, "holds a name twice")


@pytest.mark.parametrize(
    ("damaged", "match"),
    [
        (b"", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b"\x80\x02N.", "a pickled dict was expected; found NoneType"),
        (python2_pickle(batch(1))[:5000], "damaged"),
        (python2_pickle(batch(1)).replace(b"M\x00\x0c", b"M\x01\x0c"), "damaged .*reshape"),
        (b"not a pickle", "damaged"),
    ],
)
def test_damaged_pickle(archive: Path, damaged: bytes, match: str) -> None:
    tar_gz(archive, files(data_batch_1=damaged))
    assert_refused(archive, f"data_batch_1: .*{match}")


# The command line


@pytest.fixture
def url(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address at which a server on loopback gives what lies in `served` beside the archive."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = archive.parent / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keeps the test's output quiet."""

    handler = functools.partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{archive.name}"
        server.shutdown()
        thread.join()


def test_tool(archive: Path, run_tool: Run) -> None:
    sha256 = tar_gz(archive, files()).upper()
    out = archive.parent / "out"
    done = run_tool(
        "prepare_cifar10", "--archive", archive, "--output_dir", out, "--sha256", sha256
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 15 training and 4 validation images of 10 classes\n"
    assert done.stderr == ""  # no progress bar where there is no terminal


def test_tool_refuses_another_archive(archive: Path, run_tool: Run) -> None:
    sha256 = tar_gz(archive, files())
    out = archive.parent / "out"
    done = run_tool("prepare_cifar10", "--archive", archive, "--output_dir", out)
    assert_user_error(done, str(archive), sha256, cifar10.ARCHIVE.digest, "170498071")
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--url", "http://127.0.0.1/x"), "--download"),
        (("--download", "--sha256", "0" * 64), "--sha256"),
        (("--sha256", "abc"), "64 hexadecimal digits"),
    ],
)
def test_tool_flags_that_do_not_fit(arguments: tuple[str, ...], part: str, run_tool: Run) -> None:
    assert_user_error(run_tool("prepare_cifar10", *arguments), part)


def test_tool_download_of_what_is_not_there(archive: Path, url: str, run_tool: Run) -> None:
    done = run_tool("prepare_cifar10", "--download", "--url", url, "--archive", archive)
    assert_user_error(done, url, "404")
    assert not archive.exists()


def test_tool_downloads(
    archive: Path,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    served = archive.parent / "served" / archive.name
    sha256 = tar_gz(served, files())
    small = KnownFile(archive.name, url, served.stat().st_size, "sha256", sha256)
    monkeypatch.setattr(cifar10, "ARCHIVE", small)
    out = archive.parent / "out"
    command = ["prepare_cifar10.py", "--download", "--archive", str(archive)]
    monkeypatch.setattr(sys, "argv", [*command, "--output_dir", str(out)])
    runpy.run_path(str(ROOT / "tools" / "prepare_cifar10.py"))["main"]()
    expected = f"{out}: 15 training and 4 validation images of 10 classes\n"
    assert capsys.readouterr() == (expected, "")
    assert archive.read_bytes() == served.read_bytes()
    assert len(read_list(out / "train_list.txt", None, 10)) == 15
