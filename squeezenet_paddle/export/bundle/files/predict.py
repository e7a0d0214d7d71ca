#!/usr/bin/env python3
"""Classify images with the model that lies beside this file.

    python predict.py cat.jpg holiday/
    python predict.py --top 3 --csv cat.jpg > result.csv
    python predict.py --model model_int8.onnx --json cat.jpg
    python predict.py --check

It prints each image with its most likely classes: probability, class id and name. Where the model
can tell that an image is none of its classes, "none of these" comes first. --check compares the
answers for the images of golden/ with those that were noted when this folder was made.

This file needs numpy, onnxruntime, and OpenCV or Pillow: pip install numpy onnxruntime pillow.
With OpenCV alone it reads JPEG and PNG files, with Pillow all usual ones. From Python:

    from predict import Model

    model = Model()
    for class_id, name, probability in model("cat.jpg"):
        print(f"{probability:.1%}  {name}")

Exit code 1: an image could not be read, or the check failed; 2: a wrong argument or installation.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import math
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NONE = "none of these"
MAX_PIXELS = 100_000_000  # of an image
LONGEST_SIDE = 64  # times the shorter; the middle of a longer image is taken
LARGEST_ERROR = {"model.onnx": 1e-3, "model_int8.onnx": 0.05}  # a share of the largest logit
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")  # Pillow's names


def shown(text):
    """Text for a terminal, which control characters in a name might command."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def fail(message):
    print(f"predict.py: {shown(message)}.", file=sys.stderr)
    sys.exit(2)


os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
INSTALL = "pip install numpy onnxruntime pillow"
try:
    import numpy as np
    import onnxruntime
except ImportError as error:
    fail(f"{error}; {INSTALL}")
try:
    import cv2
except ImportError:
    cv2 = None
try:
    from PIL import Image, ImageOps
except ImportError:
    Image = None
    if cv2 is None:
        fail(f"neither Pillow nor OpenCV is installed; {INSTALL}")


class ImageError(ValueError):
    """An image that is not read, though a decoder might."""


class Model:
    """An ONNX file that says in its metadata what it takes and what its classes are.

    Args:
        file: the file.
    """

    def __init__(self, file=HERE / "model.onnx"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        metadata = self.session.get_modelmeta().custom_metadata_map
        description = {key: json.loads(value) for key, value in metadata.items()}
        self.preprocess = description["preprocess"]
        self.names = description["classes"]  # None where they are unknown
        calibration = description.get("calibration", {})
        self.temperature = calibration.get("temperature", 1.0)
        self.threshold = calibration.get("threshold")
        self.mean = np.array(self.preprocess["mean"], "float32")
        if "mean_image" in description:
            self.mean = np.load(io.BytesIO(base64.b64decode(description["mean_image"])))

    def __call__(self, image, top=5):
        """The most likely classes of an image, as (class id, name, probability), largest first.

        Args:
            image: a path, or pixels as uint8 [H, W, 3] in the order B, G, R.
            top: how many.

        Returns:
            That many; before them (None, "none of these", nan) if the image is none of the classes.
        """
        return self.answer(*self.outputs(image), top)

    def outputs(self, image):
        """The logits of an image, float32 [classes], and its familiarity, None where there is none.

        The familiarity says how like the training images it is; below the threshold it is none of
        the classes.
        """
        pixels = image if isinstance(image, np.ndarray) else read(Path(image))
        logits, *rest = self.session.run(None, {"data": self.prepare(pixels)[None]})
        return logits[0], float(rest[0][0, 0]) if rest else None

    def prepare(self, image):
        """The input of the network, float32, of uint8 [H, W, 3] in the order B, G, R."""
        how = self.preprocess
        width = height = size = how["resize_size"]
        if how["resize"] == "short_side":
            longest = min(image.shape[:2]) * LONGEST_SIDE
            image = middle(image, longest, longest)
            short, long = sorted(image.shape[:2])
            longer = int(size * long / short)
            width, height = (size, longer) if image.shape[0] > image.shape[1] else (longer, size)
        image = resize(image, width, height, how["interpolation"])
        crop = middle(image, how["crop_size"], how["crop_size"])
        if how["channel_order"] == "RGB":
            crop = crop[:, :, ::-1]
        x = crop.astype("float32") * np.float32(how["scale"]) - self.mean
        x /= np.array(how["std"], "float32")
        return np.ascontiguousarray(x.transpose(2, 0, 1) if how["data_format"] == "NCHW" else x)

    def answer(self, logits, familiarity, top):
        """What `__call__` returns, of what `outputs` returns."""
        scaled = (logits / np.float32(self.temperature)).astype("float64")
        shares = np.exp(scaled - scaled.max())
        shares /= shares.sum()
        first = np.argsort(-logits, kind="stable")[:top].tolist()
        classes = [(i, self.names[i] if self.names else None, float(shares[i])) for i in first]
        if familiarity is not None and familiarity < self.threshold:
            return [(None, NONE, math.nan), *classes]
        return classes


def middle(image, height, width):
    """The middle of an image, of at most this size."""
    top, left = max(0, (image.shape[0] - height) // 2), max(0, (image.shape[1] - width) // 2)
    return image[top : top + height, left : left + width]


def read(path):
    """Decodes an image file as a viewer shows it: uint8 [H, W, 3] in the order B, G, R.

    The orientation is applied, transparency dropped; grey, palettes and CMYK become colour,
    16 bits become 8, and of an animation the first frame is taken.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    # OpenCV does not apply an orientation in XMP.
    is_turned = re.search(rb'tiff:Orientation(="|>)[2-8]', data)
    if cv2 is not None and data.startswith((b"\xff\xd8", b"\x89PNG")) and not is_turned:
        decode = decode_with_opencv
    elif Image is not None:
        decode = decode_with_pillow
    else:
        what = "turned by XMP" if is_turned else "neither JPEG nor PNG"
        raise ValueError(f"{path}: {what}; such images are read after {INSTALL}")
    try:
        return decode(data)
    except ImageError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception:  # the decoders raise many
        raise ValueError(f"{path}: not an image, or damaged") from None


def decode_with_opencv(data):
    image = cv2.imdecode(np.frombuffer(data, "uint8"), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError(f"damaged, or of more than {MAX_PIXELS:,} pixels")
    return image


def decode_with_pillow(data):
    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # in place of its warning
    with Image.open(io.BytesIO(data), formats=[f for f in FORMATS if f in Image.OPEN]) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ImageError(f"{file.width} x {file.height} pixels, over {MAX_PIXELS:,}")
        image = ImageOps.exif_transpose(file)
        if image.mode == "CMYK":  # as OpenCV converts it, without a profile
            ink = 255 - np.asarray(image).astype("int32")
            black = ink[:, :, 3:]
            rgb = (black - ((255 - ink[:, :, :3]) * black >> 8)).astype("uint8")
        elif image.mode.startswith("I;16") or (file.format, image.mode) == ("PNG", "I"):
            rgb = np.repeat((np.asarray(image) >> 8).astype("uint8")[:, :, None], 3, axis=2)
        elif image.mode in ("I", "F"):
            raise ImageError("32 bits have no range to scale from")
        else:
            rgb = np.asarray(image.convert("RGB"))
        return np.ascontiguousarray(rgb[:, :, ::-1])


def resize(image, width, height, interpolation):
    """Resizes as OpenCV does; without it, in numpy with OpenCV's arithmetic.

    Compared with OpenCV on a PC, "linear" and "area" are the same to the bit. For "cubic" some two
    of 200,000 values differ, by 1; of images less than 4 pixels wide or high, one in twenty.
    """
    if cv2 is not None:
        kind = getattr(cv2, f"INTER_{interpolation.upper()}")
        return cv2.resize(image, (width, height), interpolation=kind)
    h, w = image.shape[:2]
    means = interpolation == "area" and width <= w and height <= h
    kind = "means" if means else interpolation
    ys, y_weights = taps(h, height, kind)
    xs, x_weights = taps(w, width, kind)
    if kind in ("linear", "area"):  # integers, in steps of 1 / 2048
        x_weights[(xs[:, 0] < 0) | (xs[:, 1] >= w)] = 1, 0
        x_weights, y_weights = (
            np.rint(weights.astype("float32") * 2048).astype("int32")
            for weights in (x_weights, y_weights)
        )
        line = weighted_sum(image.astype("int32"), xs, x_weights, 1) >> 4
        total = weighted_sum(line, ys, y_weights, 0, 16)
        return ((total + 2) >> 2).astype("uint8")
    line = weighted_sum(image.astype("float32"), xs, x_weights.astype("float32"), 1)
    total = weighted_sum(line, ys, y_weights.astype("float32"), 0)
    if means and (w, h) == (2 * width, 2 * height):
        total = np.floor(total + 0.5)  # where a half is rounded up
    return np.clip(np.rint(total), 0, 255).astype("uint8")


def taps(size, out, kind):
    """Which pixels of a line of `size` make each of `out` pixels, and their weights, [out, n]."""
    scale, i = size / out, np.arange(out)
    if kind == "means":
        indices = np.floor(i * scale).astype("int64")[:, None] + np.arange(math.ceil(scale) + 1)
        end, start = ((i + 1) * scale)[:, None], (i * scale)[:, None]
        weights = np.minimum(indices + 1, end) - np.maximum(indices, start)
        return indices, np.where(weights < 1e-3, 0, weights) / scale
    at = (i + 0.5) * scale - 0.5
    if kind == "cubic":
        first = np.floor(at).astype("int64")
        x = (at - first)[:, None] + (1, 0, -1, -2)  # how far each pixel lies away
        x, a = np.abs(x), -0.75
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return first[:, None] + np.arange(-1, 3), np.where(x <= 1, near, far)
    at = at.astype("float32")
    first = np.floor(at).astype("int64")
    x = (at - first).astype("float64")
    if kind == "area":
        first = np.floor(i * scale).astype("int64")
        x = i + 1 - (first + 1) / scale
        x = np.where(x <= 0, 0, x - np.floor(x))
    return first[:, None] + np.arange(2), np.stack([1 - x, x], axis=1)


def weighted_sum(image, indices, weights, axis, shift=0):
    """Sums pixels along an axis; those beyond the border are the one at the border."""
    indices = indices.clip(0, image.shape[axis] - 1)
    total = 0
    for index, weight in zip(indices.T, weights.T):
        weight = weight[:, None] if axis else weight[:, None, None]
        part = image.take(index, axis) * weight
        total = total + (part >> shift if shift else part)
    return total


def load(file):
    """Opens a model, or ends the program with a line that says why it cannot."""
    if not file.is_file():
        fail(f"{file}: there is no such file")
    try:
        model = Model(file)
    except Exception:  # ONNX Runtime raises many
        fail(f"{file}: no ONNX file that says in its metadata what it takes; see README.md")
    [data] = model.session.get_inputs()
    if data.type != "tensor(float)" or (isinstance(data.shape[0], int) and data.shape[0] != 1):
        fail(
            f"{file}: takes {data.type} of {data.shape}; one image at a time was expected, float32"
        )
    return model


def check(file):
    """Whether a model gives the answers that were noted for the golden images; prints how far."""
    try:
        golden = json.loads((HERE / "golden" / "golden.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        fail(f"{HERE / 'golden' / 'golden.json'}: missing or damaged")
    model, limit = load(file), LARGEST_ERROR[file.name]
    worst, same = 0.0, 0
    for image in golden["images"]:
        logits, _ = model.outputs(HERE / "golden" / image["file"])
        expected = np.array(image["logits"][file.name], "float32")
        worst = max(worst, float(np.abs(logits - expected).max() / np.abs(expected).max()))
        same += int(logits.argmax() == expected.argmax())
    count = len(golden["images"])
    passed = worst <= limit and same == count
    print(
        f"{file.name}: {'passed' if passed else 'FAILED'}; on {count} images the logits differ by "
        f"at most {worst:.2g} of the largest one ({limit:g} is allowed), and the first class is "
        f"the same for {same}"
    )
    return passed


def find_files(names):
    """The files that were named, and those in folders, sorted."""
    for path in map(Path, names):
        try:
            path.stat()
        except OSError as error:
            fail(f"{path}: cannot be read ({error.strerror})")
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
            if not inside:
                fail(f"{path}: this folder is empty")
            yield from inside
        else:
            yield path


def as_text(results):
    for path, classes in results:
        yield f"{shown(path)}\n"
        for class_id, name, share in classes:
            number = "-" if class_id is None else class_id
            probability = "-" if class_id is None else f"{share:.4f}"
            yield f"  {probability:<6}  {number:>4}  {shown(name or '')}".rstrip() + "\n"


def as_csv(results):
    yield "image,rank,class_id,probability,name\n"
    for path, classes in results:
        for rank, (class_id, name, share) in enumerate(classes, 1):
            line = io.StringIO()
            probability = None if class_id is None else f"{share:.7f}"
            row = [path, rank, class_id, probability, name]
            csv.writer(line, lineterminator="\n").writerow(row)
            yield line.getvalue()


def as_json(results):
    start = "["
    for path, classes in results:
        items = [
            {"id": i, "probability": None if i is None else share, "name": name}
            for i, name, share in classes
        ]
        yield start + json.dumps({"image": str(path), "classes": items}) + "\n"
        start = ","
    yield "]\n" if start == "," else "[]\n"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="*", help="image files, or folders of them")
    parser.add_argument("--top", type=int, default=5, help="classes of each image (default: 5)")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--csv", action="store_true", help="print a table")
    forms.add_argument("--json", action="store_true", help="print an array of objects")
    parser.add_argument(
        "--model",
        type=Path,
        default=HERE / "model.onnx",
        help="the ONNX file (default: model.onnx)",
    )
    parser.add_argument("--check", action="store_true", help="check the models of this folder")
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # names may be no text in this locale
    if args.check:
        if sys.argv[1:] != ["--check"]:
            parser.error("--check: goes without images and other options")
        files = [HERE / name for name in LARGEST_ERROR if (HERE / name).is_file()]
        if not files:
            fail(f"{HERE}: has no {' and no '.join(LARGEST_ERROR)}")
        return int(not np.all([check(file) for file in files]))
    if not args.image:
        parser.error("name an image, or give --check")
    if args.top < 1:
        parser.error("--top: a whole number of at least 1 was expected")
    model = load(args.model)
    paths, unreadable = list(find_files(args.image)), []

    def results():
        for path in paths:
            try:
                classes = model(path, args.top)
            except ValueError as error:
                unreadable.append(path)
                print(f"predict.py: {shown(error)}.", file=sys.stderr)
            else:
                yield path, classes

    write = as_csv if args.csv else as_json if args.json else as_text
    for text in write(results()):
        sys.stdout.write(text)
        sys.stdout.flush()
    return 1 if unreadable else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:  # of the output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # whoever read it has enough
            fail(f"the output cannot be written ({error.strerror})")
        sys.exit(1)
