"""Real files of the kind that list files point at in the wild."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image, ImageOps

from squeezenet_paddle.data.augment import Augment, TrainTransform
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.loader import Loader
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.errors import ImageError
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.model import squeezenet1_1

IMAGES = {  # name -> height and width as a viewer shows it
    "caffe__cat.jpg": (360, 480),
    "caffe__fish-bike.jpg": (323, 481),
    "caffe__cat_gray.jpg": (360, 480),
    "pillow__hopper_gray.jpg": (128, 128),
    "cmyk_cat.JPEG": (360, 480),
    "sharp__Channel_digital_image_CMYK_color_no_profile.jpg": (333, 500),
    "progressive_cat.JPEG": (360, 480),
    "png_named.JPEG": (128, 128),
    "name with spaces and ünïcode.JPEG": (360, 480),
    "sharp__Landscape_6.jpg": (450, 600),
    "pillow__hopper_orientation_6.jpg": (128, 128),
    "sharp__16-bit-grey-alpha.png": (96, 109),
    "pngsuite__basn2c16.png": (32, 32),
    "sharp__Flag_of_the_Netherlands-alpha.png": (600, 900),
    "pillow__l_trns.png": (64, 64),
    "pillow__rgb_trns.png": (64, 64),
    "sharp__5_webp_a.webp": (300, 300),
    "sharp__animated-loop-3.gif": (285, 370),
    "size_1x1.JPEG": (1, 1),
    "size_2000x3.JPEG": (3, 2000),
    "size_3x2000.JPEG": (2000, 3),
}
ERRORS = {
    "truncated_half_cat.JPEG": "cut off",
    "sharp__truncated.jpg": "cut off",
    "pillow__truncated_jpeg.jpg": "cut off",
    "sharp__truncated.png": "cut off",
    "sharp__corrupt-header.jpg": "damaged",
    "pillow__broken.png": "damaged",
    "pngsuite__xc1n0g08.png": "damaged",
    "empty.JPEG": "an empty file",
    "html_error_page.JPEG": "an HTML page",
    "pillow__decompression_bomb.gif": "limit",
}
EITHER = "midfile_corrupted_cat.JPEG"


@pytest.fixture
def folder(assets: Path) -> Path:
    return assets / "data" / "awkward"


@pytest.mark.parametrize("name", IMAGES)
def test_image_is_what_a_viewer_shows(folder: Path, name: str) -> None:
    result = read_image(folder / name)
    assert result.dtype == np.uint8
    assert result.shape == (*IMAGES[name], 3)
    with Image.open(folder / name) as image:
        if image.mode.startswith("I"):  # Pillow clips 16-bit grey, which OpenCV scales
            return
        viewed = ImageOps.exif_transpose(image).convert("RGBA").convert("RGB")
    difference = np.abs(result[:, :, ::-1].astype(int) - np.asarray(viewed))
    assert difference.max() <= 3


@pytest.mark.parametrize("name", ERRORS)
def test_no_image_is_an_error_that_names_the_file(folder: Path, name: str) -> None:
    with pytest.raises(ImageError, match=ERRORS[name]) as error:
        read_image(folder / name)
    assert str(error.value).startswith(f"{folder / name}: ")


def test_every_file_of_the_folder_is_expected(folder: Path) -> None:
    found = {file.name for file in folder.iterdir()} - {"LIST.md"}
    assert found == {*IMAGES, *ERRORS, EITHER}


def test_damage_in_the_middle_gives_the_same_image_every_time(folder: Path) -> None:
    first, second = (read_image(folder / EITHER) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    whole = read_image(folder / "caffe__cat.jpg")
    assert first.shape == whole.shape
    assert (first[:50] == whole[:50]).all()
    assert (first != whole).any()


@pytest.mark.parametrize("name", ["sharp__Landscape_6.jpg", "pillow__hopper_orientation_6.jpg"])
def test_orientation_6_comes_upright(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        stored = np.asarray(image.convert("RGB"))[:, :, ::-1]
    upright = np.rot90(stored, -1)  # orientation 6: turn clockwise
    result = read_image(folder / name)
    assert result.shape == (stored.shape[1], stored.shape[0], 3)
    assert np.abs(result.astype(int) - upright).max() <= 3
    assert np.abs(result.astype(int) - np.rot90(upright, 2)).mean() > 20


@pytest.fixture
def awkward_list(folder: Path, tmp_path: Path) -> Path:
    """Every file of the folder, each with label 0."""
    names = sorted([*IMAGES, *ERRORS, EITHER])
    (tmp_path / "list.txt").write_text("".join(f"{n} 0\n" for n in names), encoding="utf-8")
    return tmp_path / "list.txt"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_leaves_out_what_is_no_image(
    folder: Path, awkward_list: Path, num_workers: int
) -> None:
    images = read_list(awkward_list, folder, 1)
    transform = TrainTransform(Preprocess(), Augment())
    sampler = Sampler(len(images), 8, shuffle=True)
    messages: list[str] = []
    with Loader(images, transform, sampler, num_workers, on_unreadable=messages.append) as loader:
        read = [int(i) for batch in loader.epoch() for i in batch.indices]
    assert {images.name(i) for i in read} == {*IMAGES, EITHER}
    assert {images.name(i) for i in loader.skipped} == set(ERRORS)
    assert len(messages) == len(ERRORS)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model"
    network = squeezenet1_1(num_classes=2)
    write_model_dir(path, ModelInfo(network.config, Preprocess()), network.state_dict())
    return path


def test_infer_names_the_rest(folder: Path, model_dir: Path, call_tool: Run) -> None:
    done = call_tool(
        *("infer", "--model_dir", model_dir, "--image", folder / "*.*", "--format", "json")
    )
    assert done.returncode == 1
    assert {Path(r["image"]).name for r in json.loads(done.stdout)} == {*IMAGES, EITHER}
    for name in (*ERRORS, "LIST.md"):
        assert f"{folder / name}: " in done.stderr
    assert f"{len(ERRORS) + 1} of {len(IMAGES) + len(ERRORS) + 2} images" in done.stderr


def test_eval_scores_the_rest_only_when_asked(
    folder: Path, awkward_list: Path, model_dir: Path, call_tool: Run, tmp_path: Path
) -> None:
    total = len(IMAGES) + len(ERRORS) + 1
    arguments = ("eval", "--model_dir", model_dir, "--test_list", awkward_list)
    arguments += ("--data_dir", folder)
    done = call_tool(*arguments)
    bad = f"{len(ERRORS)} of {total} images cannot be read"
    assert done.returncode == 2
    assert bad in done.stderr
    done = call_tool(*arguments, "--skip_unreadable")
    assert f"{len(IMAGES) + 1} images  {len(ERRORS)} skipped" in done.stdout
    done = call_tool(*arguments, "--check_files", tmp_path / "bad.txt")
    assert done.returncode == 2
    assert f"{bad}, {tmp_path / 'bad.txt'} lists them" in done.stderr
    lines = (tmp_path / "bad.txt").read_text(encoding="utf-8").splitlines()
    assert {line.rpartition(" ")[0] for line in lines} == set(ERRORS)
