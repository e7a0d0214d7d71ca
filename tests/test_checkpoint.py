"""Checkpoints under damage, a full disk and kill -9: there is always a good one, and it is found."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squeezenet_paddle import checkpoint
from squeezenet_paddle.checkpoint import Checkpoint, load_newest, save
from squeezenet_paddle.errors import InputError, RunError

RECORD = {"best": 0.1 + 0.2, "epoch": [1, None], "settings": {"lr": "größer"}}


def state(step: int, size: int = 6) -> Checkpoint:
    arrays = {
        "network/conv1.weight": np.arange(size, dtype="float32").reshape(2, -1) * step,
        "optimizer/updates": np.array(step, np.int64),
    }
    return Checkpoint(step, arrays, {**RECORD, "step": -step})


def assert_state(found: Checkpoint | None, step: int, size: int = 6) -> None:
    assert found is not None
    expected = state(step, size)
    assert (found.step, found.record) == (step, expected.record)
    assert found.arrays.keys() == expected.arrays.keys()
    for key, array in expected.arrays.items():
        assert found.arrays[key].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[key], array)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def named(*steps: int) -> list[str]:
    return [f"step_{step:08d}.ckpt" for step in steps]


def forbidden(message: str) -> None:
    pytest.fail(f"unexpected warning: {message}")


def flip(path: Path, position: int = 100, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path / "run" / "checkpoints", state(12), keep=3)
    assert path == tmp_path / "run" / "checkpoints" / "step_00000012.ckpt"
    assert_state(load_newest(path.parent, forbidden), 12)
    assert names(path.parent) == named(12)


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "nowhere", forbidden) is None
    assert load_newest(tmp_path, forbidden) is None
    for name in ("step_1.ckpt", "step_00000001.ckpt.bak", "notes.txt", ".step_00000001.ckpt.x"):
        (tmp_path / name).write_text("not ours")
    (tmp_path / "step_00000001.ckpt").mkdir()
    assert load_newest(tmp_path, forbidden) is None


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    first = save(tmp_path / "a", state(3), keep=1).read_bytes()
    assert save(tmp_path / "b", state(3), keep=1).read_bytes() == first


def test_the_newest_is_that_of_the_largest_number(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 9):  # by their letters, 9 would be the last
        save(tmp_path, state(step), keep=3)
    assert_state(load_newest(tmp_path, forbidden), 100_000_000)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for step in range(10, 60, 10):
        save(tmp_path, state(step), keep)
    assert names(tmp_path) == named(*range(10, 60, 10))[-keep:]


def test_a_step_saved_again_replaces_the_first(tmp_path: Path) -> None:
    save(tmp_path, state(10), keep=2)
    save(tmp_path, Checkpoint(10, {}, {"again": True}), keep=2)
    found = load_newest(tmp_path, forbidden)
    assert found is not None
    assert found.record == {"again": True}


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_ones_do_not_push_out_good_ones(tmp_path: Path, keep: int) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, state(step), keep=4)
    flip(tmp_path / "step_00000040.ckpt")
    flip(tmp_path / "step_00000030.ckpt")
    assert_state(load_newest(tmp_path, lambda message: None), 20)
    save(tmp_path, state(25), keep)  # the run goes on from 20
    assert names(tmp_path) == named(*([20] * (keep > 1)), 25, 30, 40)
    save(tmp_path, state(35), keep)  # 30 is no good one to count
    assert names(tmp_path) == named(*([25, 30] * (keep > 1)), 35, 40)
    save(tmp_path, state(40), keep)
    assert names(tmp_path) == named(*([35] * (keep > 1)), 40)
    assert_state(load_newest(tmp_path, forbidden), 40)


DAMAGE = {
    "a flipped bit": (flip, "this checkpoint is damaged"),
    "cut off": (lambda path: os.truncate(path, path.stat().st_size - 1), "damaged"),
    "empty": (lambda path: os.truncate(path, 0), "damaged"),
    "garbage": (lambda path: path.write_bytes(b"PK" * 500), "damaged"),
    "renamed": (
        lambda path: shutil.copy(path.with_name("step_00000020.ckpt"), path),
        "this checkpoint is of step 20, not of 30",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_one_before_a_damaged_one(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (10, 20, 30):
        save(tmp_path, state(step), keep=3)
    harm, reason = DAMAGE[kind]
    harm(tmp_path / "step_00000030.ckpt")
    with caplog.at_level(logging.WARNING):
        assert_state(load_newest(tmp_path), 20)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'step_00000030.ckpt'}: {reason}")
    assert message.endswith("The checkpoint before it is tried.")


def test_all_damaged_is_an_error_and_no_new_start(tmp_path: Path) -> None:
    for step in (10, 20):
        flip(save(tmp_path, state(step), keep=2))
    warnings: list[str] = []
    with pytest.raises(InputError, match="none of its 2 checkpoints can be used"):
        load_newest(tmp_path, warnings.append)
    assert [Path(message.partition(":")[0]).name for message in warnings] == named(20, 10)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("good"), state(20), keep=1)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_is_detected(good: Path, data: st.DataObject) -> None:
    content = good.read_bytes()
    damaged = bytearray(content)
    if data.draw(st.booleans(), label="cut off"):
        del damaged[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        damaged[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / good.name
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="none of its 1 checkpoints can be used"):
            load_newest(path.parent, lambda message: None)
        path.write_bytes(content)
        assert_state(load_newest(path.parent, forbidden), 20)


def test_one_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:  # which, unlike tmp_path, others may enter
        folder = Path(name)
        folder.chmod(0o755)
        save(folder, state(10), keep=2)
        save(folder, state(20), keep=2).chmod(0)
        warnings: list[str] = []
        before = os.geteuid()
        if before == 0:  # who may read everything
            os.seteuid(65534)
        try:
            found = load_newest(folder, warnings.append)
        finally:
            os.seteuid(before)
        assert_state(found, 10)
        (message,) = warnings
        assert "step_00000020.ckpt: cannot read this checkpoint (Permission denied)" in message


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    save(tmp_path, state(10), keep=2)
    (tmp_path / ".step_00000020.ckpt.a1b2c3").write_bytes(b"half")
    (tmp_path / ".notes").write_text("not ours")
    assert_state(load_newest(tmp_path, forbidden), 10)
    save(tmp_path, state(20), keep=2)
    assert names(tmp_path) == [".notes", *named(10, 20)]


def test_nothing_is_removed_before_the_new_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, state(10), keep=1)
    events: list[str] = []

    def watched(kind: str, original):  # noqa: ANN001, ANN202
        def call(*args, **kwargs):  # noqa: ANN002, ANN003, ANN202
            events.append(kind)
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", watched("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", watched("rename", Path.replace))
    monkeypatch.setattr(checkpoint, "_is_usable", pytest.fail)
    unlink = Path.unlink

    def watched_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".ckpt":
            events.append(f"remove {path.name}")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched_unlink)
    save(tmp_path, state(20), keep=1)
    # The file's content, its name, the folder's list of names, and only then the old one.
    assert events == ["fsync", "rename", "fsync", "remove step_00000010.ckpt"]


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    floats = 25_000  # 100 kB: two fit, three do not
    folder = small_disk / "checkpoints"
    for step in (10, 20):
        save(folder, state(step, floats), keep=3)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        RunError,
        match=r"checkpoints/step_00000030\.ckpt: cannot be written \(No space left on device\); "
        r"the older checkpoints are intact\.$",
    ):
        save(folder, state(30, floats), keep=3)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert_state(load_newest(folder, forbidden), 20, floats)
    (folder / "step_00000010.ckpt").unlink()  # the user makes room
    save(folder, state(30, floats), keep=3)
    assert_state(load_newest(folder, forbidden), 30, floats)


def test_room_is_made_of_leftovers_first(small_disk: Path) -> None:
    floats = 25_000
    save(small_disk, state(10, floats), keep=3)
    (small_disk / ".step_00000020.ckpt.a1b2c3").write_bytes(bytes(100_000))
    save(small_disk, state(20, floats), keep=3)
    assert names(small_disk) == named(10, 20)


def test_a_disk_that_becomes_read_only(small_disk: Path) -> None:
    save(small_disk, state(10), keep=1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunError, match="cannot be written.*; the older checkpoints are intact"):
        save(small_disk, state(20), keep=1)
    assert_state(load_newest(small_disk, forbidden), 10)


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RunError, match="cannot be written"):
        save(tmp_path / "file" / "checkpoints", state(10), keep=1)
    assert (tmp_path / "file").read_text() == "precious"


KILLED_SIZE = 500_000  # floats


def save_forever(folder: Path, first: int) -> None:
    """What the process that is killed does; it tells each step that is saved."""
    for step in range(first, 1_000_000):
        save(folder, state(step, KILLED_SIZE), keep=2)
        print(step, flush=True)


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    done = 0
    for _ in range(10):
        command = [sys.executable, __file__, str(tmp_path), str(done + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline())]  # it has started
            rest = threading.Thread(target=lambda: told.extend(map(int, process.stdout)))
            rest.start()
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
            rest.join()
        found = load_newest(tmp_path, forbidden)
        assert_state(found, found.step, KILLED_SIZE)
        assert told[-1] <= found.step <= told[-1] + 1  # saved, but not told in time
        done = found.step
    save(tmp_path, state(done + 1, KILLED_SIZE), keep=2)
    assert names(tmp_path) == named(done, done + 1)


if __name__ == "__main__":
    save_forever(Path(sys.argv[1]), int(sys.argv[2]))
