"""What a killed compression remembers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from squeezenet_paddle.compression import memory
from squeezenet_paddle.compression.compress import forget
from squeezenet_paddle.compression.memory import Memory
from squeezenet_paddle.compression.rounding import Rounded
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.sqz.format import Indices


def rounded(number: int) -> Rounded:
    rng = np.random.default_rng(number)
    values = rng.integers(-2000 * (number % 2) - 1, 2, (3, 4, 1, 1)).astype("int16")
    indices = Indices(values, np.float32(0.1 + number), rng.integers(0, 9, 4).astype("uint8"))
    error = None if number == 2 else number / 7
    return Rounded(f"fire{number}/squeeze1x1", indices, rng.normal(size=3).astype("float32"), error)


def assert_equal(a: Rounded, b: Rounded) -> None:
    assert (a.name, a.error, a.indices.unit) == (b.name, b.error, b.indices.unit)
    for x, y in (
        (a.indices.values, b.indices.values),
        (a.indices.scales, b.indices.scales),
        (a.bias, b.bias),
    ):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def filled(folder: Path, count: int) -> None:
    first = Memory(folder, "a run")
    for i in range(count):
        first.next(rounded(i).name, lambda i=i: rounded(i))


def never() -> Rounded:
    raise AssertionError("this was computed before")


def test_what_was_computed_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0)
    filled(tmp_path, 4)
    second = Memory(tmp_path, "a run")
    for i in range(4):
        assert_equal(second.next(rounded(i).name, never), rounded(i))
    assert_equal(second.next(rounded(4).name, lambda: rounded(4)), rounded(4))


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0)
    filled(tmp_path, 4)
    older, newest = sorted(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    second = Memory(tmp_path, "a run")
    assert "is damaged. The checkpoint before it is tried." in capfd.readouterr().err
    for i in range(3):
        assert_equal(second.next(rounded(i).name, never), rounded(i))
    with pytest.raises(AssertionError, match="computed before"):
        second.next(rounded(3).name, never)
    older.write_bytes(b"")
    with pytest.raises(InputError, match="remove that folder to start from scratch"):
        Memory(tmp_path, "a run")


def test_another_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0)
    filled(tmp_path, 1)
    with pytest.raises(InputError, match="holds checkpoints of another compression; remove it"):
        Memory(tmp_path, "another")
    with pytest.raises(InputError, match="holds checkpoints of another compression; remove it"):
        Memory(tmp_path, "a run").next("conv10", never)


def test_short_runs_write_nothing(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    assert not any(tmp_path.iterdir())
    without = Memory(None, "a run")
    assert_equal(without.next(rounded(0).name, lambda: rounded(0)), rounded(0))
    without.save()


def test_an_interrupted_run_saves(tmp_path: Path) -> None:
    first = Memory(tmp_path, "a run")
    first.next(rounded(0).name, lambda: rounded(0))

    def interrupted() -> Rounded:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.next(rounded(1).name, interrupted)
    assert_equal(Memory(tmp_path, "a run").next(rounded(0).name, never), rounded(0))


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="a folder for checkpoints was expected, this is a file"):
        Memory(tmp_path / "file", "a run")


def test_what_is_not_of_the_run_stays(tmp_path: Path) -> None:
    """Beside checkpoints, in a folder that is a link."""
    folder = tmp_path / "elsewhere"
    rounds = Memory(folder / "rounded", "a run")
    rounds.next(rounded(0).name, lambda: rounded(0))
    rounds.save()
    (folder / "step_final.ckpt").write_text("mine")
    (tmp_path / "link").symlink_to(folder)
    forget(tmp_path / "link")
    assert [path.name for path in folder.iterdir()] == ["step_final.ckpt"]
    (folder / "step_final.ckpt").unlink()
    forget(tmp_path / "link")
    assert folder.is_dir()
    forget(folder)
    assert not folder.exists()
