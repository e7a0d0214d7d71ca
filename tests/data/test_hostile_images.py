"""Image files that are damaged on purpose, lie about their size, or need too much memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import mutate_images
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from squeezenet_paddle.data.decode import decode, read_file, read_image
from squeezenet_paddle.data.headers import xmp_orientation
from squeezenet_paddle.errors import ImageError

FILES = mutate_images.files()
ANIMATED = [name for name in FILES if name.startswith("apng")]


@pytest.mark.parametrize("arguments", [["--count", "600"], ["--count", "400", "--only", "apng"]])
def test_damaged_files_are_decoded_or_refused(arguments: list[str]) -> None:
    """In a process of its own; 10 of 20,000 ended it, and 21 ended in a traceback."""
    command = [sys.executable, mutate_images.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


@pytest.mark.parametrize("name", ANIMATED)
def test_an_animated_png_is_its_still_image(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as image:
        expected = np.asarray(image.convert("RGBA"))[:, :, 2::-1]
    np.testing.assert_array_equal(decode(FILES[name], "x"), expected)


def png(width: int, height: int) -> bytes:
    """A black-and-white PNG file."""
    rows = (b"\0" + bytes(-(-width // 8))) * height
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(rows, 1), b"IEND"]
    sized = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(sized)


def test_an_image_of_another_size_than_its_header_says() -> None:
    data = bytearray(png(1, 100))
    data[20:24] = struct.pack(">I", 100_000_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(data), "x")
    # Stray bytes that look like a segment, which reaches to a small frame behind the image.
    real = bytearray(FILES["jpeg-cmyk"])
    at = real.index(b"\xff\xc0")
    real[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    small = FILES["jpeg-cmyk"][at : at + 20]
    stray = b"\xff\x00" + struct.pack(">H", len(real))
    with pytest.raises(ImageError, match="60000x60000 pixels is over the limit"):
        decode(bytes(real[:2] + stray + real[2:] + small + bytes(20)), "x")


def with_xmp(format: str, orientation: int, exif: int | None = None) -> bytes:
    """An image with an orientation in an XMP packet, and one in EXIF."""
    packet = mutate_images.XMP.replace(b'"6"', f'"{orientation}"'.encode())
    options: dict[str, object] = {"quality": 95}
    if format == "PNG":
        options["pnginfo"] = png_text(packet.decode())
    elif format == "TIFF":
        options["tiffinfo"] = {700: packet, **({} if exif is None else {0x0112: exif})}
    else:
        options["xmp"] = packet
    if exif is not None and format != "TIFF":
        tags = Image.Exif()
        tags[0x0112] = exif
        options["exif"] = tags
    file = io.BytesIO()
    mutate_images.frames("RGB")[0].save(file, format, **options)
    return file.getvalue()


def png_text(packet: str) -> object:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet, zip=len(packet) % 2 == 0)
    return info


FORMATS = ["JPEG", "PNG", "WEBP", "TIFF"]
if "avif" in features.modules and features.check("avif"):
    FORMATS.append("AVIF")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_xmp(format: str, orientation: int) -> None:
    """As Pillow turns an image of the same orientation in EXIF; which comes first."""
    image = mutate_images.frames("RGB")[0]
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))[:, :, ::-1]
    result = decode(with_xmp(format, orientation), "x")
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).mean() < 12
    if format == "AVIF":  # which has no orientation 1
        return
    stored = decode(with_xmp(format, orientation, exif=1), "x")
    assert stored.shape == (27, 40, 3)
    assert np.abs(stored.astype(int) - np.asarray(image)[:, :, ::-1]).mean() < 12


def test_packets_of_xmp() -> None:
    assert xmp_orientation(b"<tiff:Orientation>8</tiff:Orientation>") == 8
    assert xmp_orientation(b"tiff:Orientation = '3'") == 3
    assert xmp_orientation(b'tiff:Orientation="9" tiff:OrientationX="3"') is None


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # which a reader would wait for
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(ImageError, match=f"{name}: a regular file was expected as image"):
            read_file(tmp_path / name)
    with pytest.raises(ImageError, match=r"cannot read this image \(Is a directory\)"):
        read_image(tmp_path)
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(100_000_000_000)
    with pytest.raises(ImageError, match="at most 500,000,000 bytes .* found 100,000,000,000"):
        read_file(tmp_path / "sparse.jpg")


@pytest.mark.parametrize("name", ["webp", "webp-animated", "avif", "heic"])
def test_formats_that_take_more_memory_have_a_lower_limit(name: str) -> None:
    if name not in FILES:
        pytest.skip("this Pillow does not read the format")
    assert decode(FILES[name], "x", max_pixels=40 * 27 * 4 // 3).size == 27 * 40 * 3
    with pytest.raises(ImageError, match=r"x: an? \w+ image of 40x27 .* the limit of 1,079\."):
        decode(FILES[name], "x", max_pixels=40 * 27 * 4 // 3 - 1)


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from squeezenet_paddle.data.decode import decode
from squeezenet_paddle.errors import ImageError, RunError

data = Path(sys.argv[1]).read_bytes()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 100_000_000 + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print(decode(data, "x").shape)
except (ImageError, RunError) as error:
    print(type(error).__name__, error)
"""


def decoded_with_little_memory(file: Path, more: int = 0) -> str:
    """What comes of an image with 100 MB and so many bytes more."""
    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(file), str(more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    return done.stdout or done.stderr


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_lack_of_memory_is_told_from_damage(format: str, tmp_path: Path) -> None:
    file, side = tmp_path / "large", 8000
    if format == "PNG":
        file.write_bytes(png(side, side))
    else:
        data = bytearray(FILES["gif"])
        data[6:10] = struct.pack("<HH", side, side)
        file.write_bytes(data)
    assert decoded_with_little_memory(file) == (
        "RunError x: the memory does not suffice for this image; fewer `num_workers` need less.\n"
    )


@pytest.mark.parametrize(("format", "mode"), [("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "CMYK")])
def test_a_pixel_takes_at_most_13_bytes(format: str, mode: str, tmp_path: Path) -> None:
    """They took up to 25, as Pillow's copies of a whole image do; 100 megapixels are the limit."""
    file, side = tmp_path / "large", 4000
    options = {"compression": "tiff_lzw"} if format == "TIFF" else {}
    Image.new(mode, (side, side)).save(file, format, **options)
    assert decoded_with_little_memory(file, 13 * side * side) == f"{(side, side, 3)}\n"
