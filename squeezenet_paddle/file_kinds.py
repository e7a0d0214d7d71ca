"""What a file is, told by its first bytes: of weights, for errors; and which kind of image."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator

_STARTS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a numpy array",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19": "a PyTorch checkpoint",
}

_LOOKED_AT = 10_000  # fields of a message
START = 512  # bytes of a file that tell its kind

# ISO base media files (ISO/IEC 14496-12) name their brands after "ftyp".
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes in bytes

_NO_IMAGES = (
    (b"%PDF", "PDF file"),
    (b"8BPS", "Photoshop file"),
    (b"\xff\x0a", "JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "JPEG 2000 image"),
    (b"\x1a\x45\xdf\xa3", "video"),
    (b"\x00\x00\x01\xba", "video"),
    (b"PK\x03\x04", "archive"),
    (b"\x1f\x8b", "archive"),
    (b"7z\xbc\xaf\x27\x1c", "archive"),
    (b"Rar!", "archive"),
    (b"BZh", "archive"),
    (b"\xfd7zXZ", "archive"),
)


def image_kind(start: bytes) -> str | None:
    """JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF or HEIC, by the first bytes; None if it is none."""
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if start[4:8] == b"ftyp":
        size = int.from_bytes(start[:4], "big")
        brands = [start[at : at + 4] for at in (8, *range(16, min(size, len(start)), 4))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if brands[0] in _HEIC_BRANDS else None
    return None


def other_kind(start: bytes) -> str:
    """What a file that `image_kind` does not know is, by its first `START` bytes, as a noun."""
    if not start:
        return "empty file"
    for beginning, kind in _NO_IMAGES:
        if start.startswith(beginning):
            return kind
    if start[4:8] == b"ftyp" or (start[:4] == b"RIFF" and start[8:11] == b"AVI"):
        return "video"
    text = start.decode("utf-8", "ignore")
    if len(start) - len(text.encode()) > 3:  # more than a character cut off at the end
        return "file of another kind"
    if text.lstrip()[:64].lower().startswith(("<!doctype html", "<html")):
        return "HTML page"
    if "<svg" in text:
        return "SVG drawing"
    return "text file" if "".join(text.split()).isprintable() else "file of another kind"


def kind_of(data: bytes) -> str:
    """A noun phrase with its article, e.g. "a PyTorch checkpoint" or "an HTML page"."""
    if not data:
        return "an empty file"
    for start, kind in _STARTS.items():
        if data.startswith(start):
            is_keras = kind == "an HDF5 file" and b"keras" in data
            return "a Keras model in HDF5" if is_keras else kind
    if data[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if data.startswith(b"PK\x03\x04"):
        return _zip_kind(data)
    if data[257:262] == b"ustar":
        return "a tar archive"
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return "a safetensors file"
    if data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "a Python pickle"
    if data[:512].lstrip()[:64].lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page"
    return _text_kind(data) or _message_kind(data) or _bytes(data)


def _zip_kind(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return "a damaged zip archive"
    if "constants.pkl" in names and "data.pkl" in names:
        return "a TorchScript program"
    if "data.pkl" in names:
        return "a PyTorch checkpoint"
    return "a Keras model" if "model.weights.h5" in names else "a zip archive"


def _text_kind(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not "".join(text.split()).isprintable():
        return None
    return "a prototxt" if "layer" in text and "{" in text else "a text file"


def _message_kind(data: bytes) -> str | None:
    """Which protocol buffer message it is; their fields have the numbers of caffe.proto and
    onnx.proto."""
    fields = list(itertools.islice(_fields(data), _LOOKED_AT))
    kinds = set(fields)
    if not fields or fields[-1] is None:
        return None
    if {(1, 0), (3, 2)} <= kinds <= {(1, 0), (2, 2), (3, 2), (4, 0)}:
        return "a Caffe solver state, which holds no network; its .caffemodel has the weights"
    if kinds & {(5, 2), (8, 2)} and kinds <= {*((n, 0) for n in (1, 2, 3, 4)), (5, 2), (7, 2)}:
        return "a Caffe blob, as mean.binaryproto is"
    if {(1, 0), (7, 2), (8, 2)} <= kinds:
        return "an ONNX model"
    return "a caffemodel" if kinds & {(2, 2), (100, 2)} else None


def _fields(data: bytes) -> Iterator[tuple[int, int] | None]:
    """Number and wire type of each field of a message; None, at the end, where it is no message."""
    at, sizes = 0, {1: 8, 5: 4}
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            at += length
        elif kind in sizes:
            at += sizes[kind]
        if kind not in (0, 1, 2, 5) or number == 0 or at > len(data):
            yield None
            return
        yield number, kind


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    return 0, len(data) + 1


def _bytes(data: bytes) -> str:
    return f"{len(data):,} bytes that start with {data[:8].hex(' ')}"
