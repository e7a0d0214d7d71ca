"""Preprocessing against plain OpenCV and numpy; decoding against Pillow."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageFile, ImageOps

from squeezenet_paddle.data.decode import decode, read_image
from squeezenet_paddle.data.preprocess import EvalTransform, Preprocess
from squeezenet_paddle.errors import ImageError, InputError

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # of files damaged on purpose


def picture(height: int, width: int) -> np.ndarray:
    """A smooth random image, BGR; every corner of it differs."""
    coarse = np.random.default_rng(height * 10_000 + width).integers(0, 256, (5, 7, 3))
    return cv2.resize(coarse.astype("uint8"), (width, height))


IMAGE = picture(40, 60)
RGB = Image.fromarray(np.ascontiguousarray(IMAGE[:, :, ::-1]))
GREY = RGB.convert("L")
SIXTEEN = RGB.quantize(16)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def as_bgr(image: Image.Image) -> np.ndarray:
    """What Pillow shows, without transparency."""
    with_alpha = image.convert("RGBA") if "transparency" in image.info else image
    return np.asarray(with_alpha.convert("RGB"))[:, :, ::-1]


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return as_bgr(image)


# From pixels to the input


@pytest.mark.parametrize("shape", [(360, 480), (500, 333), (256, 256), (1, 1), (3, 2000)])
@pytest.mark.parametrize(("crop", "start"), [(227, 14), (224, 16)])
def test_default_equals_plain_opencv_bit_for_bit(
    tmp_path: Path, shape: tuple[int, int], crop: int, start: int
) -> None:
    file = tmp_path / "image.png"
    cv2.imwrite(str(file), picture(*shape))
    resized = cv2.resize(cv2.imread(str(file)), (256, 256), interpolation=cv2.INTER_CUBIC)
    expected = resized[start : start + crop, start : start + crop].astype("float32")
    expected = (expected - np.array([104, 117, 123], "float32")).transpose(2, 0, 1)

    result = Preprocess(crop_size=crop)(read_image(file))

    assert result.dtype == np.float32
    assert result.shape == (3, crop, crop) == Preprocess(crop_size=crop).input_shape
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("shape", "resized", "top", "left"),
    [
        ((300, 400), (256, 341), 14, 57),
        ((400, 300), (341, 256), 57, 14),
        ((300, 300), (256, 256), 14, 14),
        ((2000, 3), (170_666, 256), 85_219, 14),
    ],
    ids=["landscape", "portrait", "square", "extreme"],
)
def test_short_side_keeps_proportions_and_crops_the_middle(
    shape: tuple[int, int], resized: tuple[int, int], top: int, left: int
) -> None:
    image = picture(*shape)
    scaled = cv2.resize(image, resized[::-1], interpolation=cv2.INTER_LINEAR)
    preprocess = Preprocess(
        resize="short_side", interpolation="linear", mean=(0, 0, 0), data_format="NHWC"
    )
    np.testing.assert_array_equal(
        preprocess(image), scaled[top : top + 227, left : left + 227].astype("float32")
    )


def test_rgb_scale_mean_and_std_in_that_order_of_channels() -> None:
    image = np.full((8, 8, 3), (10, 20, 30), "uint8")  # B, G, R
    result = Preprocess(
        resize_size=8,
        crop_size=8,
        channel_order="RGB",
        scale=0.1,
        mean=(1.0, 1.5, 2.0),
        std=(1.0, 2.0, 4.0),
    )(image)
    assert result.shape == (3, 8, 8)
    np.testing.assert_allclose(result[:, 3, 3], [2.0, 0.25, -0.25], rtol=1e-6)
    assert (result == result[:, :1, :1]).all()


def test_nhwc_is_the_transposed_nchw() -> None:
    nchw = Preprocess(interpolation="area")(IMAGE)
    nhwc = Preprocess(interpolation="area", data_format="NHWC")
    assert nhwc.input_shape == (227, 227, 3)
    np.testing.assert_array_equal(nhwc(IMAGE), nchw.transpose(1, 2, 0))


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_out_takes_the_result_and_nothing_around_it(data_format: str) -> None:
    preprocess = Preprocess(data_format=data_format, std=(2.0, 2.0, 2.0))
    batch = np.full((3, *preprocess.input_shape), np.nan, "float32")
    row = batch[1]
    assert preprocess(IMAGE, row) is row
    np.testing.assert_array_equal(batch[1], preprocess(IMAGE))
    assert np.isnan(batch[[0, 2]]).all()


def test_ten_crops_are_corners_center_and_their_mirrors() -> None:
    image = picture(10, 10)
    places = [(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]
    crops = [image[y : y + 7, x : x + 7] for y, x in places]
    transform = EvalTransform(
        Preprocess(resize_size=10, crop_size=7, mean=(0, 0, 0), data_format="NHWC"), ten_crop=True
    )
    out = np.empty(transform.shape, "float32")
    transform(image, 0, 0, out)
    np.testing.assert_array_equal(out, crops + [crop[:, ::-1] for crop in crops])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resize": "crop"}, "resize must be one of squash, short_side; found 'crop'"),
        ({"interpolation": "nearest"}, "interpolation must be one of .*; found 'nearest'"),
        ({"channel_order": "rgb"}, "channel_order must be one of BGR, RGB; found 'rgb'"),
        ({"data_format": None}, "data_format must be one of NCHW, NHWC; found None"),
        ({"resize_size": 256.0}, "resize_size must be a whole number .*; found 256.0"),
        ({"crop_size": 0}, "crop_size must be a whole number of 1 to 2048; found 0"),
        ({"crop_size": True}, "crop_size must be a whole number of 1 to 2048; found True"),
        ({"crop_size": 257}, r"crop_size must be at most resize_size \(256\); found 257"),
        ({"mean": 104.0}, "mean must be three numbers; found 104.0"),
        ({"mean": (1.0, 2.0)}, "mean must be three numbers"),
        ({"mean": (1.0, 2.0, "3")}, "mean must be three finite numbers"),
        ({"mean": (1.0, 2.0, float("nan"))}, "mean must be three finite numbers"),
        ({"std": (1.0, float("inf"), 1.0)}, "std must be three finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be three numbers above 0"),
        ({"scale": 0}, "scale must be a number above 0; found 0"),
        ({"scale": "1"}, "scale must be a number above 0; found '1'"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocess(**wrong)


# From a file to pixels


def with_alpha(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.putalpha(GREY)
    return copy


LOSSLESS = {
    "png": encode(RGB, "PNG"),
    "bmp": encode(RGB, "BMP"),
    "tiff": encode(RGB, "TIFF"),
    "tiff-lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "webp": encode(RGB, "WEBP", lossless=True),
}
JPEG = {
    "jpeg": encode(RGB, "JPEG"),
    "jpeg-progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg-grey": encode(GREY, "JPEG"),
    "jpeg-restarts": cv2.imencode(".jpg", IMAGE, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes(),
}
OTHER = {
    "jpeg-cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "grey-png": encode(GREY, "PNG"),
    "grey-alpha-png": encode(with_alpha(GREY), "PNG"),
    "black-white-tiff": encode(RGB.convert("1"), "TIFF", compression="group4"),
    "palette-png": encode(SIXTEEN, "PNG"),
    "palette-bmp": encode(SIXTEEN, "BMP"),
    "palette-transparent-png": encode(SIXTEEN, "PNG", transparency=3),
    "gif": encode(SIXTEEN, "GIF"),
    "gif-transparent": encode(SIXTEEN, "GIF", transparency=3),
    "gif-animated": encode(RGB, "GIF", save_all=True, append_images=[ImageOps.invert(RGB)]),
}
ALL = {**LOSSLESS, **JPEG, **OTHER}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_give_the_very_pixels(name: str) -> None:
    np.testing.assert_array_equal(decode(LOSSLESS[name], name), IMAGE)


@pytest.mark.parametrize("name", ALL)
def test_pillow_sees_the_same_image(name: str) -> None:
    result = decode(ALL[name], name)
    assert result.dtype == np.uint8
    # Another build of libjpeg may round otherwise.
    np.testing.assert_allclose(
        result.astype(int), opened(ALL[name]), atol=3 if "jpeg" in name else 0
    )


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP"])
def test_transparency_is_dropped(format: str) -> None:
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    data = encode(with_alpha(RGB), format, **options)
    np.testing.assert_array_equal(decode(data, "x"), IMAGE)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_become_8(channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65_536, (9, 7, channels)).astype("uint16")
    result = decode(cv2.imencode(".png", deep)[1].tobytes(), "x")
    assert result.dtype == np.uint8
    assert np.abs(result - deep / 257).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(RGB, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as image:
        expected = as_bgr(ImageOps.exif_transpose(image))
    result = decode(data, "x")
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.astype(int), expected, atol=3 if format == "JPEG" else 0)


@pytest.mark.parametrize("format", ["WEBP", "PNG"])
def test_first_frame_of_an_animation_is_taken(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(RGB, format, save_all=True, append_images=[ImageOps.invert(RGB)], **options)
    np.testing.assert_array_equal(decode(data, "x"), IMAGE)


def test_jpeg_tables_may_precede_the_frame_and_be_padded() -> None:
    data = JPEG["jpeg"]
    frame, tables, scan = (data.index(b"\xff" + marker) for marker in (b"\xc0", b"\xc4", b"\xda"))
    moved = data[:frame] + data[tables:scan] + b"\xff\xff" + data[frame:tables] + data[scan:]
    assert moved != data
    np.testing.assert_array_equal(decode(moved, "x"), decode(data, "x"))
    with pytest.raises(ImageError, match="60x40"):
        decode(moved, "x", max_pixels=2399)


def test_content_counts_and_not_the_name(tmp_path: Path) -> None:
    for content in ALL:
        file = tmp_path / f"{content}.jpg"
        file.write_bytes(ALL[content])
        assert read_image(file).shape == IMAGE.shape


# What is no image


@pytest.mark.parametrize("name", [*LOSSLESS, *JPEG, "gif"])
def test_every_cut_is_an_error(name: str) -> None:
    data = ALL[name]
    # The last two bytes of a GIF close the data and the file: the image is whole before them.
    for length in range(len(data) - (2 if name == "gif" else 0)):
        with pytest.raises(ImageError, match="^x: "):
            decode(data[:length], "x")


BIG = {f: cv2.imencode(f, picture(480, 640))[1].tobytes() for f in (".jpg", ".png")}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(BIG)), st.floats(0, 1, exclude_max=True))
def test_a_cut_of_a_larger_image_never_gives_grey_fill(suffix: str, share: float) -> None:
    data = BIG[suffix]
    with pytest.raises(ImageError):
        decode(data[: int(share * len(data))], "x")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML page"),
        (b"\n <html>", "an HTML page"),
        (b"%PDF-1.4\n1234", "13 bytes that start with 25 50 44 46 2d 31 2e 34"),
        (b"\0", "1 bytes that start with 00"),
    ],
)
def test_other_content_is_named(data: bytes, found: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(data, "some.jpg")
    assert str(error.value).startswith("some.jpg: not an image; ")
    assert str(error.value).endswith(f"found {found}.")


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
)
def test_random_bytes_are_an_error(data: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        decode(start + data, "x")


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(ALL)),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_header_gives_a_image_or_an_error(
    name: str, damage: list[tuple[int, int]]
) -> None:
    data = bytearray(ALL[name])
    for position, byte in damage:
        data[position] = byte
    try:
        result = decode(bytes(data), "x", max_pixels=1_000_000)
    except ImageError:
        return
    assert result.dtype == np.uint8
    assert result.ndim == 3
    assert result.shape[2] == 3
    assert result.shape[0] * result.shape[1] <= 1_000_000


def claims(name: str, side: int) -> bytes:
    """The file with `side` x `side` written into its header."""
    data = bytearray(ALL[name])
    if name.startswith("jpeg"):
        at = data.index(b"\xff\xc2" if name == "jpeg-progressive" else b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    elif name == "png":
        data[16:24] = struct.pack(">II", side, side)
    elif name == "bmp":
        data[18:26] = struct.pack("<ii", side, side)
    else:
        data[6:10] = struct.pack("<HH", side, side)
    return bytes(data)


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a decoder is given the pixels of a file, for which it would take memory."""

    def forbidden(*args: object) -> None:
        raise AssertionError("a decoder was called")

    monkeypatch.setattr(cv2, "imdecode", forbidden)
    monkeypatch.setattr(ImageFile.ImageFile, "load", forbidden)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("side", [20_000, 60_000])
@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "png", "bmp", "gif"])
def test_a_huge_claim_is_refused_before_memory_is_taken(name: str, side: int) -> None:
    data = claims(name, side)
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"^x: .*limit"):
        decode(data, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("at", [8, 33], ids=["header", "second"])
def test_a_huge_png_chunk_is_refused_before_memory_is_taken(at: int) -> None:
    data = bytearray(LOSSLESS["png"])
    data[at : at + 4] = struct.pack(">I", 2_000_000_000)
    with pytest.raises(ImageError):
        decode(bytes(data), "x")


@pytest.mark.parametrize("name", [name for name in ALL if "webp" not in name])  # less is allowed
def test_max_pixels_itself_is_allowed(name: str) -> None:
    assert decode(ALL[name], "x", max_pixels=2400).shape == (40, 60, 3)
    with pytest.raises(ImageError, match="x: an image of 60x40 pixels is over the limit of 2,399"):
        decode(ALL[name], "x", max_pixels=2399)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda path: None, "No such file"), (Path.mkdir, "Is a directory")],
)
def test_an_unreadable_path_is_an_error(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "image.jpg"
    make(path)
    with pytest.raises(ImageError, match=f"image.jpg: cannot read this image .{reason}"):
        read_image(path)


def test_images_and_model_directories_need_no_paddle() -> None:
    modules = (
        "data.decode",
        "data.preprocess",
        "cli.common",
        "data.lists",
        "model_dir",
        "caffe.convert",
        "cli.caffe2paddle",
        "cli.torch2paddle",
    )
    imports = ", ".join(f"squeezenet_paddle.{module}" for module in modules)
    subprocess.run(
        [sys.executable, "-c", f"import sys, {imports}; sys.exit('paddle' in sys.modules)"],
        check=True,
    )


def test_bytes_after_the_end_of_a_png_are_passed_over() -> None:
    for tail in (b"\n", bytes(16), b"appended by something"):
        np.testing.assert_array_equal(decode(LOSSLESS["png"] + tail, "x"), IMAGE)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_tiff_without_a_range_is_refused(mode: str) -> None:
    with pytest.raises(ImageError, match="32-bit values"):
        decode(encode(Image.new(mode, (4, 4)), "TIFF"), "x")


@given(
    arrays("uint8", (5, 5, 3)),
    st.sampled_from(["BGR", "RGB"]),
    st.sampled_from(["NCHW", "NHWC"]),
    st.sampled_from([(1.0, (104, 117, 123), (1, 1, 1)), (1 / 255, (0.4, 0.5, 0.6), (0.2, 0.3, 1))]),
)
def test_denormalising_gives_the_crop_back(
    crop: np.ndarray, order: str, layout: str, values: tuple
) -> None:
    preprocess = Preprocess("squash", 5, "linear", 5, order, *values, layout)
    x = preprocess.normalise(crop)
    assert np.array_equal(preprocess.denormalise(x), crop)
    assert np.array_equal(preprocess.denormalise(np.stack([x, x + 1e6, x - 1e6]))[0], crop)
    assert set(np.unique(preprocess.denormalise(np.stack([x + 1e6, x - 1e6])))) == {0, 255}
