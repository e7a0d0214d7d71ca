"""check-images on folders of drawn images with known faults, by its files and its lines."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error
from runs import make_image_folder, make_pretrained

from squeezenet_paddle.data.lists import read_list


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Ten classes of four images, and with them: a copy, a conflict, one colour, a broken file."""
    images = make_image_folder(tmp_path / "data", 4)
    first = images / "disc_stripes" / "000.jpg"
    (images / "disc_stripes" / "copy of 000.jpg").write_bytes(first.read_bytes())
    other = images / "ring_noise" / "000.jpg"
    (images / "square_dots" / "zz.png").write_bytes(
        cv2.imencode(".png", cv2.imread(str(other)))[1].tobytes()
    )
    flat = np.full((90, 120, 3), (40, 90, 200), "uint8")
    cv2.imwrite(str(images / "cross_noise" / "flat.jpg"), flat)
    cv2.imwrite(str(images / "cross_noise" / "icon.png"), cv2.imread(str(first))[:16, :20])
    (images / "cross_noise" / "cut.jpg").write_bytes(first.read_bytes()[:900])
    return images


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "check.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_faults_are_found_listed_and_shown(
    messy: Path, pretrained: Path, tmp_path: Path, call_tool: Run
) -> None:
    before = {path: path.read_bytes() for path in messy.rglob("*") if path.is_file()}
    output = tmp_path / "check"
    done = call_tool(
        "check_images",
        *("--images", messy, "--pretrained", pretrained, "--output_dir", output),
        *("--num_workers", 0, "--write_lists", tmp_path / "clean"),
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in messy.rglob("*") if path.is_file()} == before
    found = {(row["finding"], row["image"]): row for row in rows(output)}
    copy = found["duplicate", "disc_stripes/copy of 000.jpg"]
    assert (copy["other"], copy["text"]) == ("disc_stripes/000.jpg", "same file")
    conflict = found["conflict", "square_dots/zz.png"]
    assert (conflict["other"], conflict["text"]) == ("ring_noise/000.jpg", "same pixels")
    assert ("conflict", "ring_noise/000.jpg") in found
    assert found["odd", "cross_noise/flat.jpg"]["text"] == "one colour"
    assert "cut off" in found["unreadable", "cross_noise/cut.jpg"]["text"]
    tiny = [row for row in rows(output) if row["text"] == "tiny: 20x16 pixels"]
    assert [row["image"] for row in tiny] == ["cross_noise/icon.png"]
    assert "duplicates: 2 images beyond the first of 2" in done.stdout
    assert "conflicts: 1 of them is under two classes" in done.stdout
    assert "unreadable: 1 image" in done.stdout

    page = (output / "check.html").read_text("utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#|check\.csv)', page)
    for name in ("copy of 000.jpg", "square_dots/zz.png", "cross_noise/flat.jpg"):
        assert name in page
    assert page.count("data:image/jpeg") >= 5

    listed = [
        read_list(tmp_path / "clean" / f"{part}_list.txt", messy) for part in ("train", "val")
    ]
    names = [images.name(i) for images in listed for i in range(len(images))]
    assert len(names) == len(set(names)) == 45 - 1 - 2 - 1
    absent = {"disc_stripes/copy of 000.jpg", "ring_noise/000.jpg", "square_dots/zz.png"}
    assert not absent & set(names)
    assert "3 left out" not in done.stdout
    assert "4 left out" in done.stdout


def test_a_second_run_reads_the_features_of_the_first(
    messy: Path, pretrained: Path, tmp_path: Path, call_tool: Run
) -> None:
    flags = ("--images", messy, "--pretrained", pretrained, "--output_dir", tmp_path / "check")
    first = call_tool("check_images", *flags, "--num_workers", 0)
    journal = next((tmp_path / "check" / "features").glob("*.log"))
    blocks = journal.read_bytes()
    again = call_tool("check_images", *flags, "--num_workers", 0)
    assert again.stdout == first.stdout
    assert journal.read_bytes() == blocks


def test_a_group_pattern_keeps_images_on_one_side(
    tmp_path: Path, pretrained: Path, call_tool: Run
) -> None:
    images = make_image_folder(tmp_path / "data", 6)
    for path in list(images.rglob("*.jpg")):
        path.rename(path.with_name(f"thing{int(path.stem) // 2}-{path.name}"))
    flags = ("--images", images, "--pretrained", pretrained, "--num_workers", 0)
    done = call_tool(
        *("check_images", *flags, "--output_dir", tmp_path / "check"),
        *("--group_pattern", r"(.+)-\d+", "--write_lists", tmp_path / "clean"),
        *("--val_share", 0.4),
    )
    assert done.returncode == 0, done.stderr
    sides: dict[str, set[str]] = {}
    for part in ("train", "val"):
        listed = read_list(tmp_path / "clean" / f"{part}_list.txt", images)
        for i in range(len(listed)):
            sides.setdefault(listed.name(i).rpartition("-")[0], set()).add(part)
    assert len(sides) == 30
    assert all(len(parts) == 1 for parts in sides.values())
    assert {"train", "val"} == set.union(*sides.values())

    no_match = call_tool(
        *("check_images", *flags, "--output_dir", tmp_path / "check"),
        *("--group_pattern", "patient([0-9]+)"),
    )
    assert_user_error(no_match, "--group_pattern", "none in 60 of 60", "cross_noise/thing0-000")


def test_mistakes_end_before_any_work(tmp_path: Path, pretrained: Path, call_tool: Run) -> None:
    images = make_image_folder(tmp_path / "data", 1)
    flags = ("check_images", "--images", images, "--pretrained", pretrained, "--output_dir")
    assert_user_error(
        call_tool(*flags, images / "check"), "--output_dir", "lies in --images", "left as it is"
    )
    assert_user_error(
        call_tool(*flags, tmp_path / "c", "--drop_suspects"), "--drop_suspects", "--write_lists"
    )
    assert_user_error(
        call_tool(*flags, tmp_path / "c", "--data_dir", images), "--data_dir goes with --list"
    )
    for given in (("--val_share", 0.1), ("--test_share", 0.1), ("--seed", 1)):
        assert_user_error(call_tool(*flags, tmp_path / "c", *given), given[0], "--write_lists")
    lists = ("--write_lists", tmp_path / "lists")
    assert_user_error(call_tool(*flags, tmp_path / "c", *lists, "--val_share", 1), "--val_share")
    assert not (tmp_path / "c").exists()


def test_lists_that_are_read_are_not_replaced(
    tmp_path: Path, pretrained: Path, call_tool: Run
) -> None:
    data = make_image_folder(tmp_path / "data", 1).parent
    before = (data / "train_list.txt").read_bytes()
    flags = ("check_images", "--pretrained", pretrained, "--output_dir", tmp_path / "c")
    for more in (
        ("--list", data / "train_list.txt"),
        ("--list", tmp_path / "other", "--synset_word_list", data / "synset_words.txt"),
    ):
        done = call_tool(*flags, *more, "--write_lists", data)
        assert_user_error(done, "--write_lists", f"would replace {more[-1]}", f"is {more[-2]}")
    assert (data / "train_list.txt").read_bytes() == before


def test_a_part_that_the_folders_lack_is_drawn(
    tmp_path: Path, pretrained: Path, call_tool: Run
) -> None:
    images = make_image_folder(tmp_path / "data", 4)
    (images.parent / "val").rename(images.parent / "test")
    test_image = next((images.parent / "test" / "disc_stripes").iterdir())
    trained = cv2.imread(str(images / "disc_stripes" / "000.jpg"))
    cv2.imwrite(str(test_image), cv2.resize(trained, None, fx=0.8, fy=0.8))
    flags = ("check_images", "--images", images.parent, "--pretrained", pretrained)
    flags = (*flags, "--output_dir", tmp_path / "c", "--write_lists", tmp_path / "clean")
    done = call_tool(*flags, "--num_workers", 0, "--val_share", 0.4)
    assert done.returncode == 0, done.stderr
    assert (
        "shared: 1 of 10 test images are duplicates of training images, so scores on them are too "
        "high" in done.stdout
    )
    sizes = {
        part: len(read_list(tmp_path / "clean" / f"{part}_list.txt", images.parent))
        for part in ("train", "val", "test")
    }
    assert sizes["test"] == 10
    assert sizes["train"] + sizes["val"] == 40 - 1
    assert 10 <= sizes["val"] <= 24
    refused = call_tool(*flags, "--test_share", 0.1)
    assert refused.returncode == 2
    assert "--test_share: the folders have a part test already, of 10" in refused.stderr
