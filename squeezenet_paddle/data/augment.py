"""Augmentations for training, on uint8 [H, W, 3] in BGR. No Paddle here.

All random choices for a sample come from one generator, seeded with (seed, epoch, index) alone, so
that a batch is the same whichever process makes it, and after a resume. Only `Generator.random` is
used, 53 random bits at a time, whose stream numpy does not change between versions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from ..errors import InputError
from ..settings import MUST_MATCH, Checked, setting
from .preprocess import INTERPOLATIONS, Preprocess

BORDERS = {
    "reflect": cv2.BORDER_REFLECT_101,
    "replicate": cv2.BORDER_REPLICATE,
    "constant": cv2.BORDER_CONSTANT,  # the mean colour, which becomes 0
}
CROP_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop
_setting = partial(setting, on_resume=MUST_MATCH)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of all random choices for one sample in one epoch."""
    return np.random.default_rng([seed, epoch, index])


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A random number in [low, high)."""
    return low + (high - low) * rng.random()


def below(rng: np.random.Generator, count: int) -> int:
    """A random whole number in 0..count-1."""
    return int(rng.random() * count)


def random_crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random `size` x `size` window of `image`; a view, not a copy."""
    top = below(rng, image.shape[0] - size + 1)
    left = below(rng, image.shape[1] - size + 1)
    return image[top : top + size, left : left + size]


def random_resized_crop(
    image: np.ndarray,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    interpolation: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """A window of random area and aspect ratio, resized to `size` x `size` (Szegedy et al., 2014).

    Args:
        image: the whole image.
        size: of the result, in pixels.
        scale: limits of the window's share of the image's area.
        ratio: limits of its width over its height, whose logarithm is uniform.
        interpolation: OpenCV's constant.
        rng: the sample's generator.
    """
    height, width = image.shape[:2]
    for _ in range(CROP_ATTEMPTS):
        area = height * width * uniform(rng, *scale)
        proportion = math.exp(uniform(rng, math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * proportion)), round(math.sqrt(area / proportion))
        if 0 < w <= width and 0 < h <= height:
            top, left = below(rng, height - h + 1), below(rng, width - w + 1)
            break
    else:  # the middle, cut to the nearest allowed proportion
        w = max(1, min(width, round(height * ratio[1])))
        h = max(1, min(height, round(width / ratio[0])))
        top, left = (height - h) // 2, (width - w) // 2
    window = image[top : top + h, left : left + w]
    return cv2.resize(window, (size, size), interpolation=interpolation)


def rotate(
    image: np.ndarray, degrees: float, border: str, fill: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    """Rotates an image counter-clockwise about its center; the size stays.

    Args:
        image: the image.
        degrees: the angle.
        border: what fills the corners: "reflect", "replicate" or "constant".
        fill: B, G, R for "constant".
    """
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=BORDERS[border],
        borderValue=fill,
    )


def adjust_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies the pixels by `factor`; rounded and clipped to 0..255."""
    return cv2.LUT(image, _table(factor, 0.0))


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies each pixel's distance from the image's mean grey; rounded, clipped to 0..255."""
    grey = cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0]
    return cv2.LUT(image, _table(factor, grey * (1 - factor)))


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Multiplies each pixel's distance from its own grey; rounded and clipped to 0..255."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def _table(factor: float, offset: float) -> np.ndarray:
    return np.clip(np.rint(np.arange(256) * factor + offset), 0, 255).astype("uint8")


@dataclass(frozen=True)
class Augment(Checked):
    """Which changes training makes.

    Attributes:
        flip: probability of a mirror image.
        rotation: largest angle in degrees, either way; 0 for none.
        border: what a rotation brings in: "reflect", "replicate" or "constant" (the mean).
        brightness, contrast, saturation: strengths; a factor is drawn from 1 - s to 1 + s, not
            below 0, and the three are applied in a random order; 0 for none.
        resized_crop: a window of random area and proportions instead of a random crop.
        crop_scale: limits of that window's share of the image.
        crop_ratio: limits of its width over its height.
    """

    flip: float = _setting(0.5, "probability of a mirror image", at_least=0, at_most=1)
    rotation: float = _setting(0.0, "largest angle in degrees", at_least=0, at_most=180)
    border: str = _setting("reflect", "what a rotation brings in", choices=tuple(BORDERS))
    brightness: float = _setting(0.0, "factors of 1 - x to 1 + x", at_least=0)
    contrast: float = _setting(0.0, "factors of 1 - x to 1 + x", at_least=0)
    saturation: float = _setting(0.0, "factors of 1 - x to 1 + x", at_least=0)
    resized_crop: bool = _setting(
        False, "a window of random area and proportions instead of a random crop"
    )
    crop_scale: tuple[float, float] = _setting(
        (0.08, 1.0), "limits of that window's share of the image", kind=float, count=2
    )
    crop_ratio: tuple[float, float] = _setting(
        (3 / 4, 4 / 3), "limits of its width over its height", kind=float, count=2
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise InputError(
                f"`crop_scale`: two shares, 0 < a <= b <= 1, were expected, found {low}, {high}."
            )
        low, high = self.crop_ratio
        if not 0 < low <= high < math.inf:
            raise InputError(
                f"`crop_ratio`: two numbers, 0 < a <= b, were expected, found {low}, {high}."
            )
        for name, user, used in (
            ("border", "rotation", self.rotation > 0),
            ("crop_scale", "resized_crop", self.resized_crop),
            ("crop_ratio", "resized_crop", self.resized_crop),
        ):
            if not used and getattr(self, name) != getattr(Augment, name):
                raise InputError(f"`{name}` is for `{user}`, which was expected with it.")


@dataclass(frozen=True)
class TrainTransform:
    """Makes the network's input for training: augmentation, then normalisation.

    Attributes:
        preprocess: resize, crop size, mean and layout, as evaluation uses them.
        augment: the random changes.
        seed: of the run.
    """

    preprocess: Preprocess
    augment: Augment
    seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the sample made from one image."""
        return self.preprocess.input_shape

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        """Augments a decoded image, normalises it and writes it to `out`."""
        rng = sample_generator(self.seed, epoch, index)
        self.preprocess.normalise(self.augmented(image, rng), out)

    def augmented(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The augmented crop before normalisation, uint8 [crop_size, crop_size, 3]."""
        augment, preprocess = self.augment, self.preprocess
        size = preprocess.crop_size
        if augment.resized_crop:
            image = random_resized_crop(
                image,
                size,
                augment.crop_scale,
                augment.crop_ratio,
                INTERPOLATIONS[preprocess.interpolation],
                rng,
            )
            image = self._rotated(image, rng)
        else:
            image = random_crop(self._rotated(preprocess.resized(image), rng), size, rng)
        if rng.random() < augment.flip:
            image = image[:, ::-1]
        return self._jittered(image, rng)

    def _rotated(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not self.augment.rotation:
            return image
        degrees = uniform(rng, -self.augment.rotation, self.augment.rotation)
        mean = self.preprocess.mean[:: 1 if self.preprocess.channel_order == "BGR" else -1]
        fill = tuple(m / self.preprocess.scale for m in mean)
        return rotate(image, degrees, self.augment.border, fill)

    def _jittered(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        steps = [
            (strength, adjust)
            for strength, adjust in (
                (self.augment.brightness, adjust_brightness),
                (self.augment.contrast, adjust_contrast),
                (self.augment.saturation, adjust_saturation),
            )
            if strength
        ]
        while steps:
            strength, adjust = steps.pop(below(rng, len(steps)))
            factor = uniform(rng, max(0.0, 1 - strength), 1 + strength)
            image = adjust(np.ascontiguousarray(image), factor)
        return image
