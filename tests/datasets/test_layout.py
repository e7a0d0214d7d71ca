"""Which folders are the classes and which the split, in the layouts that people have."""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.cli.common import with_flags
from squeezenet_paddle.data.lists import read_list, read_names
from squeezenet_paddle.datasets.folders import ClassTree, labelled_images, read_tree, split_tree
from squeezenet_paddle.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    """Files in `folder`, each of another content, which count as images by their names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def images(*folders: str, count: int = 2) -> list[str]:
    """Names of so many images in each folder."""
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(count)]


def by_class(tree: ClassTree) -> dict[str, list[str]]:
    """The folders of each class's images."""
    return {
        name: sorted({tree.names[i].rpartition("/")[0] for i in np.flatnonzero(tree.labels == c)})
        for c, name in enumerate(tree.classes)
    }


def by_part(tree: ClassTree) -> dict[str, list[str]]:
    """The topmost folders of each part's images."""
    assert tree.parts is not None
    return {
        part: sorted({name.split("/")[0] for name, p in zip(tree.names, tree.parts) if p == part})
        for part in sorted(set(tree.parts))
    }


# The split


@pytest.mark.parametrize(
    "parts",
    [
        {"train": "train", "val": "val"},
        {"train": "Train", "val": "valid", "test": "TEST"},
        {"train": "training", "val": "validation"},
        {"train": "Training", "test": "Testing"},
        {"train": "train_set", "test": "test-images"},
    ],
)
@pytest.mark.parametrize("above", ["", "download/data/"])
def test_a_split_is_taken_as_it_is(tmp_path: Path, parts: dict[str, str], above: str) -> None:
    names = [f"{above}{folder}/{c}" for folder in parts.values() for c in ("cat", "dog")]
    tree = read_tree(touch(tmp_path, *images(*names)))
    assert tree.classes == ["cat", "dog"]
    assert tree.parts is not None
    assert sorted(zip(tree.names, tree.parts)) == sorted(
        (f"{above}{folder}/{c}/{i}.jpg", part)
        for part, folder in parts.items()
        for c in ("cat", "dog")
        for i in range(2)
    )
    assert any(
        note.startswith("split: as the folders") and "4 train" in note for note in tree.notes
    )


def test_each_part_may_lie_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    names = [f"{p}/{p}/{c}" for p in ("training_set", "test_set") for c in ("cats", "dogs")]
    tree = read_tree(touch(tmp_path, *images(*names)))
    assert tree.classes == ["cats", "dogs"]
    assert by_part(tree) == {"train": ["training_set"], "test": ["test_set"]}


def test_a_split_inside_the_classes(tmp_path: Path) -> None:
    names = [f"{c}/{p}" for c in ("cat", "dog") for p in ("train", "val")]
    tree = read_tree(touch(tmp_path, *images(*names)))
    assert tree.classes == ["cat", "dog"]
    assert tree.parts is not None
    assert {n.split("/")[1] == p for n, p in zip(tree.names, tree.parts)} == {True}
    assert read_tree(tmp_path, class_level=1).parts == tree.parts
    scored = labelled_images(tmp_path, ["dog", "cat"])
    assert {scored.name(i).split("/")[1] for i in range(len(scored))} == {"val"}


def test_a_split_inside_some_classes_alone_is_not_taken_and_told(tmp_path: Path) -> None:
    touch(tmp_path, *images("cat/train", "cat/val", "dog/train", "dog/val", "emu"))
    tree = read_tree(tmp_path)
    assert tree.parts is None
    assert tree.notes == [
        "split: that of the folders in cat, dog is not taken, as there are images outside of such "
        "in emu"
    ]


def test_what_lies_beside_a_split_is_left_out(tmp_path: Path) -> None:
    names = images("train/cat", "train/dog", "val/cat", "val/dog", "val/emu", "plots", "val")
    tree = read_tree(touch(tmp_path, *names))
    assert tree.classes == ["cat", "dog"]
    assert len(tree.names) == 8
    kinds = {each.path.rpartition("/")[0]: each.kind for each in tree.left_out}
    assert kinds == {
        "plots": "image in no class folder",
        "val": "image in no class folder",
        "val/emu": "image of a class without training images",
    }


def test_a_class_alone_in_a_part_is_a_class(tmp_path: Path) -> None:
    names = images("train/cat/a", "train/cat/b", "train/dog/a", "val/cat/c", "val/cat/d")
    tree = read_tree(touch(tmp_path, *names))
    assert tree.classes == ["cat", "dog"]
    assert by_part(tree) == {"train": ["train"], "val": ["val"]}


def test_images_to_test_on_without_classes_make_no_split(tmp_path: Path) -> None:
    tree = read_tree(touch(tmp_path, *images("train/cat", "train/dog", "test")))
    assert tree.classes == ["cat", "dog"]
    assert tree.parts is None
    assert [each.path for each in tree.left_out] == ["test/0.jpg", "test/1.jpg"]


def test_tiny_imagenet(tmp_path: Path) -> None:
    """Each class has a folder `images`; the other parts have no class folders."""
    names = images("train/n01/images", "train/n02/images", "val/images", "test/images")
    tree = read_tree(touch(tmp_path, *names, "train/n01/n01_boxes.txt", "val/val_annotations.txt"))
    assert tree.classes == ["n01", "n02"]
    assert tree.parts is None
    assert not tree.notes
    kinds = [each.kind for each in tree.left_out]
    assert kinds.count("image of a class without training images") == 4
    assert read_tree(tmp_path / "train").classes == ["n01", "n02"]


def test_train_may_be_a_class(tmp_path: Path) -> None:
    tree = read_tree(touch(tmp_path, *images("train", "car", "plane")))
    assert tree.classes == ["car", "plane", "train"]
    assert tree.parts is None
    tree = read_tree(touch(tmp_path / "b", *images("train/steam", "car/old", "test/x")))
    assert tree.classes == ["car", "test", "train"]


def test_a_split_without_class_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *images("train", "val"))
    with pytest.raises(InputError, match=r"a folder for each class was expected in train, val"):
        read_tree(tmp_path)
    assert read_tree(tmp_path, class_level=1).classes == ["train", "val"]


def test_what_a_split_lacks_is_drawn_from_the_training_images(tmp_path: Path) -> None:
    names = images("train/cat", "train/dog", count=10) + images("test/cat", "test/dog", count=3)
    tree = read_tree(touch(tmp_path, *names))
    parts = split_tree(tree, tmp_path, None, None, 0)
    assert list(parts) == ["train", "val", "test"]
    assert {part: len(i) for part, i in parts.items()} == {
        "train": 20 - len(parts["val"]),
        "val": len(parts["val"]),
        "test": 6,
    }
    for part, indices in parts.items():
        folder = "test" if part == "test" else "train"
        assert {tree.names[i].split("/")[0] for i in indices} == {folder}
    with pytest.raises(InputError, match="`test_share`: the folders have a part test already"):
        split_tree(tree, tmp_path, None, 0.1, 0)


def test_a_class_that_a_part_lacks_is_told(tmp_path: Path, call_tool: Run) -> None:
    names = images("train/cat", "train/dog", "train/emu", "val/cat", "val/dog")
    done = call_tool(
        *("make_lists", "--images", touch(tmp_path / "t", *names)),
        *("--output_dir", tmp_path / "lists"),
    )
    assert done.returncode == 0
    assert "no val images of emu" in done.stderr
    assert "emu          2        0        2\n" in done.stdout


# The level


def test_the_topmost_folders_are_the_classes_where_images_lie_deeper(tmp_path: Path) -> None:
    tree = read_tree(touch(tmp_path, *images("cat", "cat/a/b", "dog/a")))
    assert by_class(tree) == {"cat": ["cat", "cat/a/b"], "dog": ["dog/a"]}
    assert not tree.notes


def test_a_folder_that_alone_holds_the_others_is_entered(tmp_path: Path) -> None:
    touch(tmp_path, *images("a/b/cat", "a/b/dog/deep"), "cover.jpg")
    tree = read_tree(tmp_path)
    assert by_class(tree) == {"cat": ["a/b/cat"], "dog": ["a/b/dog/deep"]}
    assert tree.notes == [f"classes: the folders in {tmp_path / 'a' / 'b'}"]
    assert [each.path for each in tree.left_out] == ["cover.jpg"]


def test_folders_below_the_classes_are_told(tmp_path: Path) -> None:
    tree = read_tree(touch(tmp_path, *images("pet/cat", "pet/dog", "bird/emu", "bird/owl")))
    assert tree.classes == ["bird", "pet"]
    assert "class_level 2 would take these: cat, dog, emu, ..." in tree.notes[0]
    assert read_tree(tmp_path, class_level=2).classes == ["cat", "dog", "emu", "owl"]


def test_names_that_recur_below_several_folders_are_asked_for(tmp_path: Path) -> None:
    touch(tmp_path, *images("2024/cat", "2024/dog", "2025/cat", "2025/dog", "2025/emu"))
    with pytest.raises(InputError) as error:
        read_tree(tmp_path)
    assert "`class_level` 1 takes 2024, 2025, 2 takes cat, dog, emu." in str(error.value)
    assert read_tree(tmp_path, class_level=1).classes == ["2024", "2025"]
    assert by_class(read_tree(tmp_path, class_level=2))["cat"] == ["2024/cat", "2025/cat"]


def test_the_level_may_lie_below_a_split(tmp_path: Path) -> None:
    names = [f"{p}/{y}/{c}" for p in ("train", "val") for y in ("1", "2") for c in ("cat", "dog")]
    touch(tmp_path, *images(*names, "extra/1/cat"))
    with pytest.raises(InputError, match="`class_level` 2 takes 1, 2, 3 takes cat, dog"):
        read_tree(tmp_path)
    tree = read_tree(tmp_path, class_level=3)
    assert tree.classes == ["cat", "dog"]
    assert by_part(tree) == {"train": ["train"], "val": ["val"]}
    assert [each.path for each in tree.left_out] == ["extra/1/cat/0.jpg", "extra/1/cat/1.jpg"]


def test_what_sorting_left_in_no_class_is_left_out(tmp_path: Path) -> None:
    root = touch(tmp_path, *images("cat", "dog", "none of these", "unsure"))
    tree = read_tree(root)
    assert tree.classes == ["cat", "dog"]
    assert [(each.path, each.kind) for each in tree.left_out] == [
        (f"{name}/{i}.jpg", f"image sorted as {name}")
        for name in ("none of these", "unsure")
        for i in range(2)
    ]
    scored = labelled_images(root, ["dog", "cat"])
    assert scored.labels is not None
    assert scored.labels.tolist() == [1, 1, 0, 0]


def test_a_split_with_a_part_of_another_name_is_told(tmp_path: Path) -> None:
    """The images of `dev` were mixed with those to train on, without a word."""
    touch(tmp_path, *images("train/cat", "train/dog", "dev/cat", "dev/dog"))
    tree = read_tree(tmp_path, class_level=2)
    assert tree.parts is None
    [note] = tree.notes
    assert "split: none is taken, and the images in train and dev are mixed" in note
    touch(tmp_path, *images("val/cat", "val/dog"))
    tree = read_tree(tmp_path, class_level=2)
    assert set(tree.parts or ()) == {"train", "val"}
    assert "left out is what lies in dev" in tree.notes[0]
    touch(tmp_path / "plain", *images("2024/cat", "2025/dog"))
    assert read_tree(tmp_path / "plain", class_level=2).notes == []


def test_a_level_that_no_folder_has(tmp_path: Path) -> None:
    touch(tmp_path, *images("cat", "dog/a"))
    with pytest.raises(InputError, match="`class_level` 3: the folders .* lie at most 2 deep"):
        read_tree(tmp_path, class_level=3)


# Names


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    tree = read_tree(touch(tmp_path, *images(*map(str, range(12)))))
    assert tree.classes == [str(number) for number in range(12)]
    assert [tree.names[i].split("/")[0] for i in range(0, 24, 2)] == tree.classes


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_differ_only_in_unicode_form(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Zoë")
    decomposed = unicodedata.normalize("NFD", "Zoë")
    touch(tmp_path, *images(composed, decomposed, "dog"))
    with pytest.raises(InputError, match="more than case and Unicode form") as error:
        read_tree(tmp_path)
    assert r"'Zoe\u0308' (Zoë) and 'Zo\xeb' (Zoë)" in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems change such names")
def test_a_class_has_its_composed_name_and_its_folder_any(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Zoë")
    tree = read_tree(touch(tmp_path, *images(decomposed, "dog")))
    assert tree.classes == ["Zoë", "dog"] or tree.classes == ["dog", "Zoë"]
    assert all((tmp_path / name).is_file() for name in tree.names)
    scored = labelled_images(tmp_path, ["dog", decomposed])
    assert scored.labels.tolist() == [1, 1, 0, 0] or scored.labels.tolist() == [0, 0, 1, 1]


# Trees that change, and large ones


def test_a_folder_that_goes_away_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *images("cat", "dog", "dog/gone"))
    scandir = os.scandir

    def vanishing(folder: str) -> object:
        if str(folder).endswith("gone"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", vanishing)
    tree = read_tree(tmp_path)
    assert len(tree.names) == 4
    assert ("dog/gone", "folder that went away while it was read", "") in tree.left_out


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *images("cat", "dog"))

    def forbidden(folder: str) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(InputError, match=r"cannot read this folder \(Permission denied\)"):
        read_tree(tmp_path)


# The commands


def test_make_lists_writes_the_split_of_the_folders(tmp_path: Path, call_tool: Run) -> None:
    tree = touch(tmp_path / "t", *images("train/1", "train/10", "train/2", "val/10", "val/2"))
    lists = tmp_path / "lists"
    done = call_tool("make_lists", "--images", tree, "--output_dir", lists)
    assert done.returncode == 0
    assert done.stdout.split("\n")[1:] == [
        "1            2        0        2",
        "2            2        2        4",
        "10           2        2        4",
        "total        6        4       10",
        "share   60.0 %   40.0 %  100.0 %",
        "",
    ]
    assert "6 train, 4 val" in done.stderr
    assert read_names(lists / "synset_words.txt", 3) == ["1", "2", "10"]
    val = read_list(lists / "val_list.txt", tree, 3)
    assert {(val.name(i).split("/")[1], int(val.labels[i])) for i in range(4)} == {
        ("2", 1),
        ("10", 2),
    }
    refused = call_tool("make_lists", "--images", tree, "--output_dir", lists, "--val_share", 0.5)
    assert_user_error(refused, "--val_share: the folders have a part val already, of 4 images")


def test_a_read_only_folder_to_write_to(tmp_path: Path, call_tool: Run) -> None:
    tree = touch(tmp_path / "t", *images("cat", "dog"))
    target = "/proc/lists" if Path("/proc").is_dir() else str(tmp_path)
    done = call_tool("make_lists", "--images", tree, "--output_dir", target)
    assert_user_error(done, target)


# Scoring


def test_the_level_of_a_tree_to_score_is_that_of_the_models_names(tmp_path: Path) -> None:
    touch(tmp_path, *images("2024/cat", "2024/dog", "2025/cat", "2025/dog"))
    scored = labelled_images(tmp_path, ["dog", "cat", "emu"])
    assert len(scored) == 8
    for i in range(8):
        assert scored.labels[i] == ["dog", "cat"].index(scored.name(i).split("/")[1])
    assert len(labelled_images(tmp_path / "2024", ["dog", "cat"])) == 4
    assert labelled_images(tmp_path / "2024", ["cat", "dog"], 1).labels.tolist() == [0, 0, 1, 1]


def test_of_a_split_the_images_that_did_not_train_are_scored(tmp_path: Path) -> None:
    touch(tmp_path, *images("train/2", "train/10", "val/2", "val/10", "val/notes"), "val/a.txt")
    (tmp_path / "val" / "notes").rename(tmp_path / "notes")
    said: list[str] = []
    scored = labelled_images(tmp_path, ["2", "10"], report=said.append)
    assert sorted(zip((scored.name(i) for i in range(4)), scored.labels.tolist())) == [
        ("val/10/0.jpg", 1),
        ("val/10/1.jpg", 1),
        ("val/2/0.jpg", 0),
        ("val/2/1.jpg", 0),
    ]
    assert "scored: the 4 images of the part val" in said
    assert any("1 text file (val/a.txt)" in line for line in said)


def test_one_class_alone_can_be_scored(tmp_path: Path) -> None:
    touch(tmp_path, *images("cat"))
    assert labelled_images(tmp_path, ["dog", "cat"]).labels.tolist() == [1, 1]
    with pytest.raises(InputError, match="a folder for each class was expected, found none"):
        labelled_images(touch(tmp_path / "cat", "x.txt"), ["dog", "cat"])


def test_flags_are_named(tmp_path: Path, call_tool: Run) -> None:
    tree = touch(tmp_path / "t", *images("a/x", "a/y", "b/x", "b/y"))
    done = call_tool("make_lists", "--images", tree, "--output_dir", tmp_path / "lists")
    assert_user_error(done, "--class_level 1 takes a, b, 2 takes x, y")
    assert with_flags("`class_level`") == "--class_level"
