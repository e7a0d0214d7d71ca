"""Fine-tuning on folders as people have them: a given split, other formats, what is left out."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from conftest import Run, assert_user_error
from PIL import Image
from runs import finetune_flags, make_image_folder, make_pretrained

from squeezenet_paddle.data.lists import read_list, read_names

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    """train/, valid/ and Test/ of four classes with numbers for names, in several formats."""
    source, root = make_image_folder(tmp_path / "data"), tmp_path / "my images"
    formats = [("", "JPEG"), (".txt", "PNG"), (".jfif", "JPEG"), (".jpg", "WEBP"), (".bmp", "BMP")]
    parts = ["train", "train", "train", "valid", "Test"]
    for number, folder in zip((1, 2, 9, 10), sorted(source.iterdir())):
        for file, (suffix, format), part in zip(sorted(folder.iterdir()), formats, parts):
            target = root / part / str(number) / f"{file.stem}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(file).save(target, format)
    (root / "train" / "1" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    copy = next((root / "train" / "9").iterdir())
    shutil.copyfile(copy, root / "valid" / "9" / "copy.jpg")
    (root / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return root


def test_the_split_of_the_folders_is_used(
    split_folder: Path, pretrained: Path, tmp_path: Path, call_tool: Run
) -> None:
    run = tmp_path / "run"
    done = call_tool("finetune", *finetune_flags(split_folder, pretrained, run, "--num_epochs", 1))
    assert done.returncode == 0, done.stderr
    assert (
        f"split: as the folders in {split_folder} have it, 13 train, 5 val, 4 test" in done.stderr
    )
    assert "1 image that cannot be read (train/1/cut.jpg; " in done.stderr
    assert (
        "1 of 5 val images are copies of training images, so the scores are too high: valid/9/copy"
        in done.stderr
    )
    assert "1 system file (train/.DS_Store)" in done.stderr
    assert read_names(run / "synset_words.txt") == ["1", "2", "9", "10"]
    counts = {}
    for part, folder in (("train", "train"), ("val", "valid"), ("test", "Test")):
        images = read_list(run / f"{part}_list.txt", split_folder, 4)
        counts[part] = len(images)
        for i in range(len(images)):
            top, name, _ = images.name(i).split("/")
            assert (top, int(name)) == (folder, [1, 2, 9, 10][images.labels[i]])
    assert counts == {"train": 12, "val": 5, "test": 4}
    assert "on the 5 validation images" in done.stdout
    scored = [line for line in done.stdout.splitlines() if line.startswith("squeezenet eval")]
    for line, part in zip(scored, ("val", "test")):
        assert shlex.split(line)[5] == str(run / f"{part}_list.txt")
        assert call_tool("eval", *shlex.split(line)[2:]).returncode == 0
    assert len(scored) == 2
    scored_folder = call_tool("eval", "--model_dir", run, "--images", split_folder)
    assert scored_folder.returncode == 0
    assert "scored: the 4 images of the part test" in scored_folder.stderr


def test_what_contradicts_a_given_split(
    split_folder: Path, pretrained: Path, tmp_path: Path, call_tool: Run
) -> None:
    flags = finetune_flags(split_folder, pretrained, tmp_path / "run")
    done = call_tool("finetune", *flags, "--val_share", 0.3)
    assert_user_error(done, "--val_share: the folders have a part val already, of 5 images")
    done = call_tool("finetune", *flags, "--class_level", 3)
    assert_user_error(done, "--class_level 3: the folders with images", "at most 2 deep")
    done = call_tool("finetune", *flags, "--strict")
    assert_user_error(done, "1 of 22 images cannot be read, and without --strict", "cut.jpg")
    done = call_tool("finetune", *flags, "--strict", "--skip_unreadable")  # which is the default
    assert_user_error(done, "--strict and --skip_unreadable exclude each other")
