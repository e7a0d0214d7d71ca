"""The images of a fine-tuning are checked before it: what belongs together is on one side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error
from runs import finetune_flags, make_image_folder, make_pretrained

from squeezenet_paddle.checking.learning_curve import learning_curve
from squeezenet_paddle.data.lists import read_list

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


def sides(run: Path, images: Path) -> dict[str, str]:
    """The part of each image, by its path."""
    lists = {part: read_list(run / f"{part}_list.txt", images) for part in ("train", "val")}
    return {each.name(i): part for part, each in lists.items() for i in range(len(each))}


def test_duplicates_are_on_one_side_and_told(
    tmp_path: Path, pretrained: Path, call_tool: Run
) -> None:
    images = make_image_folder(tmp_path / "data", 4)
    pairs = []
    for path in sorted(images.rglob("00[01].jpg")):
        smaller = path.with_name(f"smaller_{path.stem}.jpg")
        cv2.imwrite(str(smaller), cv2.resize(cv2.imread(str(path)), None, fx=0.8, fy=0.8))
        pairs.append((path, smaller))
    run = tmp_path / "run"
    flags = finetune_flags(images, pretrained, run, "--num_epochs", 1, "--views", 1)
    done = call_tool("finetune", *flags)
    assert done.returncode == 0, done.stderr
    part = sides(run, images)
    assert len(part) == 60
    together = [
        part[str(a.relative_to(images))] == part[str(b.relative_to(images))] for a, b in pairs
    ]
    assert sum(together) >= 19
    assert "check: duplicates: " in done.stderr
    assert f"check: {run / 'check.html'} shows the images" in done.stderr
    assert (run / "check.csv").read_text("utf-8").count("nearly the same") >= 19

    again = call_tool("finetune", *flags)  # no image is new, so nothing is checked again
    assert again.returncode == 0, again.stderr
    assert "check:" not in again.stderr


def test_both_lists_of_the_user_are_checked(
    tmp_path: Path, pretrained: Path, call_tool: Run
) -> None:
    """A validation image that is a training image in another size; it was not looked for."""
    images = make_image_folder(tmp_path / "data", 4)
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for label, folder in enumerate(sorted(images.iterdir())):
        for i, path in enumerate(sorted(folder.iterdir())):
            lines["val" if i == 0 else "train"].append(f"{folder.name}/{path.name} {label}\n")
    first = images / lines["train"][0].rpartition(" ")[0]
    copy = first.with_name("copy.png")
    cv2.imwrite(str(copy), cv2.resize(cv2.imread(str(first)), None, fx=1.4, fy=1.4))
    lines["val"].append(f"{copy.relative_to(images)} 0\n")
    for part, rows in lines.items():
        (tmp_path / f"{part}.txt").write_text("".join(rows))
    run = tmp_path / "run"
    flags = [
        *("--train_list", tmp_path / "train.txt", "--val_list", tmp_path / "val.txt"),
        *("--data_dir", images, "--pretrained", pretrained, "--output_dir", run),
        *("--num_epochs", 1, "--views", 1, "--num_workers", 0, "--device", "cpu"),
    ]
    done = call_tool("finetune", *flags)
    assert done.returncode == 0, done.stderr
    assert "1 of 11 validation images are duplicates of training images" in done.stderr
    assert str(copy.relative_to(images)) in done.stderr
    assert f"check: {run / 'check.html'} shows the images" in done.stderr
    again = call_tool("finetune", *flags)
    assert again.returncode == 0, again.stderr
    assert "check:" not in again.stderr


def test_a_group_pattern_is_for_the_split(tmp_path: Path, pretrained: Path, call_tool: Run) -> None:
    images = make_image_folder(tmp_path / "data", 4)
    for path in list(images.rglob("*.jpg")):
        path.rename(path.with_name(f"thing{int(path.stem) // 2}-{path.name}"))
    run = tmp_path / "run"
    flags = finetune_flags(images, pretrained, run, "--num_epochs", 1, "--views", 1, "--no_check")
    done = call_tool("finetune", *flags, "--group_pattern", r"(.+)-\d+", "--val_share", 0.5)
    assert done.returncode == 0, done.stderr
    assert not (run / "check.html").exists()
    found: dict[str, set[str]] = {}
    for name, part in sides(run, images).items():
        found.setdefault(name.rpartition("-")[0], set()).add(part)
    assert len(found) == 20
    assert all(len(parts) == 1 for parts in found.values())

    assert_user_error(
        call_tool("finetune", *flags, "--group_pattern", r"(.+)0\d+", "--val_share", 0.5),
        *("--group_pattern", "now it is", "--overwrite"),
    )
    lists = ("--train_list", run / "train_list.txt", "--val_list", run / "val_list.txt")
    rest = ("--pretrained", pretrained, "--output_dir", tmp_path / "other")
    assert_user_error(
        call_tool("finetune", *lists, *rest, "--group_pattern", "x"),
        *("--group_pattern", "--val_list"),
    )


def test_a_learning_curve_leads_where_more_images_get() -> None:
    rng = np.random.default_rng(0)
    means = 0.55 * rng.standard_normal((5, 40))
    labels = rng.integers(0, 5, 4000)
    x = (means[labels] + rng.standard_normal((4000, 40))).astype("float32")
    few = learning_curve(x[:1000], labels[:1000], np.arange(1000), 5, np.ones(1000, bool))
    many = learning_curve(x[:2000], labels[:2000], np.arange(2000), 5, np.ones(2000, bool))
    assert few is not None
    assert many is not None
    assert few.low - 0.01 <= many.accuracy[-1] <= few.high + 0.01
    assert (np.diff(few.counts) > 0).all()
    assert f"{2 * few.counts[-1]:,}" in str(few)
    assert learning_curve(x[:90], labels[:90], np.arange(90), 5, np.ones(90, bool)) is None


def test_one_group_for_each_class_gives_no_learning_curve() -> None:
    labels = np.repeat([0, 1], 300)
    x = np.random.default_rng(0).standard_normal((600, 20)).astype("float32")
    assert learning_curve(x, labels, labels, 2, np.ones(600, bool)) is None
