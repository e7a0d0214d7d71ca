"""Lists that are wrong though each line is right: numbers as names, other orders, shared images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, assert_user_error
from runs import flags, make_pretrained, make_tiny_data, plan_of

from squeezenet_paddle.data.list_checks import describe_other_order, describe_shared
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.preprocess import MeanImage, Preprocess
from squeezenet_paddle.datasets.folders import read_tree, split_tree, write_lists
from squeezenet_paddle.errors import InputError


def list_of(folder: Path, *lines: str, names: list[str] | None = None) -> ImageList:
    folder.mkdir(exist_ok=True)
    (folder / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    return read_list(folder / "list.txt", names=names)


NAMES = [str(number) for number in range(1, 13)]


# Numbers as names


def test_a_number_that_is_an_id_and_another_classs_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        list_of(tmp_path, "a.jpg 0", "2/x.jpg 2", names=NAMES)
    assert "a bad line: line 2: the label 2 is the id of class '3' and the name of class '2' " in (
        str(error.value)
    )
    assert "(its id is 1); give `synset_word_list` with names that are no numbers" in str(
        error.value
    )
    with pytest.raises(InputError, match="line 1: the label 7 is the id of class '008'"):
        list_of(tmp_path, "x.jpg 007", names=[f"{n:03}" for n in range(1, 13)])


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("2/x.jpg 2", [str(number) for number in range(12)]),  # both mean the same
        ("3/x.jpg 2", NAMES),  # the folder tells that it is an id
        ("a/003.x/y.jpg 2", [*NAMES[:2], "003", *NAMES[3:]]),
        ("2/x.jpg 2", ["1 cat", "2 dog", "3 emu"]),  # no numbers
        ("2/x.jpg 2", None),
    ],
)
def test_numbers_that_can_only_be_ids(tmp_path: Path, line: str, names: list[str] | None) -> None:
    assert list_of(tmp_path, line, names=names).labels.tolist() == [2]


def test_lists_of_class_folders_named_by_numbers_can_be_read(tmp_path: Path) -> None:
    """From 1 to 12, so that every id is the name of another class."""
    for number in range(1, 13):
        (tmp_path / "images" / str(number)).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "images" / str(number) / f"{i}.jpg").write_text(f"{number} {i}")
    tree = read_tree(tmp_path / "images")
    write_lists(tree, split_tree(tree, tmp_path / "images", None, None, 0), tmp_path)
    images = read_list(tmp_path / "train_list.txt", tmp_path / "images", 12, tree.classes)
    for i in range(len(images)):
        assert images.name(i).split("/")[0] == tree.classes[images.labels[i]]


# Shared images


def test_images_in_both_lists_are_counted(tmp_path: Path) -> None:
    train = list_of(tmp_path / "a", *(f"x/{i}.jpg 0" for i in range(30)))
    val = list_of(tmp_path / "a", *(f"./x/{i}.jpg 1" for i in range(5, 35)))
    text = describe_shared(train, val)
    assert text.startswith("25 of 30 validation images are in the training list, too, ")
    assert text.count(".jpg") == 3
    assert text.endswith(", ...")
    assert not describe_shared(train, list_of(tmp_path / "a", "y/1.jpg 0"))


def test_lists_that_start_from_other_folders(tmp_path: Path) -> None:
    train = list_of(tmp_path, "a/x/1.jpg 0")
    val = list_of(tmp_path / "a", "x/1.jpg 0", "x/2.jpg 0")
    assert describe_shared(train, val).startswith("1 of 2 validation images")
    assert not describe_shared(list_of(tmp_path, "x/1.jpg 0"), val)


# Orders


def test_another_order_of_the_classes_is_noticed(tmp_path: Path) -> None:
    images = list_of(tmp_path, "cat/1.jpg 0", "dog/1.jpg 1", "a/dog/2.jpg 1", "dog.jpg 0")
    assert describe_other_order(images, ["cat", "dog"]) == ""
    assert describe_other_order(images, ["emu", "owl"]) == ""
    assert describe_other_order(images, None) == ""
    text = describe_other_order(images, ["dog", "cat"])
    assert text == (
        f"{tmp_path / 'list.txt'}: the labels seem to count the classes in another order than the "
        "model, by the folders of 3 of 3 images: cat/1.jpg has the label 0, 'dog'; dog/1.jpg has "
        "the label 1, 'cat', ..."
    )
    assert "cat/1.jpg has" in describe_other_order(images, ["n02 dog", "cat"])


def test_wrong_labels_are_no_other_order(tmp_path: Path) -> None:
    images = list_of(tmp_path, *(f"cat/{i}.jpg 0" for i in range(5)), "dog/1.jpg 0")
    assert describe_other_order(images, ["cat", "dog"]) == ""


# What the commands say


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_data(tmp_path_factory.mktemp("data") / "tiny")


def test_a_plan_tells_of_shared_images(data: Path, tmp_path: Path) -> None:
    train = str(data / "train_list.txt")
    plan = plan_of(flags(data, tmp_path / "run", "--val_list", train))
    assert any("30 of 30 validation images are in the training list" in n for n in plan.notes)
    assert not plan_of(flags(data, tmp_path / "run")).notes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), (40, 36)),
        (("--crop_size", 18), (20, 18)),
        (("--crop_size", 18, "--resize_size", 40), (40, 18)),
        (("--resize_size", 44), (44, 36)),
    ],
)
def test_a_crop_scales_the_resize(
    data: Path, tmp_path: Path, given: tuple[object, ...], expected: tuple[int, int]
) -> None:
    pretrained = make_pretrained(tmp_path / "model")
    lists = ("--train_list", data / "train_list.txt", "--num_classes", 10)
    arguments = (*lists, "--pretrained", pretrained, "--output_dir", tmp_path / "run", *given)
    plan = plan_of([str(each) for each in arguments])
    preprocess = plan.info.preprocess
    assert (preprocess.resize_size, preprocess.crop_size) == expected
    notes = [note for note in plan.notes if "resized" in note]
    assert notes == (
        [
            "note: images are resized to 20 pixels for a crop of 18, as to 40 for one of 36; "
            "resize_size gives another size"
        ]
        if expected == (20, 18)
        else []
    )


def test_a_crop_of_the_usual_preprocessing() -> None:
    scaled = Preprocess().with_crop_size(32)
    assert (scaled.crop_size, scaled.resize_size) == (32, 36)
    assert Preprocess().with_crop_size(227) == Preprocess()
    with_image = Preprocess(mean_image=MeanImage(np.zeros((3, 256, 256))))
    with pytest.raises(InputError, match="side of the mean image"):
        with_image.with_crop_size(32)


def test_eval_tells_of_another_order_and_of_numbers(tmp_path: Path, call_tool: Run) -> None:
    data = make_tiny_data(tmp_path / "data")
    pretrained = make_pretrained(tmp_path / "model")
    (tmp_path / "names.txt").write_text("".join(f"{n}\n" for n in range(1, 8)))
    lines = (data / "val_list.txt").read_text().splitlines()
    (data / "val_list.txt").write_text("".join(f"{line[:-1]}{i % 7}\n" for i, line in
                                               enumerate(lines)))  # fmt: skip
    command = ("eval", "--model_dir", pretrained, "--test_list", data / "val_list.txt")
    done = call_tool(*command, "--synset_word_list", tmp_path / "names.txt")
    assert_user_error(done, "the label 1 is the id of class '2'", "give --synset_word_list with")
    folders = sorted({line.split("/")[1] for line in lines})[:7]
    (tmp_path / "names.txt").write_text("".join(f"{n}\n" for n in reversed(folders)))
    done = call_tool(*command, "--synset_word_list", tmp_path / "names.txt",
                     "--metrics_json", tmp_path / "a.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "count the classes in another order than the model" in done.stderr
    assert json.loads((tmp_path / "a.json").read_text())["images"] == 10
