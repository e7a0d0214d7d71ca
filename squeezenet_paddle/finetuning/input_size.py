"""The size of the network's input for small images, where the settings give none."""

from __future__ import annotations

import dataclasses

from ..checking.inputs import suited
from ..data.lists import read_list
from ..model_dir import read_info
from ..progress import say
from .config import FinetuneConfig
from .lists import Lists


def with_suited_input(config: FinetuneConfig, lists: Lists) -> FinetuneConfig:
    """The same fine-tuning with a smaller input, if the training images are small.

    The second stage keeps the input of the first, as its network has learned to see with it.

    Args:
        config: of the fine-tuning.
        lists: its lists, written already.

    Raises:
        InputError: the training list cannot be read.
    """
    given = config.input
    if given.crop_size is not None or given.resize_size is not None:
        return config
    usual = read_info(config.network.pretrained).preprocess
    images = read_list(lists.train_list, lists.root, None, lists.class_names)
    preprocess = suited(usual, images)
    if preprocess == usual:
        return config
    size = preprocess.crop_size
    say(
        f"the images are small: the network's input has {size} x {size} pixels in place of "
        f"{usual.crop_size} x {usual.crop_size}, which is faster and usually more exact "
        "(`crop_size` sets it)"
    )
    sizes = dataclasses.replace(given, resize_size=preprocess.resize_size, crop_size=size)
    return dataclasses.replace(config, input=sizes)
