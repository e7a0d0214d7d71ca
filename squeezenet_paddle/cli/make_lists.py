"""Make list files of folders of images, one folder for each class, with a stratified split.

    squeezenet make-lists --images data/sample/train --output_dir data/sample_lists

writes train_list.txt (about 80 % of the images), val_list.txt and synset_words.txt (the class
names, sorted, in the order of the class ids) and prints how many images of each class went where:

    class                train      val    total
    cross_noise             54       10       64
    ...
    triangle_gradient       54       10       64
    total                  520      120      640
    share               81.2 %   18.8 %  100.0 %

The part of an image is a function of its content and the seed: a new name, another class, and
images that come or go do not change it, and images of the same content are in the same part.

The lists' paths start from the folder of the classes: train with
--train_list data/sample_lists/train_list.txt --data_dir data/sample/train. --class_name_pattern
takes the name of the class out of a longer name of a folder:

    squeezenet make-lists --images data/256_ObjectCategories \\
        --class_name_pattern '^\\d+\\.(.+)$' --output_dir data/caltech256 \\
        --val_share 0.1 --test_share 0.2

makes class ak47 of folder 001.ak47. Folders train/, val/ and test/ below --images, each with the
class folders, are taken as the split; a part that they lack is drawn from the training images. What
is not taken is listed in left_out.csv, with its kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..data.image_files import describe_left_out, write_left_out
from ..datasets.folders import read_tree, split_tree, table, write_lists
from ..run_dir import LEFT_OUT
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--images",))
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder that holds the class folders; images may lie deeper in them (required)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder for the lists; those of an earlier run are replaced (required)",
    )
    parser.add_argument(
        "--val_share",
        type=float,
        metavar="SHARE",
        help="share of the images for validation; 0: no such list (default: 0.2, or what the "
        "folders have)",
    )
    parser.add_argument(
        "--test_share",
        type=float,
        metavar="SHARE",
        help="share of the images for the final test; 0: no such list (default: 0, or what the "
        "folders have)",
    )
    shared_flags.add_old_flag(parser, "--val", "val_share", float)
    shared_flags.add_old_flag(parser, "--test", "test_share", float)
    parser.add_argument(
        "--seed", type=shared_flags.seed, default=0, help="of the split (default: 0)"
    )
    parser.add_argument(
        "--class_name_pattern",
        metavar="REGEX",
        help="a regular expression searched for in each folder's name; its first group, or the "
        "whole match, is the class name (default: the folder's name)",
    )
    shared_flags.add_class_level(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    tree = read_tree(args.images, args.class_name_pattern, args.class_level)
    parts = split_tree(tree, args.images, args.val_share, args.test_share, args.seed)
    write_lists(tree, parts, args.output_dir)
    for note in tree.notes:
        common.note(note)
    file = args.output_dir / LEFT_OUT
    write_left_out(file, tree.left_out)
    if tree.left_out:
        common.note(f"{describe_left_out(tree.left_out)}; see {file}")
    print(table(tree, parts))
