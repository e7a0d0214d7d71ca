"""What `overwrite` removes from a run's directory: its own files, never the user's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Run, assert_user_error
from runs import finetune_flags, flags, make_image_folder, make_pretrained, make_tiny_data

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.run_dir import FINETUNE_ENTRIES, overwritten_entries


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_lists_that_no_fine_tuning_has_written_stay(tmp_path: Path) -> None:
    (tmp_path / "train_list.txt").write_text("mine")
    (tmp_path / "train.log").write_text("of a training run")
    with pytest.raises(InputError, match=r"replace .*train_list.txt, which no fine-tuning has"):
        overwritten_entries(tmp_path, FINETUNE_ENTRIES, {})
    (tmp_path / "features").mkdir()
    removed = overwritten_entries(tmp_path, FINETUNE_ENTRIES, {"train_list": tmp_path / "other"})
    assert {path.name for path in removed} == {"train_list.txt", "train.log", "features"}


@pytest.mark.parametrize("name", ["train_list", "val_list", "synset_word_list"])
def test_a_list_that_is_read_stays(tmp_path: Path, name: str) -> None:
    file = tmp_path / {"synset_word_list": "synset_words"}.get(name, name)
    file = file.with_suffix(".txt")
    file.write_text("mine")
    (tmp_path / "features").mkdir()
    (tmp_path / "link").symlink_to(file)
    for given in (file, tmp_path / "link"):
        with pytest.raises(InputError, match=f"would remove {file}, and `{name}` is {given}"):
            overwritten_entries(tmp_path, FINETUNE_ENTRIES, {name: given})


def test_a_model_that_is_read_stays(tmp_path: Path, call_tool: Run) -> None:
    """As the directory of its run, or itself; for training and for fine-tuning."""
    run = tmp_path / "run"
    make_pretrained(run / "best")
    (run / "features").mkdir()
    before = content(run)
    data = make_tiny_data(tmp_path / "data")
    for given in (run, run / "best"):
        arguments = flags(data, run, "--pretrained", given, "--max_steps", 1, "--overwrite")
        done = call_tool("train", *arguments)
        assert_user_error(done, f"--overwrite would remove {run / 'best'}", "--pretrained is")
        images = make_image_folder(tmp_path / "images")
        done = call_tool("finetune", *finetune_flags(images, given, run, "--overwrite"))
        assert_user_error(done, f"--overwrite would remove {run / 'best'}", "--pretrained is")
        shutil.rmtree(tmp_path / "images")
    assert content(run) == before


def test_the_users_own_lists_in_the_directory_stay(tmp_path: Path, call_tool: Run) -> None:
    data = make_tiny_data(tmp_path / "data")
    model = make_pretrained(tmp_path / "model")
    before = content(data)
    lists = ("--train_list", data / "train_list.txt", "--val_list", data / "val_list.txt")
    common = ("--pretrained", model, "--output_dir", data, "--overwrite", "--num_workers", 0)
    assert_user_error(call_tool("finetune", *lists, *common), "--overwrite would remove")
    images = make_image_folder(tmp_path / "images")
    done = call_tool("finetune", "--images", images, *common)
    assert_user_error(done, "which no fine-tuning has written")
    assert content(data) == before


def test_images_in_the_directory_stay(tmp_path: Path, call_tool: Run) -> None:
    """In a folder that has the name of one of a run."""
    model, run = make_pretrained(tmp_path / "model"), tmp_path / "run"
    images = make_image_folder(run / "features" / "images")
    before = content(run)
    done = call_tool("finetune", *finetune_flags(images, model, run, "--overwrite"))
    assert_user_error(done, f"--overwrite would remove {run / 'features'}", "--images is")
    assert content(run) == before
