"""Score a model on a list file: top-1, top-5, loss, images a second.

    python tools/eval.py --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data

prints one line like

    top-1 58.33 %  top-5 81.00 %  loss 1.7881  300 images  15.2 images/s

Every line of the list counts exactly once. A picture that cannot be read ends the run without a
score, unless --skip_unreadable is given; then it is named and counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from squeezenet_paddle import cli
from squeezenet_paddle.dataset import read_list
from squeezenet_paddle.evaluation import evaluate
from squeezenet_paddle.files import write_text
from squeezenet_paddle.model_dir import read_info


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model_dir(parser)
    cli.add_list(parser, "--test_list", required=True)
    cli.add_data_dir(parser)
    cli.add_loading(parser)
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out pictures that cannot be read, and say how many (default: off)",
    )
    cli.add_device(parser)
    parser.add_argument(
        "--metrics_json", type=Path, metavar="FILE", help="write the scores there (default: none)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    info = read_info(args.model_dir)
    images = read_list(args.test_list, args.data_dir, info.network.num_classes)

    from squeezenet_paddle.prediction import Predictor  # Paddle, once the flags are right

    scores = evaluate(
        Predictor(args.model_dir, args.device),
        images,
        args.batch_size,
        args.num_workers,
        args.max_pixels,
        args.skip_unreadable,
    )
    for message in scores["unreadable"]:
        print(f"skipped: {message}", file=sys.stderr)
    skipped = f"  {len(scores['unreadable'])} skipped" if scores["unreadable"] else ""
    print(
        f"top-1 {scores['top1']:.2%}  top-5 {scores['top5']:.2%}  loss {scores['loss']:.4f}  "
        f"{scores['images']} images{skipped}  {scores['images_per_second']:.1f} images/s"
    )
    if args.metrics_json is not None:
        write_text(args.metrics_json, json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
