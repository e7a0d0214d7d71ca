"""Folders of classes to list files: what counts as an image, the split, and what is refused."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.data.contents import content_hashes
from squeezenet_paddle.data.lists import read_list, read_names
from squeezenet_paddle.datasets.folders import class_names, read_tree, write_lists
from squeezenet_paddle.datasets.split import split
from squeezenet_paddle.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    """Files in `folder`, each of a content of its own."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return folder


def classes(folder: Path, **counts: int) -> Path:
    """Classes with so many images."""
    for name, count in counts.items():
        touch(folder / name, *(f"{i:03d}.jpg" for i in range(count)))
    return folder


def split_of(folder: Path, val: float = 0.2, test: float = 0.0, seed: int = 0) -> dict[str, Any]:
    tree = read_tree(folder)
    return split(tree.labels, val, test, keys=content_hashes([folder / n for n in tree.names]),
                 seed=seed, classes=tree.classes)  # fmt: skip


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
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["class", "train", "val", "test", "total"]
    assert [row[0] for row in rows[1:]] == ["ant", "zebra", "total", "share"]
    counts = np.array([row[1:] for row in rows[1:4]], int)
    assert counts[:, 3].tolist() == [20, 10, 30]
    assert (counts[:2].sum(0) == counts[2]).all()
    assert (counts[:, :3].sum(1) == counts[:, 3]).all()
    assert counts.min() >= 1
    assert rows[4][1::2] == [f"{100 * n / 30:.1f}" for n in counts[2]]
    left_out = lists / "left_out.csv"
    [line] = done.stderr.splitlines()
    assert line.endswith(
        "left out: 1 image in no class folder (loose.png), 3 text files (README, ant/notes.txt, "
        f"...), 3 system files (.git, ant/.hidden.jpg, ...); see {left_out}"
    )
    assert left_out.read_text().splitlines() == [
        "path,kind,reason",
        ".git,system file,",
        "README,text file,",
        "ant/.hidden.jpg,system file,",
        "ant/.thumbs,system file,",
        "ant/notes.txt,text file,",
        "loose.png,image in no class folder,",
        "zebra/noext,text file,",
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
        assert len(part_list) == counts[2][("train", "val", "test").index(part)]
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
    write_lists(tree, split(tree.labels, 0.2, 0, keys=tree.names), lists)
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
        write_lists(tree, split_of(images, 0.2, 0.2, seed=3), folder)
        results.append({p.name: p.read_bytes() for p in folder.iterdir()})
    assert all(result == results[0] for result in results)


def test_folders_that_link_to_each_other_are_read_once_each(tmp_path: Path) -> None:
    """Of twelve there are a billion paths through the links."""
    names = [f"class{i:02}" for i in range(12)]
    images = classes(tmp_path / "images", **dict.fromkeys(names, 2))
    (tmp_path / "elsewhere").mkdir()
    classes(tmp_path / "elsewhere", x=1)
    (images / "class00" / "more").symlink_to(tmp_path / "elsewhere")
    (images / "class01" / "more").symlink_to(tmp_path / "elsewhere" / "x")
    for one in names:
        for other in names:
            if one != other:
                (images / one / other).symlink_to(images / other)
    tree = read_tree(images)
    assert np.bincount(tree.labels).tolist() == [3, *[2] * 11]
    assert "class00/more/x/000.jpg" in tree.names
    kinds = {each.path: each.kind for each in tree.left_out}
    assert kinds["class00/class01"] == "link to a folder that is read already"
    assert kinds["class01/more"] == "link to a folder that is read already"
    assert len(kinds) == 12 * 11 + 1


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
    file = touch(tmp_path, "file") / "file"
    for path, found in (tmp_path / "none", "no such folder"), (file, "a folder was expected"):
        with pytest.raises(InputError, match=f"`images` {path}: {found}"):
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


# Files


def test_lists_are_replaced_but_none_of_another_split_stays(tmp_path: Path) -> None:
    images, lists = classes(tmp_path / "images", ant=9, bee=9), tmp_path / "lists"
    tree = read_tree(images)
    write_lists(tree, split_of(images, 0.2, 0.2), lists)
    write_lists(tree, split_of(images, 0.3, 0.3, seed=1), lists)
    before = (lists / "train_list.txt").read_bytes()
    with pytest.raises(InputError, match=r"test_list.txt is of another split, .* no test part"):
        write_lists(tree, split_of(images), lists)
    assert (lists / "train_list.txt").read_bytes() == before
