"""The directory of a run: which model it gives, who may write, what a resume compares."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Run, assert_user_error
from runs import finetune_flags, flags, make_image_folder, make_pretrained, make_tiny_data

from squeezenet_paddle.cli import clean
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.run_dir import (
    FINETUNE_ENTRIES,
    Settings,
    entries,
    locked,
    model_dir_of,
    overwritten_entries,
    remove,
    size,
)


def test_a_run_stands_for_its_best_then_its_final_model(tmp_path: Path) -> None:
    assert model_dir_of(tmp_path) == tmp_path
    (tmp_path / "final").mkdir()
    assert model_dir_of(tmp_path) == tmp_path / "final"
    (tmp_path / "best").mkdir()
    assert model_dir_of(tmp_path) == tmp_path / "best"
    (tmp_path / "config.json").write_text("{}")
    assert model_dir_of(tmp_path) == tmp_path


def test_a_second_run_is_kept_out(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with pytest.raises(InputError, match="another run is writing there"):
            with locked(tmp_path / "run"):
                pass
    with locked(tmp_path / "run"):
        pass


def test_a_file_is_no_directory_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        with locked(tmp_path / "file"):
            pass


def test_entries_are_sized_and_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a").write_bytes(bytes(10))
    (tmp_path / "train.log").write_bytes(bytes(5))
    (tmp_path / "mine.txt").write_text("stays")
    found = entries(tmp_path, ("checkpoints", "train.log", "vdl"))
    assert [(path.name, size(path)) for path in found] == [("checkpoints", 10), ("train.log", 5)]
    remove(found)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_changes_of_the_future_are_told_and_of_the_past_refused() -> None:
    then = Settings({"seed": 1, "mean": [1, 2]}, {"lr": 0.1, "clip_norm": None})
    now = Settings({"seed": 1, "mean": [1, 2]}, {"lr": 0.2, "clip_norm": None})
    assert now.changes_since(then, Path("run")) == ["`lr` was 0.1, is 0.2"]
    other = Settings({"seed": 2, "mean": [1, 2]}, then.may_change)
    with pytest.raises(InputError, match=r"run: .*`seed` was 1, is 2"):
        other.changes_since(then, Path("run"))
    with pytest.raises(InputError, match=r"`mean` was \[1, 2\], is none"):
        Settings({"seed": 1}, {}).changes_since(then, Path("run"))


def test_clean_lists_and_removes_what_a_rerun_would_continue_from(
    tmp_path: Path, run_tool: Run
) -> None:
    for name in ("checkpoints", "best", "vdl"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoints" / "step_00000001.ckpt").write_bytes(bytes(2_000_000))
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "mine.txt").write_text("stays")
    assert_user_error(run_tool("clean", tmp_path), "--yes was expected")
    assert (tmp_path / "checkpoints").is_dir()
    done = run_tool("clean", tmp_path, "--yes")
    assert done.returncode == 0
    assert "2.0 MB" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "best", "mine.txt"]
    assert "nothing that a rerun" in run_tool("clean", tmp_path).stdout
    assert_user_error(run_tool("clean", tmp_path / "nowhere"), "no such directory")
    run_tool("clean", tmp_path, "--yes", "--models")
    assert not (tmp_path / "best").exists()


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()


def test_clean_knows_a_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "features", "first_stage", "report", "best", "checkpoints", "runs")
    lists = ("train_list.txt", "val_list.txt", "synset_words.txt", "settings.json", "mine.txt")
    lists += ("images.json", "contents.json")
    for name in lists:
        (tmp_path / name).write_text(name)
    assert clean.main([str(tmp_path), "--yes"]) == 0
    assert "removed 9 entries" in capsys.readouterr().out
    rest = [".lock", "best", "mine.txt", "report", "runs"]
    assert sorted(p.name for p in tmp_path.iterdir()) == rest
    assert clean.main([str(tmp_path), "--yes", "--models"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "mine.txt"]


def test_clean_leaves_lists_that_no_fine_tuning_wrote(tmp_path: Path) -> None:
    """A training may write into the folder that its lists lie in."""
    fill(tmp_path, "checkpoints")
    (tmp_path / "train_list.txt").write_text("cat.jpg 0\n")
    assert clean.main([str(tmp_path), "--yes"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "train_list.txt"]


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
