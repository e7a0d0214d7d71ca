"""Files and directories that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.files import (
    atomic_directory,
    atomic_path,
    read_bytes,
    read_lines,
    sha256,
    write_bytes,
    write_text,
)

MARKER = "config.json"


class BodyError(Exception):
    """Raised by a test inside the block."""


def tree(folder: Path) -> dict[str, str]:
    """Every file below `folder` and its text; directories end in a slash."""
    return {
        str(p.relative_to(folder)) + "/" * p.is_dir(): "" if p.is_dir() else p.read_text()
        for p in folder.rglob("*")
    }


def write_model(path: Path, text: str = "new") -> None:
    with atomic_directory(path, (MARKER,), ("more",)) as temporary:
        (temporary / MARKER).write_text(text)


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_atomic_path_makes_the_folder_and_writes(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "file.txt", "größer\n")
    assert (tmp_path / "a/b/file.txt").read_bytes() == "größer\n".encode()
    assert set(tree(tmp_path)) == {"a/", "a/b/", "a/b/file.txt"}


def test_atomic_path_keeps_the_old_file_when_the_body_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(BodyError), atomic_path(tmp_path / "file") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise BodyError
    assert tree(tmp_path) == {"file": "old"}


def test_atomic_path_shows_the_old_file_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert tree(tmp_path) == {"file": "new"}


def test_who_has_the_old_file_open_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_modes_follow_the_umask(tmp_path: Path, umask: int) -> None:
    write_text(tmp_path / "file", "")
    write_model(tmp_path / "model")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o777 & ~umask
    assert os.umask(umask) == umask


def test_atomic_directory_replaces_what_it_wrote_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    write_model(tmp_path / "in" / "model", "old")
    (tmp_path / "in" / "model" / "more").write_text("old")
    write_model(tmp_path / "in" / "model")
    assert tree(tmp_path) == {"in/": "", "in/model/": "", "in/model/config.json": "new"}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which file a descriptor is of")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    if replaced:
        write_model(tmp_path / "model", "old")
    events, fsync = [], os.fsync

    def watched(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        marker = tmp_path / "model" / MARKER
        has_name = marker.exists() and marker.read_text() == "new"
        events.append((path.name if path.is_file() else path.parent.name, has_name))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_model(tmp_path / "model")
    # The file, its directory in `tmp_path`, and then the name in `tmp_path`.
    assert events == [(MARKER, False), (tmp_path.name, False), (tmp_path.parent.name, True)]


def test_atomic_directory_takes_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_model(tmp_path / "model")
    assert tree(tmp_path) == {"model/": "", "model/config.json": "new"}


def test_atomic_directory_follows_a_link_to_a_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_model(tmp_path / "link")
    assert (tmp_path / "link" / MARKER).read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {"real", "link"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("thesis.txt", "holds something else .thesis.txt is in it"),
        ("more", "holds something else .it has no config.json"),
        (None, "is a file"),
    ],
)
def test_atomic_directory_leaves_what_is_not_ours(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "model"
    if content is None:
        path.write_text("precious")
    else:
        path.mkdir()
        (path / content).write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=message):
        write_model(path)
    assert tree(tmp_path) == before


def test_atomic_directory_spares_a_file_that_a_user_put_into_ours(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "old")
    (tmp_path / "model" / "notes.txt").write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="notes.txt is in it"):
        write_model(tmp_path / "model")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [".", ".."])
def test_atomic_directory_spares_the_current_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="is the current directory or holds it"):
        write_model(Path(name))
    assert (tmp_path / "here").samefile(Path.cwd())


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, message in (("pipe", "no regular file"), ("folder", "a directory"), ("loop", "loop")):
        with pytest.raises(InputError, match=message):
            write_bytes(tmp_path / name, b"x")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(InputError, match="/proc/nowhere/file:? cannot be written"):
        write_bytes(Path("/proc/nowhere/file"), b"x")


def test_a_full_disk_is_named_with_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"/new.txt: cannot be written \(No space left on device"):
        write_bytes(tmp_path / "new.txt", b"x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [False, True])
def test_atomic_directory_keeps_the_old_one_when_the_body_fails(
    tmp_path: Path, exists: bool
) -> None:
    if exists:
        write_model(tmp_path / "model", "old")
    before = tree(tmp_path)
    with pytest.raises(BodyError), atomic_directory(tmp_path / "model", (MARKER,)) as temporary:  # noqa: PT012
        (temporary / MARKER).write_text("half")
        raise BodyError
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n \n\r\n", []),
        (b"a\nb", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n\r\n", ["a", "b"]),
        (b"\n a \n\nb\n\n", ["", " a ", "", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        ("ä\u2028b\x0bc\n".encode(), ["ä\u2028b\x0bc"]),
    ],
)
def test_read_lines_takes_all_line_ends(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    (tmp_path / "list").write_bytes(data)
    assert read_lines(tmp_path / "list", "list") == lines


def test_read_lines_names_the_line_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a\nb\nh\xfctte\n")
    with pytest.raises(InputError, match="list, line 3: this list of things is not UTF-8 text"):
        read_lines(tmp_path / "list", "list of things")


@pytest.mark.parametrize(
    ("make", "reason"), [(lambda path: None, "No such file"), (Path.mkdir, "Is a directory")]
)
def test_an_unreadable_file_is_an_error(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(tmp_path / "it")
    with pytest.raises(InputError, match=f"it: cannot read this thing .{reason}"):
        read_bytes(tmp_path / "it", "thing")


def test_sha256_of_the_standards_example() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
