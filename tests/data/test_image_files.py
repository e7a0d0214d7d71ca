"""The images that a user names: files, folders, globs, and what is none of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from squeezenet_paddle.data.image_files import find_images
from squeezenet_paddle.errors import InputError


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    for name in ("b.JPG", "a.png", "sub/c.webp", "sub/deep/d.tiff", "notes.txt", "sub/odd.dat"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for name in (".hidden.jpg", ".thumbs/e.jpg", "folder.jpg/f.txt", "empty/g.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ([""], ["a.png", "b.JPG", "sub/c.webp", "sub/deep/d.tiff"]),
        ([".thumbs"], [".thumbs/e.jpg"]),
        (["notes.txt", "a.png"], ["notes.txt", "a.png"]),
        (["*.jpg"], []),
        (["*"], ["a.png", "b.JPG", "notes.txt"]),
        (["sub/*"], ["sub/c.webp", "sub/odd.dat"]),
        (["**/[cd].*"], ["sub/c.webp", "sub/deep/d.tiff"]),
        (["missing.jpg"], []),
        (["empty"], []),
    ],
)
def test_images_are_found(album: Path, patterns: Sequence[str], names: list[str]) -> None:
    asked = [str(album / pattern) for pattern in patterns]
    if names:
        assert [str(p.relative_to(album)) for p in find_images(asked)] == names
    else:
        with pytest.raises(InputError, match=r"`image`.*(neither a file|no images)"):
            find_images(asked)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["a.png", "missing.jpg", "b.JPG", "none*"], r"neither a .*: .*missing\.jpg; .*none\*\.$"),
        (["a.png", "empty"], r"empty: no images are in this folder .*1 empty file \(g\.txt\)"),
    ],
)
def test_all_that_is_missing_is_named(album: Path, patterns: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_images([album / pattern for pattern in patterns])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.org/cat.jpg", r"`image` https://example\.org/cat\.jpg: .*download it"),
        ("-", "`image` -: standard input is not read; give the name of a file"),
        ("", "`image`: .* found an empty name"),
    ],
)
def test_what_is_no_file_is_told(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_images([name])
