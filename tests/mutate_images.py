"""Damage image files at random and decode them: never a crash, a hang or a traceback.

    python tests/mutate_images.py --count 20000

The files are of every format that is read. Each damaged file has to be refused in one line or
decode to an image. It is decoded in a child process, whose time and memory the operating system
limits; a child that dies is a failure, and the next one goes on behind the file that killed it.
"""

from __future__ import annotations

import argparse
import io
import mmap
import os
import resource
import signal
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
from PIL import Image, features

from squeezenet_paddle.data.decode import MAX_PIXELS, decode
from squeezenet_paddle.errors import ImageError

SECONDS, MEMORY = 30, 1_500_000_000  # a decoder that takes more of either has failed
SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PNG_START = 8  # bytes before the first chunk

DECODED, REFUSED = "decoded", "refused"


def frames(mode: str) -> list[Image.Image]:
    """Three small images that compress to something of every kind."""
    made = []
    for i in range(3):
        rng = np.random.default_rng(i)
        pixels = cv2.resize(rng.integers(0, 256, (5, 7, 4), "uint8"), (40, 27))
        pixels[:9, :9] = rng.integers(0, 256, (9, 9, 4))
        made.append(
            Image.fromarray(pixels).convert("RGB").convert(mode)
            if mode != "RGBA"
            else Image.fromarray(pixels)
        )
    return made


def encoded(format: str, mode: str = "RGB", animated: bool = False, **options: object) -> bytes:
    file = io.BytesIO()
    first, *others = frames(mode)
    if animated:
        options = {**options, "save_all": True, "append_images": others}
    first.save(file, format, **options)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """A valid file of each kind by its name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.random.default_rng(0).integers(0, 65536, (27, 40, 4)).astype("uint16")
    found = {
        "jpeg": encoded("JPEG", exif=exif),
        "jpeg-progressive": encoded("JPEG", progressive=True, subsampling=0, xmp=XMP),
        "jpeg-cmyk": encoded("JPEG", "CMYK"),
        "jpeg-grey": encoded("JPEG", "L", restart_marker_blocks=1),
        "png": encoded("PNG", exif=exif),
        "png-alpha": encoded("PNG", "RGBA"),
        "png-palette": encoded("PNG", "P", transparency=0),
        "png-16": cv2.imencode(".png", deep)[1].tobytes(),
        "apng": encoded("PNG", "RGBA", True),
        "apng-blended": encoded("PNG", "RGBA", True, blend=1, disposal=2),
        "apng-hidden": encoded("PNG", "RGB", True, default_image=True),
        "apng-palette": encoded("PNG", "P", True),
        "gif": encoded("GIF", "P"),
        "gif-animated": encoded("GIF", "P", True, interlace=True, disposal=2),
        "webp": encoded("WEBP"),
        "webp-lossless": encoded("WEBP", "RGBA", lossless=True, exif=exif),
        "webp-animated": encoded("WEBP", "RGBA", True),
        "bmp": encoded("BMP"),
        "bmp-palette": encoded("BMP", "P"),
        "bmp-rle": rle_bmp(),
        "tiff": encoded("TIFF"),
        "tiff-lzw": encoded("TIFF", "RGBA", compression="tiff_lzw", exif=exif),
        "tiff-jpeg": encoded("TIFF", compression="jpeg"),
        "tiff-deflate-16": encoded("TIFF", "I;16", compression="tiff_adobe_deflate"),
        "tiff-packbits": encoded("TIFF", "CMYK", compression="packbits"),
        "tiff-fax": encoded("TIFF", "1", compression="group4"),
    }
    if "avif" in features.modules and features.check("avif"):
        found["avif"] = encoded("AVIF", exif=exif)
        found["avif-animated"] = encoded("AVIF", "RGBA", True)
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return found
    register_heif_opener()
    return {**found, "heic": encoded("HEIF"), "heic-two": encoded("HEIF", "RGBA", True)}


def rle_bmp() -> bytes:
    """A BMP file of 8-bit runs, which Pillow does not write."""
    rows = b"".join(bytes([20, y, 20, 255 - y, 0, 0]) for y in range(27)) + b"\0\1"
    palette = bytes(v for i in range(256) for v in (i, i, 255 - i, 0))
    at = 14 + 40 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, 40, 27, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", at + len(rows), 0, 0, at) + head + palette + rows


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Damages a file in one to three places; a PNG file's checksums are mostly right again."""
    damaged = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        # Headers stand at the start, and what follows them is mostly pixels.
        near = int(rng.choice([40, 120, 600, len(damaged)]))
        at = int(rng.integers(2, max(3, min(near, len(damaged)))))
        how = rng.integers(8)
        if how < 2:
            damaged[at : at + 1] = rng.bytes(1)
        elif how == 2:
            damaged[at : at + 1] = bytes(
                [damaged[min(at, len(damaged) - 1)] ^ 1 << rng.integers(8)]
            )
        elif how == 3:  # a number
            size = SIZES[rng.integers(len(SIZES))]
            code = str(rng.choice(["<I", ">I", "<H", ">H"]))
            number = struct.pack(code, size & (0xFFFF if code[1] == "H" else 0xFFFFFFFF))
            damaged[at : at + len(number)] = number
        elif how == 4:
            del damaged[at : at + int(rng.integers(1, 40))]
        elif how == 5:  # a piece of itself
            start = int(rng.integers(len(damaged)))
            damaged[at:at] = damaged[start : start + int(rng.integers(1, 60))]
        elif how == 6:
            damaged[at : at + 12] = rng.bytes(12)
        elif rng.integers(3) == 0:
            del damaged[at:]
    if data.startswith(b"\x89PNG"):
        if rng.integers(3) == 0:  # as a whole: dropped, doubled, or of another place
            damaged = bytearray(data[:PNG_START] + b"".join(shuffled(chunks(data), rng)))
        if rng.integers(8):
            damaged = bytearray(b"".join([data[:PNG_START], *map(checked, chunks(bytes(damaged)))]))
    return bytes(damaged)


def chunks(png: bytes) -> list[bytes]:
    found, at = [], PNG_START
    while at < len(png):
        size = 12 + int.from_bytes(png[at : at + 4], "big")
        found.append(png[at : at + size])
        at += size
    return found


def shuffled(pieces: list[bytes], rng: np.random.Generator) -> list[bytes]:
    i, j = rng.integers(0, len(pieces), 2)
    how = rng.integers(3)
    if how == 0:
        return pieces[:i] + pieces[i + 1 :]
    if how == 1:
        return [*pieces[:j], pieces[i], *pieces[j:]]
    pieces[i], pieces[j] = pieces[j], pieces[i]
    return pieces


def checked(chunk: bytes) -> bytes:
    """The chunk with the checksum of what is in it."""
    return chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4])) if len(chunk) >= 12 else chunk


def result_of(data: bytes, number: int) -> str:
    """Decodes a damaged file as the commands do.

    Raises:
        AssertionError: the message is not one line, or what comes out is no image.
        Exception: anything that the decoder lets through.
    """
    message = None
    try:
        image = decode(data, "x", reduced=(1, 1, 4, 8)[number % 4])
    except ImageError as error:
        message = str(error)
    if message is not None:
        assert message.isprintable(), f"not one printable line: {message!r}"
        return REFUSED
    assert image.dtype == np.uint8, image.dtype
    assert image.ndim == 3, image.shape
    assert image.shape[2] == 3, image.shape
    assert 0 < image.size <= 3 * MAX_PIXELS, image.shape
    return DECODED


def run(count: int, seed: int, only: str = "", keep: Path | None = None) -> dict[str, Counter[str]]:
    """Decodes `count` damaged files and counts by kind what became of them."""
    chosen = {name: data for name, data in files().items() if only in name}
    for name, data in chosen.items():
        assert result_of(data, 0) == DECODED, name
    names = list(chosen)
    results = mmap.mmap(-1, count)  # which outlives a child

    def damaged(number: int) -> bytes:
        name = names[number % len(names)]
        return mutate(chosen[name], np.random.default_rng((seed, number)))

    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    at = 0
    while at < count:
        status = in_child(lambda: decode_all(damaged, results, at, count))  # noqa: B023
        done = results[:].find(0)
        if done < 0:
            break
        name = names[done % len(names)]
        if os.WIFSIGNALED(status):
            how = signal.Signals(os.WTERMSIG(status)).name
        else:
            how = "defect"
        print(f"mutation {done} of seed {seed}, {name}: {how}", file=sys.stderr, flush=True)
        if keep is not None:
            (keep / f"{seed}-{done}-{name}").write_bytes(damaged(done))
        counts[name][how] += 1
        results[done] = 3
        at = done + 1
    for number, value in enumerate(results):
        if value != b"\x03":
            counts[names[number % len(names)]][{1: REFUSED, 2: DECODED}[value[0]]] += 1
    return counts


def in_child(work: Callable[[], None]) -> int:
    """Runs a function in a fork; returns its wait status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = 1
    try:
        work()
        code = 0
    except Exception:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def decode_all(damaged: Callable[[int], bytes], results: mmap.mmap, start: int, end: int) -> None:
    """The child: decodes the files and notes each result, until one of them ends it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(start, end):
        data = damaged(number)
        signal.alarm(SECONDS)
        results[number] = 1 if result_of(data, number) == REFUSED else 2
        signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="(default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--only", default="", help="part of the names of the files (default: all)")
    parser.add_argument("--keep", type=Path, help="folder for the files that fail (default: none)")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    counts = run(args.count, args.seed, args.only, args.keep)
    total: Counter[str] = Counter()
    for name, results in counts.items():
        total += results
        print(f"{name:18} " + "  ".join(f"{how} {n}" for how, n in sorted(results.items())))
    failed = sum(total.values()) - total[DECODED] - total[REFUSED]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{args.count} mutations: {total[REFUSED]} refused, {total[DECODED]} decoded, "
        f"{failed} failed; peak memory {peak:.0f} MB"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
