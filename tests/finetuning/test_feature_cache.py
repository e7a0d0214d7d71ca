"""The cache of features: what is proven is used, what is not is computed again."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from squeezenet_paddle.errors import InputError, RunError
from squeezenet_paddle.finetuning import cache
from squeezenet_paddle.finetuning.cache import BLOCK, FeatureFile, check_room

IMAGES, VIEWS, SIZE = 2 * BLOCK + 5, 2, 7
FEATURES = np.random.default_rng(0).normal(size=(VIEWS, IMAGES, SIZE)).astype("float16")


def feature_file(folder: Path, key: str = "of these weights") -> FeatureFile:
    return FeatureFile(folder, "train", key, IMAGES, VIEWS, SIZE)


def write(file: FeatureFile, count: int | None = None) -> list[cache.Block]:
    """Writes the first `count` missing blocks, all by default, and gives them."""
    blocks = file.missing()[:count]
    with file.writer() as writer:
        for block in blocks:
            bad = {3: "three is bad"} if block.start == 0 else {}
            writer.write(block, FEATURES[block.view, block.start : block.stop], bad)
    return blocks


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = feature_file(tmp_path)
    assert file.check() is None
    assert len(write(file)) == 6
    again = feature_file(tmp_path)
    assert again.check() is None
    assert again.missing() == []
    assert np.array_equal(again.read(), FEATURES)
    assert again.unreadable == {3: "three is bad"}
    assert (tmp_path / "train.f16").stat().st_size == again.bytes == FEATURES.nbytes


def test_after_a_kill_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    write(feature_file(tmp_path), 3)
    journal = tmp_path / "train.log"
    journal.write_bytes(journal.read_bytes()[:-9])  # the kill came within the last line
    file = feature_file(tmp_path)
    file.check()
    assert len(file.missing()) == 4
    write(file)
    whole = feature_file(tmp_path)
    whole.check()
    assert whole.missing() == []
    assert np.array_equal(whole.read(), FEATURES)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_and_mended(tmp_path: Path, damage: str) -> None:
    write(feature_file(tmp_path))
    data = tmp_path / "train.f16"
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[SIZE * 2 * (BLOCK + 1)] ^= 1  # in the second block
        data.write_bytes(content)
    elif damage == "cut":
        data.write_bytes(content[:-1])
    else:
        data.unlink()
    file = feature_file(tmp_path)
    problem = file.check()
    assert (problem is None) == (damage == "remove")
    assert len(file.missing()) == (6 if damage == "remove" else 1)
    write(file)
    assert np.array_equal(file.read(), FEATURES)


def test_features_of_something_else_are_never_taken(tmp_path: Path) -> None:
    write(feature_file(tmp_path))
    other = feature_file(tmp_path, "of other weights")
    problem = other.check()
    assert problem is not None
    assert "computed again" in problem
    assert len(other.missing()) == 6
    assert not (tmp_path / "train.f16").exists()


@pytest.mark.parametrize("journal", [b"", b"\n", b"[]\n", b"\xff\xfe\n{}"])
def test_a_journal_that_is_none_vouches_for_nothing(tmp_path: Path, journal: bytes) -> None:
    write(feature_file(tmp_path))
    (tmp_path / "train.log").write_bytes(journal)
    file = feature_file(tmp_path)
    file.check()
    assert len(file.missing()) == 6
    write(file)
    assert np.array_equal(file.read(), FEATURES)


def test_a_damaged_line_counts_for_nothing(tmp_path: Path) -> None:
    write(feature_file(tmp_path))
    journal = tmp_path / "train.log"
    journal.write_bytes(journal.read_bytes().replace(b"three is bad", b"nobody is b."))
    file = feature_file(tmp_path)
    file.check()
    assert [block.start for block in file.missing()] == [0, 0]  # of both views
    write(file)
    assert file.unreadable == {3: "three is bad"}


def test_a_disk_without_room_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = feature_file(tmp_path / "run" / "features")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage((100 << 20) + file.bytes))
    check_room(tmp_path / "run" / "features", [file])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage((100 << 20) + file.bytes - 1))
    with pytest.raises(InputError, match="--no_cache"):
        check_room(tmp_path / "run" / "features", [file])
    write(file)  # what is there needs no room
    check_room(tmp_path / "run" / "features", [file])


def test_a_full_disk_ends_with_a_message(tmp_path: Path) -> None:
    file = feature_file(tmp_path)
    (tmp_path / "train.f16").symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left on device"):
        write(file)
