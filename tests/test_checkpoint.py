"""Checkpoints: what is read is what was written, damage is seen, and the good ones stay."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
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


def test_an_unwritable_folder_is_an_error_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(RunError, match="the older checkpoints are intact"):
        save(tmp_path / "checkpoints", plain(1), keep=1)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        save(tmp_path, plain(1), keep=3)
        large = Checkpoint(2, {"a/b": np.ones(500_000, "float32")}, {})
        with pytest.raises(RunError, match=r"No space left.*the older checkpoints are intact"):
            save(tmp_path, large, keep=3)
        assert names(tmp_path) == ["step_00000001.ckpt"]
        found = load_newest(tmp_path)
        assert found is not None
        assert found.step == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


WRITER = """
import itertools, sys
from pathlib import Path
import numpy as np
from squeezenet_paddle.training.checkpoint import Checkpoint, load_newest, save
found = load_newest(Path(sys.argv[1]))
for step in itertools.count(found.step + 1 if found else 1):
    save(Path(sys.argv[1]), Checkpoint(step, {"a/b": np.full(200_000, step, "float32")}, {}), 2)
    print(step, flush=True)
"""


def test_after_a_kill_at_any_moment_the_last_one_saved_is_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        saved = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        saved = int(rest[-1]) if rest else saved
        found = load_newest(tmp_path)
        assert found is not None
        assert found.step in (saved, saved + 1)
        assert np.all(found.arrays["a/b"] == found.step)
    save(tmp_path, plain(10_000), keep=2)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_no_paddle_is_needed() -> None:
    code = "import sys, squeezenet_paddle.training.checkpoint; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
