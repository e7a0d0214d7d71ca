"""Files told by their content: which are images, and what else lies in people's folders."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error
from PIL import Image, ImageOps, features

from squeezenet_paddle.data import decode as decoding
from squeezenet_paddle.data.decode import decode, read_image
from squeezenet_paddle.data.image_files import (
    LeftOut,
    describe_left_out,
    find_images,
    inspect,
    list_images,
    write_left_out,
)
from squeezenet_paddle.errors import ImageError
from squeezenet_paddle.file_kinds import image_kind, other_kind

HAS_AVIF = "avif" in features.modules and features.check("avif")
FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", *(["AVIF"] if HAS_AVIF else [])]


def encoded(format: str, **options: object) -> bytes:
    """A smooth image of 48x32 in a format of Pillow's."""
    y, x = np.mgrid[:32, :48]
    pixels = np.stack([x * 5, y * 7, 255 - x * 2 - y], axis=-1).clip(0, 255).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def without_decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pillow without AVIF, and no pillow-heif."""
    decoding.missing_decoder.cache_clear()
    monkeypatch.delitem(features.modules, "avif", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    yield
    decoding.missing_decoder.cache_clear()


@pytest.mark.parametrize("format", FORMATS)
def test_kinds_of_images(format: str) -> None:
    assert image_kind(encoded(format)[:512]) == {"WEBP": "WebP"}.get(format, format)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", None),
        (b"BMW 320i, red", None),
        (b"", None),
    ],
)
def test_kinds_by_their_first_bytes(start: bytes, kind: str | None) -> None:
    assert image_kind(start) == kind


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", "empty file"),
        (b"BMW 320i, red", "text file"),
        ("Zoë, Köln".encode()[:4], "text file"),  # cut off within a character
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b'<?xml version="1.0"?>\n<svg xmlns="">', "SVG drawing"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"PK\x03\x04", "archive"),
        (b"%PDF-1.7", "PDF file"),
        (bytes(range(200, 256)), "file of another kind"),
    ],
)
def test_kinds_of_what_is_no_image(start: bytes, kind: str) -> None:
    assert other_kind(start) == kind


@pytest.mark.parametrize("format", FORMATS)
def test_formats_decode_as_pillow_shows_them(format: str) -> None:
    data = encoded(format)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]
    assert np.abs(decode(data, "x").astype(int) - expected).max() <= 3


@pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")
def test_an_avif_file_that_is_cut_off() -> None:
    data = encoded("AVIF")
    for end in (40, len(data) // 2, len(data) - 20):
        with pytest.raises(ImageError, match="cut off or damaged"):
            decode(data[:end], "x.avif")


def test_heic_decodes_with_pillow_heif() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded("HEIF", quality=95)
    assert image_kind(data[:512]) == "HEIC"
    pixels = cv2.imdecode(np.frombuffer(encoded("PNG"), np.uint8), cv2.IMREAD_COLOR)
    result = decode(data, "x.heic")
    assert result.shape == pixels.shape
    assert np.abs(result.astype(int) - pixels).mean() < 6
    for end in (40, len(data) // 2):
        with pytest.raises(ImageError, match="cut off or damaged"):
            decode(data[:end], "x.heic")
    with pytest.raises(ImageError, match="over the limit"):
        decode(data, "x.heic", max_pixels=100)


@pytest.mark.parametrize(
    "format", [each for each in [*FORMATS, "HEIF"] if each not in ("GIF", "BMP")]
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation(format: str, orientation: int) -> None:
    """As Pillow turns a PNG file of the same orientation, which a HEIC file has in itself."""
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(encoded("PNG", exif=exif))) as image:
        viewed = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[:, :, ::-1]
    given = exif.tobytes() if format == "HEIF" else exif
    result = decode(encoded(format, exif=given, quality=95), "x")
    assert result.shape == viewed.shape
    assert np.abs(result.astype(int) - viewed).mean() < 4


def test_what_to_install_is_named(tmp_path: Path, without_decoders: None) -> None:
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x18ftypavif\0\0\0\0mif1avif")
    (tmp_path / "b.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "d.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(ImageError, match=r"after pip install 'squeezenet_paddle\[heic\]'"):
        read_image(tmp_path / "b.jpg")
    names, left_out = list_images(tmp_path)
    assert names == ["b.jpg"]  # which claims to be an image that can be read
    assert describe_left_out(left_out) == (
        "left out: 1 AVIF image (a.avif; readable after pip install 'pillow>=11.3'), "
        "2 HEIC images (c.heic, d.heic; readable after pip "
        "install 'squeezenet_paddle[heic]')"
    )


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    folder = tmp_path / "messy"
    files = {
        "photo": encoded("JPEG"),
        "web.jfif": encoded("JPEG"),
        "wrong.txt": encoded("PNG"),
        "png.jpg": encoded("PNG"),
        "page.jpg": b"<html>not found</html>",
        "deep/er/x.webp": encoded("WEBP"),
        "notes.txt": b"a cat",
        "clip.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        "shot.NEF": encoded("TIFF"),
        "shot.THM": encoded("JPEG"),
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
        "._photo": b"\0\x05\x16\x07",
        ".git/x.jpg": encoded("JPEG"),
        "__MACOSX/._x.jpg": b"\0\x05\x16\x07",
        "@eaDir/photo/SYNOPHOTO_THUMB.jpg": encoded("JPEG"),
        "texts/a.txt": b"a",
        "texts/more/b.txt": b"b",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "empty" / "er").mkdir(parents=True)
    return folder


def test_a_messy_folder(messy: Path, tmp_path: Path) -> None:
    os.mkfifo(messy / "pipe.jpg")  # which a reader would wait for
    names, left_out = list_images(messy)
    assert names == ["deep/er/x.webp", "page.jpg", "photo", "png.jpg", "web.jfif", "wrong.txt"]
    assert {each.path: each.kind for each in left_out} == {
        "notes.txt": "text file",
        "clip.mov": "video",
        "shot.NEF": "camera raw file",
        "pipe.jpg": "special file",
        "texts": "folder without images",
        "texts/a.txt": "text file",
        "texts/more/b.txt": "text file",
        "empty": "folder without images",
        **dict.fromkeys(
            ("Thumbs.db", "shot.THM", "._photo", ".git", "__MACOSX", "@eaDir"),
            "system file",
        ),
    }
    write_left_out(tmp_path / "left_out.csv", left_out)
    rows = list(csv.reader((tmp_path / "left_out.csv").open(newline="")))
    assert rows[0] == ["path", "kind", "reason"]
    assert [LeftOut(*row) for row in rows[1:]] == left_out
    write_left_out(tmp_path / "left_out.csv", [])  # of an earlier run
    assert (tmp_path / "left_out.csv").read_text() == "path,kind,reason\n"
    write_left_out(tmp_path / "new.csv", [])
    assert not (tmp_path / "new.csv").exists()
    summary = describe_left_out(left_out)
    assert "1 camera raw file (shot.NEF)" in summary
    assert "3 text files (notes.txt, texts/a.txt, ...)" in summary


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9,\n.txt")
    write_left_out(tmp_path / "a.csv", [LeftOut(name, "text file")])
    assert (tmp_path / "a.csv").read_bytes() == b'path,kind,reason\n"caf\xe9,\n.txt",text file,\n'
    assert describe_left_out([LeftOut(name, "text file")]).isprintable()


def test_infer_and_its_like_take_the_same_files(messy: Path) -> None:
    said: list[str] = []
    found = find_images([messy], said.append)
    assert [path.relative_to(messy).as_posix() for path in found] == list_images(messy)[0]
    assert len(said) == 1
    assert said[0].startswith(f"{messy}: left out: 2 folders without images (empty, texts), ")
    assert said[0].endswith(", 6 system files (._photo, .git, ...)")


# Inspection


def problem_of(path: Path) -> str | None:
    """What the decoder says of a file."""
    try:
        read_image(path)
    except ImageError as error:
        return str(error)
    return None


def test_inspect_reads_every_file_once(messy: Path) -> None:
    names = [*list_images(messy)[0], "notes.txt", "missing.jpg"]
    (messy / "cut.jpg").write_bytes(encoded("JPEG")[:-400])
    names.append("cut.jpg")
    results = dict(zip(names, inspect([messy / name for name in names], num_workers=0)))
    for name, result in results.items():
        file = messy / name
        data = file.read_bytes() if file.exists() else None
        assert result.sha256 == ("" if data is None else hashlib.sha256(data).hexdigest())
        assert result.problem == problem_of(file)
    assert {name: r.kind for name, r in results.items()} == {
        "deep/er/x.webp": "WebP",
        "page.jpg": "HTML page",
        "photo": "JPEG",
        "png.jpg": "PNG",
        "web.jfif": "JPEG",
        "wrong.txt": "PNG",
        "notes.txt": "text file",
        "missing.jpg": "file that cannot be read",
        "cut.jpg": "JPEG",
    }
    assert [name for name, r in results.items() if r.problem] == [
        *("page.jpg", "notes.txt", "missing.jpg", "cut.jpg"),
    ]


def test_what_is_known_is_not_decoded_again(messy: Path) -> None:
    page = messy / "page.jpg"
    [result] = inspect([page])
    assert result.problem is not None
    assert next(inspect([page], known={result.sha256})).problem is None


def test_inspect_agrees_with_the_decoder_on_awkward_files(assets: Path) -> None:
    paths = sorted((assets / "data" / "awkward").iterdir())
    for path, result in zip(paths, inspect(paths)):
        assert result.problem == problem_of(path), path


def test_thousands_of_files(tmp_path: Path) -> None:
    """More than are inspected at once; each is a link to one file."""
    (tmp_path / "0.bmp").write_bytes(encoded("BMP"))
    for i in range(1, 2100):
        os.link(tmp_path / "0.bmp", tmp_path / f"{i}.bmp")
    names, left_out = list_images(tmp_path)
    assert (len(names), left_out) == (2100, [])
    results = list(inspect([tmp_path / name for name in names]))
    assert len(results) == 2100
    assert len(set(results)) == 1


def test_the_commands_say_what_a_folder_lacks(tmp_path: Path, call_tool: Run) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.txt").write_text("text")
    done = call_tool("make_lists", "--images", tmp_path, "--output_dir", tmp_path / "lists")
    assert_user_error(done, "found none, and 0 images", "1 text file (cat/a.txt)")
