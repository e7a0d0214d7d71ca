"""Checkpoints: a round trip, detected damage, and which files are kept."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squeezenet_paddle.errors import InputError, RunError
from squeezenet_paddle.training.checkpoint import Checkpoint, load_newest, save


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    arrays = {
        "network/conv1.weight": np.arange(12, dtype="float32").reshape(3, 4),
        "optimizer/updates": np.array(7, "int64"),
    }
    path = save(tmp_path, Checkpoint(12, arrays, {"best": None, "text": "ü"}), keep=3)
    assert path.name == "step_00000012.ckpt"
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 12
    assert found.record == {"best": None, "text": "ü"}
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)


def test_there_may_be_none(tmp_path: Path) -> None:
    assert load_newest(tmp_path / "nowhere") is None
    (tmp_path / "other.ckpt").write_text("")
    assert load_newest(tmp_path) is None


def plain(step: int) -> Checkpoint:
    return Checkpoint(step, {"a/b": np.ones(5, "float32")}, {"step": step})


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 5, 30, 100_000_000):
        save(tmp_path, plain(step), keep=2)
    assert names(tmp_path) == ["step_00000030.ckpt", "step_100000000.ckpt"]
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step == 100_000_000


def test_a_damaged_one_does_not_push_out_the_last_good_one(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, plain(step), keep=2)
    (tmp_path / "step_00000002.ckpt").write_bytes(b"damaged")
    save(tmp_path, plain(3), keep=2)
    assert {"step_00000001.ckpt", "step_00000003.ckpt"} <= set(names(tmp_path))


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    first = save(tmp_path / "a", plain(1), keep=1).read_bytes()
    time.sleep(2.1)  # the resolution of the times in an archive is 2 s
    assert save(tmp_path / "b", plain(1), keep=1).read_bytes() == first


def test_a_run_that_goes_on_before_damaged_ones_keeps_its_own(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, plain(step), keep=4)
    for step in (30, 40):
        (tmp_path / f"step_{step:08}.ckpt").write_bytes(b"damaged")
    save(tmp_path, plain(25), keep=1)  # after 20, with the damaged 40 still the newest by its name
    assert names(tmp_path) == [f"step_{step:08}.ckpt" for step in (25, 30, 40)]
    save(tmp_path, plain(35), keep=2)  # the damaged 30 is not one of the two
    save(tmp_path, plain(40), keep=2)
    assert names(tmp_path) == ["step_00000035.ckpt", "step_00000040.ckpt"]


def test_a_damaged_one_is_told_of_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        save(tmp_path, plain(step), keep=2)
    path = tmp_path / "step_00000002.ckpt"
    path.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        load_newest(tmp_path)
    expected = f"{path}: this checkpoint is damaged. The checkpoint before it is tried."
    assert caplog.messages == [expected]


def test_one_that_may_not_be_read_is_passed_over() -> None:
    with tempfile.TemporaryDirectory() as name:  # others may enter it, unlike tmp_path
        folder = Path(name)
        folder.chmod(0o755)
        save(folder, plain(1), keep=2)
        save(folder, plain(2), keep=2).chmod(0)
        told: list[str] = []
        user = os.geteuid()
        if user == 0:  # who may read everything
            os.seteuid(65534)
        try:
            found = load_newest(folder, told.append)
        finally:
            os.seteuid(user)
    assert found is not None
    assert found.step == 1
    assert len(told) == 1
    assert "step_00000002.ckpt: cannot read this checkpoint (Permission denied)." in told[0]


def test_the_old_one_goes_once_the_new_one_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, plain(1), keep=1)
    events: list[str] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def watched_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("fsync of the folder" if is_folder else "fsync of the file")
        fsync(descriptor)

    def watched_replace(path: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return replace(path, target)

    def watched_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.exists():
            events.append(f"remove {path.name}")
        unlink(path, missing_ok)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    monkeypatch.setattr(Path, "unlink", watched_unlink)
    save(tmp_path, plain(2), keep=1)
    assert events == [
        "fsync of the file",
        "rename to step_00000002.ckpt",
        "fsync of the folder",
        "remove step_00000001.ckpt",
    ]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_damage_is_seen_and_the_one_before_is_taken(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    for step in (1, 2):
        path = save(folder, plain(step), keep=2)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
    else:
        path.write_bytes(content[:at])
    told: list[str] = []
    found = load_newest(folder, told.append)
    assert found is not None
    assert found.step == 1
    assert len(told) == 1
    assert "step_00000002.ckpt" in told[0]
    shutil.rmtree(folder)


def test_a_renamed_one_is_not_taken_for_another_step(tmp_path: Path) -> None:
    save(tmp_path, plain(1), keep=2).rename(tmp_path / "step_00000009.ckpt")
    save(tmp_path, plain(2), keep=2)
    told: list[str] = []
    found = load_newest(tmp_path, told.append)
    assert found is not None
    assert found.step == 2
    assert "of step 1, not of 9" in told[0]


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, plain(1), keep=1).write_bytes(b"")
    with pytest.raises(InputError, match="none of its 1 checkpoints can be used"):
        load_newest(tmp_path, lambda _: None)


def rewrite(path: Path, version: int | None) -> None:
    """Gives a checkpoint another number of its format, or none, as the first format had."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    content = json.loads(arrays["json"].tobytes())
    del content["format"]
    if version is not None:
        content["format"] = version
    arrays["json"] = np.frombuffer(json.dumps(content).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    path.write_bytes(file.getvalue() + hashlib.sha256(file.getvalue()).digest())


@pytest.mark.parametrize(("version", "named"), [(None, "format 1"), (9, "format 9")])
def test_another_format_is_refused_and_not_passed_over(
    version: int | None, named: str, tmp_path: Path
) -> None:
    """To go on from an older checkpoint would silently undo the updates in between."""
    save(tmp_path, plain(1), keep=2)
    path = save(tmp_path, plain(2), keep=2)
    rewrite(path, version)
    with pytest.raises(InputError) as error:
        load_newest(tmp_path)
    message = str(error.value)
    assert message.startswith(f"{path}: this checkpoint has {named}, and this version of ")
    assert message.endswith("train from scratch with `overwrite`.")
    assert message.count(". ") == 0


def test_an_unwritable_folder_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(RunError, match="the older checkpoints are intact"):
        save(tmp_path / "checkpoints", plain(1), keep=1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def large(step: int) -> Checkpoint:
    """600 kB, of which the small disk holds one."""
    return Checkpoint(step, {"a/b": np.ones(150_000, "float32")}, {})


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    save(small_disk, large(1), keep=3)
    with pytest.raises(RunError, match=r"No space left.*the older checkpoints are intact"):
        save(small_disk, large(2), keep=3)
    assert names(small_disk) == ["step_00000001.ckpt"]
    found = load_newest(small_disk)
    assert found is not None
    assert found.step == 1
    save(small_disk, plain(3), keep=3)  # there is as much room as before


def test_what_a_killed_save_left_makes_room(small_disk: Path) -> None:
    (small_disk / ".a1b2c3d4.sqz-tmp").write_bytes(bytes(600_000))
    save(small_disk, large(2), keep=3)
    assert names(small_disk) == ["step_00000002.ckpt"]


def test_a_disk_that_becomes_read_only(small_disk: Path) -> None:
    save(small_disk, plain(1), keep=1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunError, match="cannot be written.*the older checkpoints are intact"):
        save(small_disk, plain(2), keep=1)
    assert load_newest(small_disk) is not None


WRITER = """
import itertools, os, signal, sys
from pathlib import Path
import numpy as np
from squeezenet_paddle.training.checkpoint import Checkpoint, load_newest, save
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
found, count = load_newest(folder), itertools.count(1)
def audit(event, args):
    if event in ("open", "os.rename", "os.remove", "os.chmod") and str(folder) in str(args[0]):
        if next(count) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audit)
for step in itertools.count(found.step + 1 if found else 1):
    save(folder, Checkpoint(step, {"a/b": np.full(200_000, step, "float32")}, {}), 2)
    print(step, flush=True)
"""


@pytest.mark.parametrize("kill_at", range(1, 25, 2))
def test_after_a_kill_before_any_file_event_the_last_one_saved_is_there(
    kill_at: int, tmp_path: Path
) -> None:
    save(tmp_path, plain(1), keep=2)
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(kill_at)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = [1, *map(int, done.stdout.split())][-1]
    found = load_newest(tmp_path)
    assert found is not None
    assert found.step in (saved, saved + 1)
    if found.step > 1:
        assert np.all(found.arrays["a/b"] == found.step)
    save(tmp_path, plain(10_000), keep=2)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_no_paddle_is_needed() -> None:
    code = "import sys, squeezenet_paddle.training.checkpoint; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
