"""The directory of a run: which model it gives, who may write, what a resume compares."""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path

import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.cli import clean
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.run_dir import Settings, entries, locked, model_dir_of, remove, size


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


def test_the_lock_is_not_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


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


def test_what_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()

    def rmtree(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "step_00000010.ckpt")

    monkeypatch.setattr(shutil, "rmtree", rmtree)  # as of a folder that is read-only
    with pytest.raises(InputError, match="/checkpoints: cannot be removed .Permission denied"):
        remove([tmp_path / "checkpoints"])


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match="cannot be locked .*No locks"), locked(tmp_path):
        pass


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
