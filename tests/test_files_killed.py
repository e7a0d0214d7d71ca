"""Writers that are killed at each of their steps, and what others find then."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

import pytest
from conftest import Run
from killed import killed_at_each_step

from squeezenet_paddle import files
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.files import atomic_directory, atomic_path, write_bytes, write_together
from squeezenet_paddle.temporaries import clear_leftovers, leftovers, recover

NAMES = ("config.json", "weights")


def write_model(path: Path, text: str) -> None:
    with atomic_directory(path, NAMES, ("model.onnx",)) as folder:
        for name in NAMES:
            (folder / name).write_text(text)


def read_model(path: Path) -> set[str]:
    return {(path / name).read_text() for name in NAMES}


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_directory_is_the_old_or_the_new_one_whenever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:  # as on NFS
        monkeypatch.setattr(files, "exchange", lambda a, b: False)
    path = tmp_path / "model"
    write_model(path, "old")
    seen, missing = set(), 0
    for _ in killed_at_each_step(lambda: write_model(path, "new")):
        missing += not path.exists()
        recover(path)
        [text] = read_model(path)
        seen.add(text)
        clear_leftovers(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["model"]
        write_model(path, "old")
    assert seen == {"old", "new"}
    assert (missing > 0) != exchanges
    assert read_model(path) == {"new"}


def test_a_reader_that_recovers_does_not_stop_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    write_model(path, "old")
    monkeypatch.setattr(files, "exchange", lambda a, b: False)
    replace = Path.replace

    def read_in_between(self: Path, target: Path) -> Path:
        recover(path)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", read_in_between)
    write_model(path, "new")
    assert read_model(path) == {"new"}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_file_is_the_old_or_the_new_one_and_the_next_writer_clears_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    left = 0
    for n in killed_at_each_step(lambda: write_bytes(path, b"new")):
        assert path.read_bytes() in (b"old", b"new")
        left += len(leftovers(tmp_path))
        child = os.fork()  # another process, which has cleared nothing yet
        if child == 0:
            write_bytes(tmp_path / "other", str(n).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "other"]
        path.write_bytes(b"old")
    assert left > 1


def test_what_is_being_written_is_not_a_leftover(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "old")
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("half")
        lost = pytest.raises(InputError, match=r"model.onnx: cannot be written \(No such file")
        with lost, atomic_path(tmp_path / "model" / "model.onnx") as export:
            export.write_text("an export")
            clear_leftovers(tmp_path, below=True)
            assert temporary.read_text() == "half"
            assert export.exists()
            write_model(tmp_path / "model", "new")  # which does not mind the export
    assert read_model(tmp_path / "model") == {"new"}


def test_a_leftover_is_held_while_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a process that has just made a file, and locks it now, would take it for its own."""
    for _ in killed_at_each_step(lambda: write_bytes(tmp_path / "file", b"x")):
        if leftovers(tmp_path):
            break
    held = []

    def unlink(self: Path, missing_ok: bool = False) -> None:
        with self.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(self)
        os.unlink(self)  # noqa: PTH108

    monkeypatch.setattr(Path, "unlink", unlink)
    clear_leftovers(tmp_path)
    assert len(held) == 1
    assert not leftovers(tmp_path)


def test_files_of_a_set_are_never_of_two_sets(tmp_path: Path) -> None:
    def contents(text: str) -> dict[str, bytes]:
        return {name: text.encode() for name in ("a", "b", "c")}

    write_together(tmp_path, contents("old"))
    complete = 0
    for _ in killed_at_each_step(lambda: write_together(tmp_path, contents("new"))):
        found = {p.name: p.read_text() for p in tmp_path.iterdir() if len(p.name) == 1}
        assert len({*found.values()}) < 2
        complete += len(found) == 3
        write_together(tmp_path, contents("old"))
    assert complete > 3
    clear_leftovers(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys("abc", "new")


def test_clean_removes_what_killed_commands_left_and_no_more(tmp_path: Path, run_tool: Run) -> None:
    images = tmp_path / "images"
    write_model(images / "model", "mine")
    for _ in killed_at_each_step(lambda: write_bytes(images / "class" / "a.jpg", b"x")):
        if leftovers(images, below=True):
            break
    (images / ".hidden").write_text("mine")
    done = run_tool("clean", images, "--yes")
    assert "removed 1 entries" in done.stdout
    assert re.search(r"\.[a-z0-9_]{8}\.sqz-tmp\n", done.stdout)
    kept = sorted(str(p.relative_to(images)) for p in images.rglob("*"))
    assert kept == [".hidden", "class", "model", *(f"model/{n}" for n in NAMES)]
