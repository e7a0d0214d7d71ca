"""From a folder of classes to lists: whatever lies in it, a clear message or a sensible result."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from runs import make_pretrained

from squeezenet_paddle.data.lists import read_list, read_names
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.files import sha256
from squeezenet_paddle.finetuning.config import FinetuneConfig
from squeezenet_paddle.finetuning.lists import (
    Images,
    Lists,
    inspect_images,
    read_images,
    split_images,
    write_lists,
)
from squeezenet_paddle.finetuning.run import _lists_of

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


def make_config(output_dir: Path, pretrained: Path, **given: Any) -> FinetuneConfig:
    return FinetuneConfig.from_settings(output_dir=output_dir, pretrained=pretrained, **given)


def touch(folder: Path, *names: str) -> Path:
    """Files, images of a content of their own if their names say so."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png"):
            pixels = np.frombuffer(hashlib.sha256(name.encode()).digest()[:30], np.uint8)
            path.write_bytes(cv2.imencode(".png", pixels.reshape(1, 10, 3))[1].tobytes())
        else:
            path.write_text(name)
    return folder


def find_lists(config: FinetuneConfig) -> Lists:
    images = read_images(config)
    if isinstance(images, Images):
        return split_images(inspect_images(images, config), config)
    return images


def lists_of(images: Path, run: Path, **given: Any) -> Lists:
    lists = find_lists(make_config(run, Path("pretrained"), images=images, **given))
    write_lists(lists, run)
    return lists


def test_a_folder_becomes_lists_with_each_class_in_both(tmp_path: Path) -> None:
    images = touch(
        tmp_path / "my images",
        *(f"cat/{i:02}.jpg" for i in range(10)),
        *(f"dog/deep/{i:02}.PNG" for i in range(20)),
        *("cat/.hidden.jpg", ".git/x.jpg", "cat/notes.txt", "loose.jpg", "README"),
    )
    run = tmp_path / "run"
    lists = lists_of(images, run)
    assert "1 image in no class folder (loose.jpg)" in " ".join(lists.notes)
    assert "2 text files (README, cat/notes.txt)" in " ".join(lists.notes)
    assert (run / "left_out.csv").read_text().count("\n") == 6
    train = read_list(lists.train_list, lists.root, 2)
    val = read_list(lists.val_list, lists.root, 2)
    counts = np.stack([np.bincount(each.labels) for each in (train, val)])
    assert counts.sum(axis=0).tolist() == [10, 20]
    assert (counts >= 1).all()
    paths = {each.path(i) for each in (train, val) for i in range(len(each))}
    assert paths == set(images.rglob("*/[0-9]*"))
    assert lists.names is not None
    assert read_names(lists.names, 2) == ["cat", "dog"]
    assert lists_of(images, run).written == lists.written  # again, the same lists


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["cat/1.jpg", "dog/1.jpg", "dog/2.jpg"], ["at least 2", "'cat' with 1"]),
        (
            ["cat/1.jpg", "cat/2.jpg", "dog/notes.txt"],
            ["only 'cat'", "1 folder without images (dog)"],
        ),
        (["cat/1.jpg", "cat/2.jpg"], ["at least two classes", "only 'cat'"]),
        (["1.jpg", "2.jpg"], ["at least two classes", "2 images"]),
        (["cat/1.jpg", "Cat/1.jpg", "dog/1.jpg"], ["differ in more than case", "'Cat'", "'cat'"]),
    ],
)
def test_what_is_no_set_of_classes_is_refused(
    tmp_path: Path, names: list[str], parts: list[str]
) -> None:
    images = touch(tmp_path / "images", *names)
    with pytest.raises(InputError) as caught:
        find_lists(make_config(tmp_path / "run", Path("pretrained"), images=images))
    for part in parts:
        assert part in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_four_thousand_classes(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", *(f"{c:05}/{i}.jpg" for c in range(4_000) for i in (0, 1)))
    lists = lists_of(images, tmp_path / "run")
    for file in (lists.train_list, lists.val_list):
        images_of = read_list(file, lists.root, 4_000)
        assert np.bincount(images_of.labels).tolist() == [1] * 4_000


def test_a_list_without_a_validation_list_is_split(tmp_path: Path, pretrained: Path) -> None:
    lines = [f"{c}/{i}.jpg {c}\n" for c in (0, 2, 7) for i in range(5)]
    touch(tmp_path, *(line.split()[0] for line in lines))
    (tmp_path / "all.txt").write_text("".join(lines))
    run = tmp_path / "run"
    lists = find_lists(make_config(run, pretrained, train_list=tmp_path / "all.txt"))
    write_lists(lists, run)
    train = read_list(lists.train_list, lists.root, None)
    val = read_list(lists.val_list, lists.root, None)
    counts = np.stack([np.bincount(each.labels) for each in (train, val)])
    assert counts.sum(axis=0).tolist() == [5, 0, 5, 0, 0, 0, 0, 5]
    assert (counts[:, [0, 2, 7]] >= 1).all()
    names = {
        f"{each.name(i)} {each.labels[i]}\n" for each in (train, val) for i in range(len(each))
    }
    assert names == set(lines)
    assert train.root == tmp_path


def test_labels_may_be_names_where_a_list_is_split(tmp_path: Path, pretrained: Path) -> None:
    (tmp_path / "names.txt").write_text("n01 red fox\nn02 grey wolf\n")
    lines = [f"{name}/{i}.jpg {name}\n" for name in ("n01", "n02") for i in range(5)]
    touch(tmp_path, *(line.split()[0] for line in lines))
    (tmp_path / "all.txt").write_text("".join(lines))
    run = tmp_path / "run"
    names = {"train_list": tmp_path / "all.txt", "synset_word_list": tmp_path / "names.txt"}
    lists = find_lists(make_config(run, pretrained, **names))
    write_lists(lists, run)
    train = read_list(lists.train_list, lists.root, 2)
    val = read_list(lists.val_list, lists.root, 2)
    counts = np.stack([np.bincount(each.labels) for each in (train, val)])
    assert counts.sum(axis=0).tolist() == [5, 5]
    assert (counts >= 1).all()
    assert all(train.name(i).startswith(f"n0{train.labels[i] + 1}/") for i in range(len(train)))


def test_both_lists_are_taken_as_they_are(tmp_path: Path, pretrained: Path) -> None:
    given = {"train_list": tmp_path / "a.txt", "val_list": tmp_path / "b.txt"}
    lists = find_lists(make_config(tmp_path / "run", pretrained, **given))
    assert (lists.train_list, lists.val_list) == tuple(given.values())
    assert not lists.written


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"images": Path("a"), "train_list": Path("b")},
        {"images": Path("a"), "val_list": Path("b")},
        {"train_list": Path("a"), "class_name_pattern": "x"},
        {"train_list": Path("a"), "val_list": Path("b"), "val_share": 0.1},
    ],
)
def test_settings_that_contradict_each_other(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="`"):
        make_config(tmp_path, Path("pretrained"), **given)


def test_a_directory_inside_the_images_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{i}.jpg" for c in "ab" for i in range(2)))
    with pytest.raises(InputError, match="`output_dir`"):
        find_lists(make_config(tmp_path / "output", Path("pretrained"), images=tmp_path))


def test_lists_of_unknown_origin_are_left_alone(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", *(f"{c}/{i}.jpg" for c in "ab" for i in range(9)))
    run = tmp_path / "run"
    run.mkdir()
    (run / "train_list.txt").write_text("mine")
    with pytest.raises(InputError, match=r"train_list.txt is of other images.*`overwrite`"):
        lists_of(images, run)
    assert (run / "train_list.txt").read_text() == "mine"


def test_images_that_cannot_be_read_are_left_out_and_listed(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", *(f"{c}/{i}.jpg" for c in "ab" for i in range(9)))
    for name in ("a/3.jpg", "b/7.jpg"):
        (images / name).write_bytes((images / name).read_bytes()[:40])
    run = tmp_path / "run"
    lists = lists_of(images, run)
    assert "left out: 2 images that cannot be read (a/3.jpg, b/7.jpg)" in " ".join(lists.notes)
    text = (run / "left_out.csv").read_text()
    assert "a/3.jpg,image that cannot be read," in text
    assert "cut off or damaged" in text
    written = b"".join(lists.written.values())
    assert b"a/2.jpg" in written
    assert b"a/3.jpg" not in written
    with pytest.raises(InputError, match="2 of 18 images cannot be read.*a/3.jpg.*b/7.jpg"):
        lists_of(images, tmp_path / "other", strict=True)
    for path in (images / "a").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="no image of these classes can be read: a;"):
        lists_of(images, tmp_path / "other")


def test_a_folder_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """What went away is left out and told, and what was replaced is taken as it is by then."""
    folder = touch(tmp_path / "images", *(f"{c}/{i}.jpg" for c in "ab" for i in range(9)))
    config = make_config(tmp_path / "run", Path("pretrained"), images=folder)
    images = read_images(config)
    assert isinstance(images, Images)
    (folder / "a" / "0.jpg").unlink()
    shutil.copy(folder / "b" / "1.jpg", folder / "b" / "2.jpg")
    touch(folder, "a/new.jpg")
    lists = split_images(inspect_images(images, config), config)
    notes = " ".join(lists.notes)
    assert "left out: 1 image that cannot be read (a/0.jpg; " in notes
    assert "(No such file or directory)); see" in notes
    assert lists.record is not None
    hashes = {image.path: image.sha256 for image in lists.record.images}
    assert len(hashes) == 17
    assert hashes["b/2.jpg"] == hashes["b/1.jpg"]
    assert hashes == {path: sha256((folder / path).read_bytes()) for path in hashes}


def test_a_folder_that_has_a_split_keeps_it(tmp_path: Path) -> None:
    names = [f"{p}/{c}/{i}.jpg" for p in ("train", "val", "test") for c in "ab" for i in range(4)]
    images = touch(tmp_path / "images", *names)
    run = tmp_path / "run"
    lists_of(images, run)
    for part in ("train", "val", "test"):
        lines = (run / f"{part}_list.txt").read_text().splitlines()
        assert sorted(line.split()[0] for line in lines) == sorted(
            name for name in names if name.startswith(part)
        )


def test_what_validates_is_told_where_the_folders_have_no_such_part(tmp_path: Path) -> None:
    names = [f"{p}/{c}/{i}.jpg" for p in ("train", "test") for c in "ab" for i in range(12)]
    lists = lists_of(touch(tmp_path / "images", *names), tmp_path / "run")
    drawn = len((tmp_path / "run" / "val_list.txt").read_text().splitlines())
    assert (
        f"validation: {drawn} of the 24 training images, as the folders have no part val; the part "
        "test is left for a final score" in lists.notes
    )


def test_what_make_lists_left_out_stays_where_both_lists_are_given(tmp_path: Path) -> None:
    (tmp_path / "left_out.csv").write_text("path,kind,reason\nnotes.txt,text file,\n")
    lists = (tmp_path / "train_list.txt", tmp_path / "val_list.txt")
    write_lists(Lists(*lists, None, None, None, {}), tmp_path)
    assert "notes.txt" in (tmp_path / "left_out.csv").read_text()


def test_groups_that_the_folders_divide_are_told(tmp_path: Path, pretrained: Path) -> None:
    root = tmp_path / "data"
    for n, name in enumerate(("train/a/x-0", "train/b/y-0", "val/a/x-1", "val/b/z-0")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"{name}.png"), np.full((40, 40, 3), 20 * n, "uint8"))
    given = {"images": root, "check": False, "group_pattern": "([^/]+)-", "num_workers": 0}
    config = make_config(tmp_path / "run", pretrained, **given)
    (tmp_path / "run").mkdir()
    lists, _ = _lists_of(read_images(config), config)
    assert [note for note in lists.notes if "pattern" in note] == [
        "1 of 3 groups of the pattern are in more than one part, as the folders have it, so "
        "the scores are too high; the first image of each: train/a/x-0.png"
    ]
