"""Draws a small data set, to try training and evaluation on without a download.

A class is a shape filled with a texture. Each of the five shapes comes in two textures and each
texture in two shapes, so that a classifier that sees only the shape or only the texture gets at
most half of the images right. Colours, place, size, angle, background and brightness are random.

An image depends on (seed, split, class, number of the image) alone. So a larger set begins with the
images of a smaller one, and the same numpy and OpenCV versions give the same bytes.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np

from ..files import atomic_directory
from ..progress import Progress

SHAPES = ("disc", "square", "triangle", "ring", "cross")
TEXTURES = ("stripes", "checks", "dots", "gradient", "noise")
# Shape i comes in the textures i and i + 1.
CLASSES = tuple((SHAPES[i], TEXTURES[(i + k) % 5]) for i in range(5) for k in range(2))
NAMES = tuple(f"{shape}_{texture}" for shape, texture in CLASSES)

MARKER = "sample_data.json"  # what the set was made with
ENTRIES = (MARKER, "synset_words.txt", "train", "train_list.txt", "val", "val_list.txt")
MIN_SIDE, MAX_SIDE = 64, 200  # pixels
MAX_ASPECT = 1.3
FINER = 3  # shapes are drawn at three times the size and averaged


def make_sample_data(output_dir: str | Path, seed: int = 0, train: int = 64, val: int = 16) -> None:
    """Writes the images, their lists and the names of the classes; the whole set or nothing.

    `output_dir` gets `train/CLASS/000.jpg` and `val/CLASS/000.jpg`, `train_list.txt` and
    `val_list.txt`, `synset_words.txt`, and `sample_data.json` with the arguments.

    Args:
        output_dir: a new or empty folder, or one that this function made, which is replaced.
        seed: at least 0; another seed gives other images.
        train: training images of each class.
        val: validation images of each class.

    Raises:
        InputError: `output_dir` is a file, or a folder of something else.
    """
    output_dir = Path(output_dir)
    with atomic_directory(output_dir, ENTRIES) as directory:
        with Progress("drawing", (train + val) * len(CLASSES)) as progress:
            for split, (name, count) in enumerate((("train", train), ("val", val))):
                lines = []
                for label, class_name in enumerate(NAMES):
                    (directory / name / class_name).mkdir(parents=True)
                    for index in range(count):
                        rng = np.random.default_rng((seed, split, label, index))
                        path = f"{name}/{class_name}/{index:03d}.jpg"
                        (directory / path).write_bytes(_jpeg(draw(*CLASSES[label], rng), rng))
                        lines.append(f"{path} {label}\n")
                        progress.update()
                (directory / f"{name}_list.txt").write_text("".join(lines), "utf-8")
        (directory / "synset_words.txt").write_text("".join(f"{n}\n" for n in NAMES), "utf-8")
        made_with = {"seed": seed, "train": train, "val": val, "opencv": cv2.__version__}
        (directory / MARKER).write_text(json.dumps(made_with, indent=2) + "\n", "utf-8")


def draw(shape: str, texture: str, rng: np.random.Generator) -> np.ndarray:
    """Draws one image.

    Args:
        shape: one of SHAPES.
        texture: one of TEXTURES.
        rng: the source of everything else.

    Returns:
        uint8 [height, width, 3], BGR.
    """
    width, height = _size(rng)
    first, second, background = _colours(rng)
    image = _background(width, height, background, rng)

    # x and y are 0 at the middle of the shape and reach 1 at the circle that holds it.
    radius = rng.uniform(0.42, 0.49) * min(width, height)
    middle_x = rng.uniform(radius, width - radius)
    middle_y = rng.uniform(radius, height - radius)
    x = ((np.arange(width * FINER, dtype="float32") + 0.5) / FINER - middle_x) / radius
    y = ((np.arange(height * FINER, dtype="float32") + 0.5) / FINER - middle_y) / radius

    inside = _inside(shape, *_rotate(x, y[:, None], rng)).astype("float32")
    share = _share(texture, *_rotate(x, y[:, None], rng), rng) * inside
    inside, share = (  # how much of a pixel the shape covers, and its first colour
        cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)[..., None]
        for fine in (inside, share)
    )
    image = image * (1 - inside) + share * first + (inside - share) * second
    return np.clip(image * rng.uniform(0.75, 1.15), 0, 255).round().astype("uint8")


def _jpeg(image: np.ndarray, rng: np.random.Generator) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(80, 96))]
    return cv2.imencode(".jpg", image, quality)[1].tobytes()


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height, either of which may be the longer."""
    long = int(rng.integers(96, MAX_SIDE + 1))
    short = max(MIN_SIDE, round(long / rng.uniform(1, MAX_ASPECT)))
    return (long, short) if rng.random() < 0.5 else (short, long)


def _colours(rng: np.random.Generator) -> np.ndarray:
    """Two colours for the texture and one for the background, far enough apart to be seen.

    Returns:
        float32 [3, 3], a colour a row, 0..255.
    """
    while True:
        first, second, background = colours = rng.uniform(0, 255, (3, 3)).astype("float32")
        across = second - first
        # The background keeps away from all colours between the two, as a gradient has them.
        nearest = np.clip(np.dot(background - first, across) / np.dot(across, across), 0, 1)
        distance = np.linalg.norm(background - first - nearest * across)
        if np.linalg.norm(across) > 180 and distance > 100:
            return colours


def _background(
    width: int, height: int, colour: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A soft gradient with a few small strokes and spots: uint8 [height, width, 3]."""
    corners = np.clip(colour + rng.uniform(-30, 30, (2, 2, 3)), 0, 255).astype("float32")
    image = cv2.resize(corners, (width, height)).round().astype("uint8")
    side = min(width, height)
    for _ in range(rng.integers(2, 7)):
        clutter = (colour + rng.uniform(-70, 70, 3)).tolist()
        start = rng.uniform(0, (width, height))
        if rng.random() < 0.5:
            end = start + rng.uniform(-0.25, 0.25, 2) * side
            points = start.astype(int).tolist(), end.astype(int).tolist()
            cv2.line(image, *points, clutter, max(1, side // 40), cv2.LINE_AA)
        else:
            radius = int(side * rng.uniform(0.03, 0.06))
            cv2.circle(image, start.astype(int).tolist(), radius, clutter, -1, cv2.LINE_AA)
    return image


def _rotate(
    x: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates, rotated by a random angle."""
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the shape is: bool of the shape of `x`. All of them fit in the unit circle."""
    if shape == "disc":
        return x * x + y * y < 0.9**2
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.707
    if shape == "triangle":
        return (y < 0.5) & (math.sqrt(3) * abs(x) - y < 1)
    if shape == "ring":
        distance = x * x + y * y
        return (distance > 0.45**2) & (distance < 1)
    narrow, wide = np.minimum(abs(x), abs(y)), np.maximum(abs(x), abs(y))
    return (narrow < 0.27) & (wide < 0.95)  # cross


def _share(texture: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much of the first colour there is: float32 of the shape of `x`, 0..1."""
    if texture == "gradient":
        return np.clip((x + 0.8) / 1.6, 0, 1)
    # About four periods across the shape: they survive a resize of the image to 64 pixels.
    period = rng.uniform(0.5, 0.6)
    x, y = x / period + rng.uniform(8, 9), y / period + rng.uniform(8, 9)  # positive
    if texture == "noise":
        grains = rng.random((72, 72), "float32")
        return grains[(4 * y).astype("int32"), (4 * x).astype("int32")]
    if texture == "dots":
        x, y = 1.25 * x, 1.25 * y  # five where stripes are four
        x, y = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
        return (x * x + y * y < 0.33**2).astype("float32")
    halves = (2 * x).astype("int32")
    if texture == "checks":
        halves += (2 * y).astype("int32")
    return (halves % 2).astype("float32")  # checks or stripes
