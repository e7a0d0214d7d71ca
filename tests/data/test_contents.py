"""Hashes of files: those of hashlib, read again if and only if the file has changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Callable

import pytest
from PIL import Image
from terminal import lines_left, shown_on_a_terminal

from squeezenet_paddle.data import contents, image_files
from squeezenet_paddle.data.contents import content_hashes, inspect_contents, read_contents
from squeezenet_paddle.data.decode import decode


def files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{i} größe.bin" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(os.urandom(1000 * i))
    return paths


def hashes(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_they_are_those_of_hashlib(tmp_path: Path) -> None:
    paths = files(tmp_path, 7)
    assert content_hashes(paths) == hashes(paths)
    assert content_hashes([]) == []


def test_what_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, memo = files(tmp_path, 7), tmp_path / "memo.json"
    before = read_contents(paths, memo).hashes
    opened: list[str] = []
    real = os.open

    def noted(path: str, *args: object, **options: object) -> int:
        if str(path).endswith(".bin"):
            opened.append(Path(path).name)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", noted)
    assert read_contents(paths, memo).hashes == before
    assert not opened
    paths[3].write_bytes(bytes(3000))  # of the same size
    assert read_contents(paths, memo).hashes == hashes(paths)
    assert opened == [paths[3].name]
    moved = paths[0].rename(tmp_path / "other.bin")
    assert read_contents([moved], memo).hashes == before[:1]


def test_what_was_inspected_before_a_kill_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(path)
    decoded: list[str] = []
    monkeypatch.setattr(contents, "SAVED_EVERY", 0)

    def killed_at(count: float) -> Callable[..., object]:
        def noted(data: bytes, name: str, *args: object, **options: object) -> object:
            decoded.append(Path(name).name)
            if len(decoded) > count:
                raise KeyboardInterrupt
            return decode(data, name, *args, **options)  # type: ignore[arg-type]

        return noted

    monkeypatch.setattr(image_files, "decode", killed_at(6))
    with pytest.raises(KeyboardInterrupt):
        inspect_contents(paths, tmp_path / "memo.json", 1)
    decoded.clear()
    monkeypatch.setattr(image_files, "decode", killed_at(9))
    found = inspect_contents(paths, tmp_path / "memo.json", 1)
    assert found.hashes == hashes(paths)
    assert decoded == [path.name for path in paths[6:]]


@pytest.mark.parametrize("memo", [b"", b"{", b"[1]", b'{"a": 3}', b"\xff"])
def test_a_damaged_memo_costs_time_alone(tmp_path: Path, memo: bytes) -> None:
    paths = files(tmp_path, 3)
    (tmp_path / "memo.json").write_bytes(memo)
    for _ in range(2):
        assert read_contents(paths, tmp_path / "memo.json").hashes == hashes(paths)


def test_what_cannot_be_read_is_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b", tmp_path]
    found = read_contents(paths, tmp_path / "memo.json").hashes
    assert len(set(found)) == 3
    paths[0].write_bytes(b"a")
    assert read_contents(paths[:1], tmp_path / "memo.json").hashes == hashes(paths[:1])


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    paths = [tmp_path / "pipe.jpg", tmp_path / "zero.jpg"]
    assert content_hashes(paths) == [hashlib.sha256(os.fsencode(p)).hexdigest() for p in paths]


def test_the_bar_ends_with_all_files(tmp_path: Path) -> None:
    for path in (paths := [tmp_path / "a.png", tmp_path / "b.png"]):
        Image.new("RGB", (3, 3)).save(path)
    shown = shown_on_a_terminal(
        "import sys; from pathlib import Path\n"
        "from squeezenet_paddle.data.contents import inspect_contents\n"
        "inspect_contents(sys.argv[2:], Path(sys.argv[1]), 0)\n",
        *(tmp_path / "memo.json", *paths),
    )
    assert b"| 2/2 [" in lines_left(shown)[0]
