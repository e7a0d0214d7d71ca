"""The generated data set: the same every time, complete, and not to be told by colour alone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.data.lists import read_list, read_names
from squeezenet_paddle.datasets.samples import (
    CLASSES,
    NAMES,
    SHAPES,
    TEXTURES,
    draw,
    make_sample_data,
)
from squeezenet_paddle.errors import InputError


def content(folder: Path) -> dict[str, str]:
    """The checksum of each file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two validation images of each class."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    make_sample_data(folder, seed=0, train=6, val=2)
    return folder


def test_no_shape_or_texture_tells_the_class() -> None:
    assert len(set(CLASSES)) == len(set(NAMES)) == 10
    assert Counter(shape for shape, _ in CLASSES) == dict.fromkeys(SHAPES, 2)
    assert Counter(texture for _, texture in CLASSES) == dict.fromkeys(TEXTURES, 2)


def test_lists_names_and_images(small: Path) -> None:
    assert read_names(small / "synset_words.txt", 10) == list(NAMES)
    for split, count in (("train", 6), ("val", 2)):
        listed = read_list(small / f"{split}_list.txt", None, 10)
        assert listed.labels.tolist() == np.repeat(np.arange(10), count).tolist()
        paths = [listed.path(index) for index in range(len(listed))]
        assert paths == [
            small / split / name / f"{index:03d}.jpg" for name in NAMES for index in range(count)
        ]
        assert sorted(paths) == sorted((small / split).rglob("*.jpg"))
    assert json.loads((small / "sample_data.json").read_text())["seed"] == 0


def test_sizes_and_aspects_vary(small: Path) -> None:
    sizes = [cv2.imread(str(path)).shape[:2] for path in small.rglob("*.jpg")]
    assert all(64 <= side <= 200 for size in sizes for side in size)
    assert len(set(sizes)) > 60
    assert min(h / w for h, w in sizes) < 0.85
    assert max(h / w for h, w in sizes) > 1.15


def test_images_all_differ(small: Path) -> None:
    images = [digest for name, digest in content(small).items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 80


def test_same_seed_same_bytes(small: Path, tmp_path: Path) -> None:
    make_sample_data(tmp_path / "again", seed=0, train=6, val=2)
    assert content(tmp_path / "again") == content(small)


def test_smaller_set_is_the_beginning_of_a_larger_one(small: Path, tmp_path: Path) -> None:
    make_sample_data(tmp_path / "smaller", seed=0, train=2, val=1)
    whole = content(small)
    part = {n: d for n, d in content(tmp_path / "smaller").items() if n.endswith(".jpg")}
    assert len(part) == 30
    assert all(whole[name] == digest for name, digest in part.items())


def test_another_seed_gives_other_images(small: Path, tmp_path: Path) -> None:
    make_sample_data(tmp_path / "other", seed=1, train=6, val=2)
    other = content(tmp_path / "other")
    whole = content(small)
    assert other.keys() == whole.keys()
    assert not any(other[name] == whole[name] for name in whole if name.endswith(".jpg"))


@pytest.mark.parametrize(("shape", "texture"), CLASSES)
def test_shape_covers_its_part_of_the_image(shape: str, texture: str) -> None:
    """Measured with the colours fixed to the darkest and brightest, against geometry by hand."""
    area = {  # of the shape, whose circle has the radius 1
        "disc": np.pi * 0.9**2,
        "square": 2.0,
        "triangle": 3 * np.sqrt(3) / 4,
        "ring": np.pi * (1 - 0.45**2),
        "cross": 4 * 0.27 * 0.95 * 2 - 0.54**2,
    }[shape]
    for seed in range(3):
        image = draw(shape, texture, np.random.default_rng(seed)).astype(float)
        height, width = image.shape[:2]
        # The border of an image is background but for where the shape comes near to it.
        background = np.median(np.concatenate([image[0], image[-1]]), axis=0)
        covered = (np.abs(image - background).max(axis=2) > 45).mean() * height * width
        least, most = (area * (factor * min(height, width)) ** 2 for factor in (0.42, 0.49))
        assert 0.5 * least < covered < 1.3 * most


def test_colour_tells_nothing(small: Path) -> None:
    """The mean colour of a class is that of the whole, within the scatter of the images."""
    listed = read_list(small / "train_list.txt", None, 10)
    images = [cv2.imread(str(listed.path(index))) for index in range(len(listed))]
    colours = np.array([cv2.mean(image)[:3] for image in images])
    deviation = colours.std(axis=0) / np.sqrt(6)
    for label in range(10):
        away = colours[listed.labels == label].mean(axis=0) - colours.mean(axis=0)
        assert (np.abs(away) < 4 * deviation).all()


def test_folder_of_the_user_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train_list.txt").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        make_sample_data(tmp_path, train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train_list.txt"]


def test_tool(tmp_path: Path, call_tool: Run) -> None:
    out = tmp_path / "sample"
    command = ("make_sample_data", "--output_dir", out, "--train_images", 2, "--val_images", 1)
    for seed in (3, 4):  # the second run replaces what the first one made
        done = call_tool(*command, "--seed", seed)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{out}: 20 training and 10 validation images of 10 classes\n"
        assert done.stderr == ""
        assert json.loads((out / "sample_data.json").read_text())["seed"] == seed
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--seed", "-1"), "--seed"),
        (("--train_images", "0"), "--train"),
        (("--val_images", "x"), "--val"),
    ],
)
def test_tool_wrong_flags(arguments: tuple[str, ...], part: str, call_tool: Run) -> None:
    assert_user_error(call_tool("make_sample_data", *arguments), part)
