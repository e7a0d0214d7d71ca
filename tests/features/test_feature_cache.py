"""The cache of features: what is proven is used, what is not is computed again."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from squeezenet_paddle.errors import InputError, RunError
from squeezenet_paddle.features.cache import BLOCK, FeatureFile, check_room

IMAGES, VIEWS, SIZE = 2 * BLOCK + 5, 2, 7
CONTENTS = [f"content {i}" for i in range(IMAGES)]
FEATURES = np.random.default_rng(0).normal(size=(VIEWS, IMAGES, SIZE)).astype("float16")


def feature_file(folder: Path, key: str = "of these weights") -> FeatureFile:
    return FeatureFile(folder, "train", key, SIZE)


def missing(file: FeatureFile, contents: list[str] = CONTENTS) -> list[tuple[int, list[int]]]:
    """The view and the images of each block that is to be computed."""
    blocks = []
    for view in range(VIEWS):
        lacking = np.flatnonzero(file.rows(contents, view) < 0).tolist()
        blocks += [(view, lacking[i : i + BLOCK]) for i in range(0, len(lacking), BLOCK)]
    return blocks


def write(file: FeatureFile, count: int | None = None) -> None:
    """Writes the first `count` missing blocks, all by default."""
    with file.writer() as writer:
        for view, images in missing(file)[:count]:
            writer.write([CONTENTS[i] for i in images], view, FEATURES[view, images])


def read(file: FeatureFile, contents: list[str] = CONTENTS) -> np.ndarray:
    """[VIEWS, N, SIZE]; every row has to be there."""
    rows = np.stack([file.rows(contents, view) for view in range(VIEWS)])
    assert rows.min() >= 0
    return file.read()[rows]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = feature_file(tmp_path)
    assert file.check() is None
    assert len(missing(file)) == 6
    write(file)
    again = feature_file(tmp_path)
    assert again.check() is None
    assert missing(again) == []
    assert np.array_equal(read(again), FEATURES)
    assert (tmp_path / "train.f16").stat().st_size == FEATURES.nbytes


def test_rows_of_other_images_are_counted(tmp_path: Path) -> None:
    write(feature_file(tmp_path))
    file = feature_file(tmp_path)
    file.check()
    assert file.others(CONTENTS) == []
    assert file.others(CONTENTS[2:]) == [*CONTENTS[:2]] * VIEWS


def test_images_may_come_and_go_in_any_order(tmp_path: Path) -> None:
    write(feature_file(tmp_path))
    file = feature_file(tmp_path)
    file.check()
    order = np.random.default_rng(1).permutation(IMAGES)[:50].tolist()
    assert np.array_equal(read(file, [CONTENTS[i] for i in order]), FEATURES[:, order])
    some = [CONTENTS[3], "new", CONTENTS[3], CONTENTS[9]]
    assert missing(file, some) == [(0, [1]), (1, [1])]
    before = (tmp_path / "train.f16").read_bytes()
    with file.writer() as writer:
        writer.write(["new"], 1, FEATURES[0, :1])
    again = feature_file(tmp_path)
    again.check()
    assert missing(again, some) == [(0, [1])]
    assert np.array_equal(again.read()[again.rows(["new"], 1)], FEATURES[0, :1])
    assert (tmp_path / "train.f16").read_bytes()[: len(before)] == before
    assert np.array_equal(read(again), FEATURES)


def test_after_a_kill_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    write(feature_file(tmp_path / "whole"))
    write(feature_file(tmp_path), 3)
    journal = tmp_path / "train.log"
    journal.write_bytes(journal.read_bytes()[:-9])  # the kill came within the last line
    file = feature_file(tmp_path)
    file.check()
    assert len(missing(file)) == 4
    write(file)
    whole = feature_file(tmp_path)
    whole.check()
    assert missing(whole) == []
    assert np.array_equal(read(whole), FEATURES)
    files = [folder / "train.f16" for folder in (tmp_path, tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


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
    assert len(missing(file)) == (6 if damage == "remove" else 1)
    write(file)
    assert np.array_equal(read(file), FEATURES)
    assert data.stat().st_size == FEATURES.nbytes  # where they were
    again = feature_file(tmp_path)
    assert again.check() is None
    assert np.array_equal(read(again), FEATURES)


def test_features_of_something_else_are_never_taken(tmp_path: Path) -> None:
    write(feature_file(tmp_path))
    other = feature_file(tmp_path, "of other weights")
    problem = other.check()
    assert problem is not None
    assert "computed again" in problem
    assert len(missing(other)) == 6
    assert not (tmp_path / "train.f16").exists()


@pytest.mark.parametrize("journal", [b"", b"\n", b"[]\n", b"\xff\xfe\n{}"])
def test_a_journal_that_is_none_vouches_for_nothing(tmp_path: Path, journal: bytes) -> None:
    write(feature_file(tmp_path))
    (tmp_path / "train.log").write_bytes(journal)
    file = feature_file(tmp_path)
    file.check()
    assert len(missing(file)) == 6
    write(file)
    assert np.array_equal(read(file), FEATURES)


def test_a_damaged_line_counts_for_nothing(tmp_path: Path) -> None:
    write(feature_file(tmp_path))
    journal = tmp_path / "train.log"
    journal.write_bytes(journal.read_bytes().replace(b'"content 3"', b'"content X"'))
    file = feature_file(tmp_path)
    file.check()
    assert [images for _, images in missing(file)] == [list(range(BLOCK))] * VIEWS
    assert (file.rows(["content X"]) < 0).all()
    write(file)
    assert np.array_equal(read(file), FEATURES)


def test_a_disk_without_room_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage((100 << 20) + 1000))
    check_room(tmp_path / "run" / "features", 1000)
    with pytest.raises(InputError, match=r"the disk has 104.9 MB; fewer `views`\.$"):
        check_room(tmp_path / "run" / "features", 1001, "fewer `views`")
    with pytest.raises(InputError, match=r"the disk has 104.9 MB\.$"):  # as check-images says it
        check_room(tmp_path / "run" / "features", 1001)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0))
    check_room(tmp_path / "run" / "features", 0)  # what is there needs no room


def test_a_full_disk_ends_with_a_message(tmp_path: Path) -> None:
    file = feature_file(tmp_path)
    (tmp_path / "train.f16").symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left on device"):
        write(file)
