"""Check a folder of images before training: duplicates, wrong labels, odd images, small classes.

    squeezenet check-images --images data/sample/train --pretrained pretrained/squeezenet_v1.1 \\
        --output_dir output/check

writes check.html, one page for a browser with the images embedded, and check.csv, a row for each
finding. Nothing in the folder of the images is changed.

Duplicates are files with the same bytes or the same pixels, and images that were stored again,
resized, cropped by a few percent or mirrored. Labels are judged by models that have not seen the
image: what looks wrong comes with the class that it looks like and a probability. Odd images are
far from every class, of one colour, or tiny.

Whether more images would help is told by classifiers of fewer images, whose curve is extrapolated.

--write_lists writes lists to train on, in which each set of duplicates is once and those under two
classes are left out, and whose parts share no duplicates:

    squeezenet check-images --images data/sample/train --pretrained pretrained/squeezenet_v1.1 \\
        --output_dir output/check --write_lists output/clean --drop_suspects

    squeezenet finetune --train_list output/clean/train_list.txt \\
        --val_list output/clean/val_list.txt --data_dir data/sample/train \\
        --synset_word_list output/clean/synset_words.txt \\
        --pretrained pretrained/squeezenet_v1.1 --output_dir output/mine

--group_pattern keeps together what shows one thing, such as a patient, a video or an object: images
for which the regular expression finds the same text in the path are in one part of the lists, and
do not judge each other's labels. '/([^/]+)-' finds car5 in car/car5-068-270.jpg.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..data.contents import read_contents
from ..data.image_files import describe_left_out, write_left_out
from ..data.lists import ImageList, read_list, read_names
from ..datasets.folders import ClassTree, given_parts, read_tree
from ..datasets.split import check_shares
from ..errors import InputError
from ..files import check_file_target
from ..model_dir import read_info
from ..run_dir import CHECK_PAGE, CHECK_TABLE, LEFT_OUT, LISTS
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--images", "--pretrained"), resumes=True)
    images = parser.add_argument_group("images")
    which = images.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--images", type=Path, metavar="DIR", help="a folder with a folder for each class"
    )
    shared_flags.add_list(which, "--list")
    shared_flags.add_data_dir(images)
    images.add_argument(
        "--synset_word_list",
        type=Path,
        metavar="FILE",
        help="class names of --list, one on each line (default: the class ids)",
    )
    images.add_argument(
        "--class_name_pattern",
        metavar="REGEX",
        help="as for squeezenet finetune (default: the folder's name)",
    )
    shared_flags.add_class_level(images)
    images.add_argument(
        "--group_pattern",
        metavar="REGEX",
        help="a regular expression searched for in each image's path; images for which its first "
        "group, or the whole match, is the same belong together (default: none do)",
    )
    result = parser.add_argument_group("result")
    result.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="for check.html, check.csv and the features, which are kept (required)",
    )
    result.add_argument(
        "--write_lists",
        type=Path,
        metavar="DIR",
        help="write train_list.txt, val_list.txt and synset_words.txt there (default: none)",
    )
    result.add_argument(
        "--drop_suspects",
        action="store_true",
        help="leave images whose label looks wrong out of the lists (default: off)",
    )
    result.add_argument(
        "--val_share",
        type=float,
        metavar="SHARE",
        help="of the lists (default: 0.2, or what the folders have)",
    )
    result.add_argument(
        "--test_share",
        type=float,
        metavar="SHARE",
        help="of the lists (default: 0, or what the folders have)",
    )
    result.add_argument("--seed", type=shared_flags.seed, help="of the lists (default: 0)")
    network = parser.add_argument_group("network")
    network.add_argument(
        "--pretrained",
        type=Path,
        required=True,
        metavar="DIR",
        help="the model directory whose features tell the images apart (required)",
    )
    running = parser.add_argument_group("running")
    shared_flags.add_reading(running)
    shared_flags.add_device(running)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    check_arguments(args)
    images, tree = labelled(args)
    given_parts(tree, args.val_share, args.test_share)  # or an error
    classes = tree.classes
    info = read_info(args.pretrained)

    from ..checking.check import check, groups_of
    from ..checking.inputs import suited
    from ..checking.lists import write_clean_lists
    from ..checking.report import facts_of, write_report
    from ..evaluation.calibrate import classifier_of
    from ..features.compute import MEMO, image_features, paths_of

    groups_of([images.name(i) for i in range(len(images))], args.group_pattern)  # or an error
    folder = args.output_dir / "features"
    features, unreadable = image_features(
        args.pretrained,
        images,
        folder,
        preprocess=suited(info.preprocess, images),
        mirrored=True,
        device=args.device,
        num_workers=args.num_workers,
        max_pixels=args.max_pixels,
    )
    hashes = read_contents(paths_of(images), folder / MEMO).hashes
    found = check(
        features,
        images,
        classes,
        hashes=hashes,
        unreadable=unreadable,
        group_pattern=args.group_pattern,
        max_pixels=args.max_pixels,
        classifier=classifier_of(args.pretrained),
        parts=tree.parts,
    )
    write_report(args.output_dir, found, facts_of(found, args.pretrained))
    for line in found.lines() if any(found.lines()) else ["nothing was found"]:
        print(line)
    page, table = args.output_dir / CHECK_PAGE, args.output_dir / CHECK_TABLE
    print(f"\nthe images:   {page}\nas a table:   {table}")
    if args.write_lists is not None:
        counts = write_clean_lists(
            found,
            hashes,
            args.write_lists,
            parts=tree.parts,
            suspects=not args.drop_suspects,
            val_share=args.val_share,
            test_share=args.test_share,
            seed=args.seed or 0,
        )
        parts = ", ".join(f"{part} {count}" for part, count in counts.items())
        left_out = len(images) - sum(counts.values())
        print(f"the lists:    {args.write_lists}: {parts}; {left_out} left out")


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses what would end the command after the work.

    Raises:
        InputError: flags contradict each other, or the results would lie among the images.
    """
    for name in ("class_name_pattern", "class_level"):
        if args.images is None and getattr(args, name) is not None:
            raise InputError(f"`{name}` goes with `images`, and `list` was given.")
    if args.images is not None:
        for name in ("data_dir", "synset_word_list"):
            if getattr(args, name) is not None:
                raise InputError(f"`{name}` goes with `list`, and `images` was given.")
        for name in ("output_dir", "write_lists"):
            target = getattr(args, name)
            if target is not None and args.images.resolve() in (
                target.resolve(),
                *target.resolve().parents,
            ):
                raise InputError(
                    f"`{name}` {target} lies in `images` {args.images}, which is left as it is; "
                    "another directory was expected."
                )
    for name in ("drop_suspects", "val_share", "test_share", "seed"):
        if args.write_lists is None and getattr(args, name) not in (None, False):
            raise InputError(f"`{name}` goes with `write_lists`, which was not given.")
    if args.write_lists is not None:
        for name in ("list", "synset_word_list"):
            file = getattr(args, name)
            if file is not None and file.resolve() in {
                (args.write_lists / each).resolve() for each in LISTS
            }:
                raise InputError(
                    f"`write_lists` {args.write_lists} would replace {file}, which is `{name}`; "
                    "another directory was expected."
                )
    check_shares(args.val_share or 0.0, args.test_share or 0.0, args.seed or 0)
    check_file_target(args.output_dir / CHECK_PAGE)


def labelled(args: argparse.Namespace) -> tuple[ImageList, ClassTree]:
    """The images with their labels, and what the folder or the list holds."""
    if args.images is not None:
        tree = read_tree(args.images, args.class_name_pattern, args.class_level)
        for line in tree.notes:
            common.note(line)
        if tree.left_out:
            file = args.output_dir / LEFT_OUT
            write_left_out(file, tree.left_out)
            common.note(f"{describe_left_out(tree.left_out)}; see {file}")
        images = ImageList.of_paths(list(tree.names))
        return dataclasses.replace(images, root=args.images, labels=tree.labels), tree
    names = None if args.synset_word_list is None else read_names(args.synset_word_list)
    images = read_list(args.list, args.data_dir, len(names) if names else None, names)
    classes = names or [f"class {i}" for i in range(int(images.labels.max()) + 1)]
    return images, ClassTree(classes, (), images.labels)
