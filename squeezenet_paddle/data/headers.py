"""What stands in a JPEG or PNG file before its pixels: the size, XMP packets, the animation.

The chunks and segments are walked as libpng and libjpeg walk them, but nothing is allocated for
what they claim.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

JPEG = b"\xff\xd8"
PNG = b"\x89PNG\r\n\x1a\n"

_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"  # XMP specification, part 3, 1.1.3
_XMP_IN_PNG = b"XML:com.adobe.xmp\0"
_MAX_XMP = 1 << 20  # bytes of a compressed packet that are looked at
_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])")
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        width, height: in pixels, as stored.
        xmp_orientation: 1 to 8, as in EXIF; None where there is no XMP packet that has it.
    """

    width: int
    height: int
    xmp_orientation: int | None = None


def xmp_orientation(packet: bytes) -> int | None:
    """The orientation in an XMP packet, 1 to 8; None if it has none."""
    match = _ORIENTATION.search(packet)
    return None if match is None else int(match[1])


def read_jpeg_header(data: bytes) -> Header | None:
    """Finds the frame header (ITU-T T.81, B.2.2) by walking the marker segments.

    Returns:
        What it says; None if there is none.
    """
    at, orientation = 2, None
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 9:  # stray bytes are passed over
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Header(width, height, orientation)
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD7:  # without a segment
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == 0xE1 and data.startswith(_XMP_IN_JPEG, at + 4):
                orientation = xmp_orientation(data[at + 4 : end]) or orientation
            at = end
    return None


def read_png_header(data: bytes) -> Header | None:
    """Reads IHDR and the XMP packet.

    Returns:
        What they say; None if IHDR is not first, or if a chunk claims more than the file holds,
        for which OpenCV would take memory.
    """
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    orientation = None
    for kind, start, end in _chunks(data):
        if end > len(data):
            return None
        if kind == b"iTXt" and data.startswith(_XMP_IN_PNG, start + 8):
            orientation = xmp_orientation(_text(data[start + 8 : end - 4])) or orientation
    width, height = struct.unpack(">II", data[16:24])
    return Header(width, height, orientation)


def without_animation(png: bytes) -> bytes:
    """The PNG file without the chunks of an animation, in which OpenCV 4.14 may crash.

    What is left is the image that programs without animation show.
    """
    if not any(kind in png for kind in _ANIMATION):
        return png
    parts = [png[start:end] for kind, start, end in _chunks(png) if kind not in _ANIMATION]
    return b"".join([PNG, *parts])


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk, IEND being the last: length, type, data, checksum."""
    at, kind = len(PNG), b""
    while kind != b"IEND":
        kind, start = png[at + 4 : at + 8], at
        at += 12 + int.from_bytes(png[at : at + 4], "big")
        yield kind, start, at
        if at > len(png):
            return


def _text(itxt: bytes) -> bytes:
    """The text of an iTXt chunk (PNG specification, 11.3.3.4); b"" if it is damaged."""
    _, _, rest = itxt.partition(b"\0")
    flags, rest = rest[:2], rest[2:]
    text = rest.split(b"\0", 2)[-1]  # behind language and translated keyword
    if flags[:1] != b"\1":
        return text
    try:
        return zlib.decompressobj().decompress(text, _MAX_XMP)
    except zlib.error:
        return b""
