"""What decoders print from C: not on the terminal, and with the image's name when asked for."""

from __future__ import annotations

import io
import logging
import os
import struct
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run
from PIL import Image, TiffImagePlugin

from squeezenet_paddle.data import remarks
from squeezenet_paddle.data.decode import decode, read_image
from squeezenet_paddle.data.image_files import find_images
from squeezenet_paddle.data.lists import ImageList
from squeezenet_paddle.data.loader import Loader, check_files
from squeezenet_paddle.data.preprocess import EvalTransform, Preprocess
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.errors import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), "uint8")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(kind: bytes, data: bytes) -> bytes:
    """A good PNG file with one more chunk behind its header."""
    png = cv2.imencode(".png", PIXELS)[1].tobytes()
    return png[:33] + png_chunk(kind, data) + png[33:]


def odd_jpeg() -> bytes:
    """A JPEG file with bytes between its image and its end."""
    jpeg = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    return jpeg[:-2] + b"\x11\x22\x33" * 4 + jpeg[-2:]


def odd_tiff() -> bytes:
    """A TIFF file with a private tag, and two values in a tag of one."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[65000], tags.tagtype[65000] = "mine", 2
    tags[296] = 2
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "TIFF", tiffinfo=tags, compression="tiff_lzw")
    data = file.getvalue()
    entry = struct.pack("<HHI", 296, 3, 1)  # resolution unit, a short, one of them
    assert data.count(entry) == 1
    return data.replace(entry, struct.pack("<HHI", 296, 3, 2))


FILES = {  # name -> content, and the remark of a decoder; "" where versions differ
    "profile.png": (png_with(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")), "iCCP"),
    "gamut.png": (png_with(b"cHRM", struct.pack(">8I", *[4_000_000_000] * 8)), ""),
    "time.png": (png_with(b"tIME", b"\0" * 7), ""),
    "extra.jpg": (odd_jpeg(), "extraneous bytes before marker"),
    "tags.tif": (odd_tiff(), "tag 296 had too many entries"),
}


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def odd_images(tmp_path: Path) -> ImageList:
    for name, (content, _) in FILES.items():
        (tmp_path / name).write_bytes(content)
    return ImageList.of_paths(find_images([tmp_path]))


def assert_remarks(lines: list[str]) -> None:
    """Every file's remark is there, with its name."""
    for name, (_, remark) in FILES.items():
        assert not remark or any(name in line and remark in line for line in lines), name


@pytest.mark.filterwarnings("error")
def test_decoders_print_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    image = decode(FILES[name][0], name)
    assert image.shape == (32, 32, 3)
    assert capfd.readouterr() == ("", "")


def test_remarks_are_logged_with_the_name(name: str, caplog: pytest.LogCaptureFixture) -> None:
    content, remark = FILES[name]
    with caplog.at_level(logging.INFO, remarks.logger.name):
        decode(content, name)
        assert all(message.startswith(f"{name}: ") for message in caplog.messages)
        assert not remark or any(remark in message for message in caplog.messages)
        caplog.clear()
        decode(cv2.imencode(".png", PIXELS)[1].tobytes(), "good.png")
        assert caplog.messages == []


def test_remarks_on_what_cannot_be_decoded(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    png = bytearray(cv2.imencode(".png", PIXELS)[1].tobytes())
    png[25] = 9  # a colour type that does not exist
    with caplog.at_level(logging.INFO, remarks.logger.name), pytest.raises(ImageError):
        decode(bytes(png), "colours.png")
    assert any(message.startswith("colours.png: libpng") for message in caplog.messages)
    assert capfd.readouterr() == ("", "")


def test_the_descriptor_is_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    with remarks.as_remarks("outer"):
        with remarks.as_remarks("inner"):
            os.write(2, b"lost")
        os.write(2, b"lost")
    os.write(2, b"kept")
    assert capfd.readouterr().err == "kept"


def test_threads_decode_at_the_same_time(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    content, remark = FILES["profile.png"]
    together = threading.Barrier(4)

    def work() -> None:
        together.wait()
        for _ in range(50):
            decode(content, "profile.png")

    threads = [threading.Thread(target=work) for _ in range(4)]
    with caplog.at_level(logging.INFO, remarks.logger.name):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    # Lines of different threads may run into each other, but nothing is lost.
    assert sum(message.count(remark) for message in caplog.messages) == 200
    os.write(2, b"restored")
    assert capfd.readouterr() == ("", "restored")


def test_standard_error_may_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    saved = os.dup(2)
    os.close(2)
    try:
        assert decode(FILES["extra.jpg"][0], "extra.jpg").shape == (32, 32, 3)
        with pytest.raises(OSError):
            os.fstat(2)
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_readers_print_nothing(
    odd_images: ImageList,
    num_workers: int,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    transform = EvalTransform(Preprocess())
    with caplog.at_level(logging.INFO, remarks.logger.name):
        with Loader(odd_images, transform, Sampler(len(odd_images), 2), num_workers) as loader:
            assert sum(len(batch.indices) for batch in loader.epoch()) == len(FILES)
        assert_remarks(caplog.messages)
        caplog.clear()
        assert check_files(odd_images, num_workers) == {}
        assert_remarks(caplog.messages)
    assert capfd.readouterr() == ("", "")


def test_commands_show_remarks_when_asked(
    odd_images: ImageList, tmp_path: Path, run_tool: Run
) -> None:
    lines = "".join(f"{odd_images.path(i)} {i % 2}\n" for i in range(len(odd_images)))
    (tmp_path / "list.txt").write_text(lines)
    arguments = ("prepare_images", "--list", tmp_path / "list.txt", "--num_workers", 1)
    quiet = run_tool(*arguments, "--mean_json", tmp_path / "mean.json")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    verbose = run_tool(*arguments, "--mean_json", tmp_path / "mean.json", "--verbose")
    assert_remarks(verbose.stderr.splitlines())


@pytest.mark.filterwarnings("error")
def test_real_images_print_nothing(assets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in find_images([assets / "data" / "awkward", assets / "data" / "photos"]):
        try:
            read_image(path)
        except ImageError:
            continue
    assert capfd.readouterr() == ("", "")


def test_own_messages_are_never_taken_for_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as usual:  # noqa: PTH123
        monkeypatch.setattr(sys, "__stderr__", usual)
        monkeypatch.setattr(sys, "stderr", usual)
        remarks.separate_stderr()
        with sys.stderr:
            assert sys.stderr.fileno() != usual.fileno()
            assert os.path.sameopenfile(sys.stderr.fileno(), usual.fileno())
