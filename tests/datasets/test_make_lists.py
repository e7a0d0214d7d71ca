"""Folders of classes to list files: what counts as an image, the split, and what is refused."""

from __future__ import annotations

import math
import os
import random
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, assert_user_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from squeezenet_paddle.data.lists import read_list, read_names
from squeezenet_paddle.datasets.folders import (
    ClassTree,
    class_names,
    read_tree,
    split,
    write_lists,
)
from squeezenet_paddle.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    """Empty files in `folder`; the lists are made of names alone."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def classes(folder: Path, **counts: int) -> Path:
    """Classes with so many images."""
    for name, count in counts.items():
        touch(folder / name, *(f"{i:03d}.jpg" for i in range(count)))
    return folder


def tree_of(counts: list[int]) -> ClassTree:
    """A tree without files."""
    names = [f"{c}/{i}.jpg" for c, count in enumerate(counts) for i in range(count)]
    labels = np.repeat(np.arange(len(counts)), counts)
    return ClassTree([f"class{c}" for c in range(len(counts))], names, labels)


# The tool


def test_lists_names_and_table(tmp_path: Path, call_tool: Run) -> None:
    images = classes(tmp_path / "images", zebra=10, ant=20)
    touch(images, "ant/deeper/and deeper/größe 猫.JPEG", "ant/notes.txt", "README", "loose.png")
    touch(images, "ant/.hidden.jpg", ".git/a.jpg", "ant/.thumbs/b.jpg", "zebra/noext")
    (images / "ant/000.jpg").unlink()
    lists = tmp_path / "lists"
    done = call_tool(
        "make_lists",
        "--images",
        images,
        "--output_dir",
        lists,
        "--val_share",
        0.2,
        "--test_share",
        0.1,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "class    train      val     test    total",
        "ant         14        4        2       20",
        "zebra        7        2        1       10",
        "total       21        6        3       30",
    ]
    left_out = lists / "left_out.csv"
    [line] = done.stderr.splitlines()
    assert line.endswith(
        "left out: 3 system files (.git, ant/.hidden.jpg, ...), 3 empty files (README, "
        f"ant/notes.txt, ...), 1 image in no class folder (loose.png); see {left_out}"
    )
    assert left_out.read_text().splitlines() == [
        "path,kind,reason",
        ".git,system file,",
        "README,empty file,",
        "ant/.hidden.jpg,system file,",
        "ant/.thumbs,system file,",
        "ant/notes.txt,empty file,",
        "loose.png,image in no class folder,",
        "zebra/noext,empty file,",
    ]
    assert sorted(p.name for p in lists.iterdir()) == [
        "left_out.csv",
        "synset_words.txt",
        "test_list.txt",
        "train_list.txt",
        "val_list.txt",
    ]
    assert read_names(lists / "synset_words.txt", 2) == ["ant", "zebra"]
    found = []
    for part in ("train", "val", "test"):
        part_list = read_list(lists / f"{part}_list.txt", images, 2)
        for i in range(len(part_list)):
            assert part_list.path(i).is_file()
            assert part_list.name(i).split("/")[0] == ["ant", "zebra"][part_list.labels[i]]
            found.append(part_list.name(i))
    expected = [f"ant/{i:03d}.jpg" for i in range(1, 20)] + [
        f"zebra/{i:03d}.jpg" for i in range(10)
    ]
    assert sorted(found) == sorted([*expected, "ant/deeper/and deeper/größe 猫.JPEG"])


def test_caltech_names(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", *(f"{c}/{i}.jpg" for c in ("002.ak47", "001.zoo")
                                          for i in range(5)))  # fmt: skip
    lists = tmp_path / "lists"
    tree = read_tree(images, r"^\d+\.(.+)$")
    write_lists(tree, split(tree, 0.2, 0, 0), lists)
    assert (lists / "synset_words.txt").read_text() == "ak47\nzoo\n"
    lines = (lists / "train_list.txt").read_text().splitlines()
    assert {line.split("/")[0] + " " + line.split(" ")[1] for line in lines} == {
        "002.ak47 0",
        "001.zoo 1",
    }
    assert not (lists / "test_list.txt").exists()


def test_mistakes_end_with_one_line(tmp_path: Path, call_tool: Run) -> None:
    images = classes(tmp_path / "images", cat=1, dog=9)
    touch(images, "notes.txt")
    flags = ("--images", images, "--output_dir", tmp_path / "lists")
    assert_user_error(call_tool("make_lists", *flags), "'cat' with 1", "at least 2")
    assert_user_error(
        call_tool("make_lists", *flags, "--class_name_pattern", "(a"), "not a regular expression"
    )
    assert not (tmp_path / "lists").exists()


# What is in the folder


def test_neither_order_of_the_disk_nor_the_run_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = classes(tmp_path / "images", b=20, a=20, c=20)
    touch(images, *(f"a/sub{i}/{j}.jpg" for i in range(4) for j in range(4)))
    results = []
    scandir = os.scandir
    for order in range(4):

        class Shuffled:
            def __init__(self, folder: str, order: int = order) -> None:
                with scandir(folder) as entries:
                    self.entries = list(entries)
                random.Random(order).shuffle(self.entries)

            def __enter__(self) -> list[os.DirEntry[str]]:
                return self.entries

            def __exit__(self, *_: object) -> None: ...

        monkeypatch.setattr(os, "scandir", Shuffled)
        tree = read_tree(images)
        folder = tmp_path / str(order)
        write_lists(tree, split(tree, 0.2, 0.2, seed=3), folder)
        results.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert all(result == results[0] for result in results)
    other = split(tree, 0.2, 0.2, seed=4)
    assert {i.item() for i in other["val"]} != {i.item() for i in split(tree, 0.2, 0.2, 3)["val"]}


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = classes(tmp_path / "elsewhere", x=3)
    images = classes(tmp_path / "images", cat=1)
    (images / "dog").symlink_to(elsewhere / "x")
    (images / "cat" / "link.jpg").symlink_to(elsewhere / "x" / "000.jpg")
    (elsewhere / "x" / "broken").symlink_to("nowhere")
    (images / "cat" / "self.jpg").symlink_to("self.jpg")
    (images / "cat" / "up").symlink_to(images)
    (images / "cat" / "upper").symlink_to(tmp_path)
    tree = read_tree(images)
    assert tree.names == ["cat/000.jpg", "cat/link.jpg", *(f"dog/00{i}.jpg" for i in range(3))]
    assert [tuple(each) for each in tree.left_out] == [
        ("cat/self.jpg", "broken link", ""),
        ("cat/up", "link to a folder that holds it", ""),
        ("cat/upper", "link to a folder that holds it", ""),
        ("dog/broken", "broken link", ""),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"at least two classes was expected, found none, and 0 images\."),
        (["a.jpg", "b.png"], r"found none, and 2 images\."),
        (["cat/1.jpg"], r"found only 'cat'\."),
        (["cat/1.jpg", "dog/x.txt", "fox/.h.jpg"], r"only 'cat' .*2 folders .*\(dog, fox\)"),
        (["cat/1.jpg", "Cat/1.jpg", "dog/1.jpg"], r"found 'Cat' \(Cat\) and 'cat' \(cat\)\."),
        (["cat/1.jpg", "dog/1\n.jpg"], r"not allow: 'dog/1\\n.jpg'"),
        (["cat/1.jpg", "dog\r/1.jpg"], r"'dog\\r/1.jpg'"),
        (["cat/1.jpg", os.fsdecode(b"dog/\xff.jpg")], r"'dog/\\udcff.jpg'"),
        (["cat/1.jpg", " /1.jpg"], "a folder's name must give a class name; none came of ' '"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_trees_that_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_tree(touch(tmp_path, *files))


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none", touch(tmp_path, "file") / "file"):
        with pytest.raises(InputError, match=f"`images` {path}: no such folder"):
            read_tree(path)


@pytest.mark.parametrize(
    ("folders", "pattern", "expected"),
    [
        (["b", "a"], None, {"b": "b", "a": "a"}),
        (["001.ak47", "002.tent"], r"^\d+\.(.+)$", {"001.ak47": "ak47", "002.tent": "tent"}),
        (["n01_cat", "n02_dog"], r"[a-z]+$", {"n01_cat": "cat", "n02_dog": "dog"}),
        (["1-cat-x", "2-dog-y"], r"-(\w+)-(\w)", {"1-cat-x": "cat", "2-dog-y": "dog"}),
        (["1. cat ", "2.dog"], r"\.(.*)", {"1. cat ": "cat", "2.dog": "dog"}),
    ],
)
def test_class_names(folders: list[str], pattern: str | None, expected: dict[str, str]) -> None:
    assert class_names(folders, pattern) == expected


@pytest.mark.parametrize(
    ("folders", "pattern", "message"),
    [
        (["1.a", "b", "2.c"], r"^\d+\.(.+)$", "must give a class name; none came of 'b'"),
        (["1.", "2.c"], r"^\d+\.(.*)$", "none came of '1.'"),
        (["x", "ay"], r"(a)?", "none came of 'x'"),
        (["1.a", "2.a"], r"^\d+\.(.+)$", r"found '1.a' \(a\) and '2.a' \(a\)"),
        (["1.a", "2.A"], r"^\d+\.(.+)$", r"found '1.a' \(a\) and '2.A' \(A\)"),
        (["a", "b"], r"[", "'\\[' is not a regular expression"),
    ],
)
def test_class_names_that_are_refused(folders: list[str], pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        class_names(folders, pattern)


# The split


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=12),
    val=st.integers(0, 19),
    test=st.integers(0, 19),
    seed=st.integers(0, 2**32 - 1),
)
def test_split(counts: list[int], val: int, test: int, seed: int) -> None:
    assume(val + test < 20)
    tree = tree_of(counts)
    twentieths = {"train": 20 - val - test, "val": val, "test": test}
    shares = {part: Fraction(n, 20) for part, n in twentieths.items() if n}
    if min(counts) < len(shares):
        with pytest.raises(InputError, match=f"so at least {len(shares)}"):
            split(tree, val / 20, test / 20, seed)
        return
    parts = split(tree, val / 20, test / 20, seed)
    assert list(parts) == list(shares)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(sum(counts)))
    for part, indices in parts.items():
        assert (np.diff(indices) > 0).all()
        found = np.bincount(tree.labels[indices], minlength=len(counts))
        assert found.min() >= 1
        for count, n in zip(counts, found.tolist()):
            if all(count * share >= 1 for share in shares.values()):
                assert math.floor(count * shares[part]) <= n <= math.ceil(count * shares[part])
    again = split(tree, val / 20, test / 20, seed)
    assert all((parts[part] == again[part]).all() for part in parts)


def test_every_image_can_be_drawn() -> None:
    tree = tree_of([5, 5])
    drawn = {i for seed in range(60) for i in split(tree, 0.2, 0, seed)["val"].tolist()}
    assert drawn == set(range(10))


def test_the_total_is_the_asked_share() -> None:
    parts = split(tree_of([13] * 40), 0.25, 0.1, 0)
    assert {part: len(indices) for part, indices in parts.items()} == {
        "train": 338,
        "val": 130,
        "test": 52,
    }


def test_small_classes_in_great_number() -> None:
    parts = split(tree_of([3] * 20_000), 0.1, 0.1, 0)
    assert {part: len(indices) for part, indices in parts.items()} == {
        "train": 20_000,
        "val": 20_000,
        "test": 20_000,
    }


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (-0.1, 0, r"`val_share` must lie in 0..1, 1 excluded; found -0.1\."),
        (1, 0, "`val_share` must lie in"),
        (0, 20, r"`test_share` must lie in 0..1, 1 excluded; found 20\."),
        (math.nan, 0, "`val_share` must lie in .* found nan"),
        (0.5, 0.5, r"must add up to less than 1, .* found 0.5 and 0.5\."),
    ],
)
def test_shares_that_are_refused(val: float, test: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        split(tree_of([5, 5]), val, test, 0)


def test_seeds_that_are_refused() -> None:
    with pytest.raises(InputError, match="`seed` must lie in 0..4294967295"):
        split(tree_of([5, 5]), 0.2, 0, 2**32)


def test_classes_that_are_too_small_are_named() -> None:
    message = (
        "an image for each of train, val, test, so at least 3; "
        "found 'class1' with 2; 'class3' with 1."
    )
    with pytest.raises(InputError, match=message):
        split(tree_of([3, 2, 9, 1]), 0.1, 0.1, 0)


# Files


def test_lists_are_replaced_but_none_of_another_split_stays(tmp_path: Path) -> None:
    tree = tree_of([9, 9])
    write_lists(tree, split(tree, 0.2, 0.2, 0), tmp_path)
    write_lists(tree, split(tree, 0.3, 0.3, 1), tmp_path)
    before = (tmp_path / "train_list.txt").read_bytes()
    with pytest.raises(InputError, match=r"test_list.txt is of another split, .* no test part"):
        write_lists(tree, split(tree, 0.2, 0, 0), tmp_path)
    assert (tmp_path / "train_list.txt").read_bytes() == before
