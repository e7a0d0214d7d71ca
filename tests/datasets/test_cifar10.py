"""CIFAR-10's archive: a small one in the same format becomes images; any other is refused."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from python2_pickle import python2_pickle

from squeezenet_paddle.cli import prepare_cifar10
from squeezenet_paddle.data.lists import read_list, read_names
from squeezenet_paddle.datasets import cifar10
from squeezenet_paddle.download import KnownFile
from squeezenet_paddle.errors import InputError

NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer"]
NAMES += [b"dog", b"frog", b"horse", b"ship", b"truck"]
Contents = dict[str, dict[bytes, object]]


def batch(seed: int, count: int = 3) -> dict[bytes, object]:
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": b"a batch",
        b"labels": rng.integers(0, 10, count).tolist(),
        b"data": rng.integers(0, 256, (count, 3072), np.uint8),
        b"filenames": [b"image.png"] * count,
    }


def contents() -> Contents:
    """What is in the files of a small archive: five batches of 3 images, one of 4 for testing."""
    files: Contents = {f"data_batch_{number}": batch(number) for number in range(1, 6)}
    files["test_batch"] = batch(6, count=4)
    files["batches.meta"] = {b"num_cases_per_batch": 3, b"label_names": NAMES, b"num_vis": 3072}
    return files


def write_archive(path: Path, contents: Contents, dump: object = python2_pickle) -> KnownFile:
    """Writes an archive as the published one is laid out; what it must be."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in contents.items():
            data = dump(content)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return KnownFile(path.name, path.as_uri(), len(data), "sha256", digest)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The name of the archive in an otherwise empty folder."""
    return tmp_path / "cifar.tar.gz"


@pytest.mark.parametrize(
    "dump", [python2_pickle, functools.partial(pickle.dumps, protocol=2)], ids=["py2", "py3"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_images_lists_and_names(archive: Path, dump: functools.partial, order: str) -> None:
    original = contents()
    for content in original.values():
        if b"data" in content:
            content[b"data"] = np.asarray(content[b"data"], order=order)
    expected = write_archive(archive, original, dump)
    out = archive.parent / "made" / "out"

    assert cifar10.prepare(str(archive), str(out), expected) == (15, 4)

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
    expected = write_archive(archive, {**contents(), "test_batch": red})
    cifar10.prepare(archive, archive.parent / "out", expected)
    with Image.open(archive.parent / "out" / "test" / "truck" / "00000.png") as image:
        assert image.size == (32, 32)
        assert image.getpixel((5, 5)) == (200, 0, 0)
        assert image.getpixel((5, 0)) == (200, 100, 0)
        assert image.getpixel((31, 5)) == (200, 0, 50)


def test_own_folder_is_replaced(archive: Path) -> None:
    expected = write_archive(archive, contents())
    out = archive.parent / "out"
    cifar10.prepare(archive, out, expected)
    (out / "train" / "left_over.png").touch()
    cifar10.prepare(archive, out, expected)
    assert not (out / "train" / "left_over.png").exists()


def test_folder_of_the_user_is_left_alone(archive: Path) -> None:
    expected = write_archive(archive, contents())
    theirs = archive.parent / "out" / "train_list.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    with pytest.raises(InputError, match=r"out exists"):
        cifar10.prepare(archive, theirs.parent, expected)
    assert list(theirs.parent.iterdir()) == [theirs]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"\xff"])
def test_another_archive_is_refused_before_it_is_read(archive: Path, damage: object) -> None:
    expected = write_archive(archive, contents())
    archive.write_bytes(damage(archive.read_bytes()))
    message = r"cifar\.tar\.gz is not CIFAR-10's published python archive: .* expected "
    with pytest.raises(InputError, match=message):
        cifar10.prepare(archive, archive.parent / "out", expected)
    assert list(archive.parent.iterdir()) == [archive]


def test_no_archive(archive: Path) -> None:
    with pytest.raises(InputError, match=r"cifar\.tar\.gz: cannot read .*No such file"):
        cifar10.prepare(archive, archive.parent / "out")


# The command line


def test_command(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cifar10, "ARCHIVE", write_archive(archive, contents()))
    out = archive.parent / "out"
    # The archive is there, so that --download only checks it.
    prepare_cifar10.main(["--download", "--archive", str(archive), "--output_dir", str(out)])
    expected = f"{out}: 15 training and 4 validation images of 10 classes\n"
    assert capfd.readouterr() == (expected, "")  # no progress bar where there is no terminal


def test_command_refuses_another_archive(archive: Path) -> None:
    write_archive(archive, contents())
    with pytest.raises(InputError, match="expected 170498071"):
        prepare_cifar10.main(["--archive", str(archive), "--output_dir", str(archive.parent / "o")])
    assert list(archive.parent.iterdir()) == [archive]


def test_url_needs_download() -> None:
    with pytest.raises(InputError, match="--download was expected"):
        prepare_cifar10.main(["--url", "http://127.0.0.1/x"])
