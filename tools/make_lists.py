"""Turn a folder for each class into list files, by a stratified split.

    python tools/make_lists.py --images data/sample/train --output_dir data/sample_lists --val 0.2

writes train_list.txt, val_list.txt and synset_words.txt (the class names in the order of the class
ids, sorted) and prints how many pictures of each class went where:

    class                train      val    total
    cross_noise             51       13       64
    ...
    triangle_gradient       51       13       64
    total                  512      128      640

The lists' paths start from the folder of the classes: train with
--train_list data/sample_lists/train_list.txt --data_dir data/sample/train. The same seed gives the
same lists. Names of folders that carry more than the class are cut to it:

    python tools/make_lists.py --images data/256_ObjectCategories \\
        --class_name_pattern '^\\d+\\.(.+)$' --output_dir data/caltech256 --val 0.1 --test 0.2

makes class ak47 of folder 001.ak47.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from squeezenet_paddle import cli
from squeezenet_paddle.listing import read_tree, table, write_lists
from squeezenet_paddle.splitting import split


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder of the class folders; pictures may lie deeper in them (required)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="where the lists go; those of an earlier run are replaced (required)",
    )
    parser.add_argument(
        "--val",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the pictures for validation; 0: no such list (default: 0.2)",
    )
    parser.add_argument(
        "--test",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the pictures for the final test; 0: no such list (default: 0)",
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the split (default: 0)")
    parser.add_argument(
        "--class_name_pattern",
        metavar="REGEX",
        help="searched for in a folder's name; its first group, or the whole match, is the name "
        "of the class (default: the folder's name)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    tree = read_tree(args.images, args.class_name_pattern)
    parts = split(tree, args.val, args.test, args.seed)
    write_lists(tree, parts, args.output_dir)
    if tree.loose:
        print(f"left out: {tree.loose} in {args.images}, in no class folder", file=sys.stderr)
    if tree.others:
        print(f"left out: {tree.others} without the suffix of a picture", file=sys.stderr)
    print(table(tree, parts))


if __name__ == "__main__":
    cli.run(main)
