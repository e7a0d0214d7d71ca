"""Small folders: the head that a fine-tuning finds by itself against five fixed learning rates.

    python benchmarks/small_folders.py --images data/eth80/images \\
        --pretrained pretrained/squeezenet_v1.1 --per_class 2 5 10 20 50 --classes 2 3 8 --seeds 5

For each number of classes, images a class and seed, a folder of that size is drawn from --images; a
fifth of it validates, as in `squeezenet finetune`, and up to 100 images a class that are not in it
are the test. The head is trained by each of five fixed rates, and found as by default. Printed is
the top-1 on the test images, averaged over the seeds, of the epoch that validates best; for what is
found also its difference to the rate that turned out best in this row, with the standard error over
the seeds, and which it was: a rate, or the linear discriminant (LDA).

Then the folders are counted on which the default is as good as the best of the five. The best of
five scores is better than the five are, on average: by the noise of the few images.

Features are computed once, so that a folder takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.loader import Batch
from squeezenet_paddle.datasets.folders import read_tree
from squeezenet_paddle.engines.dynamic import DynamicEngine
from squeezenet_paddle.evaluation.metrics import Scores
from squeezenet_paddle.features.compute import image_features
from squeezenet_paddle.finetuning.config import FinetuneConfig
from squeezenet_paddle.finetuning.input_size import with_suited_input
from squeezenet_paddle.finetuning.lists import Lists, read_images
from squeezenet_paddle.finetuning.lr_trials import (
    RATES,
    STILL,
    choose,
    discriminant_start,
    prefers_discriminant,
    trial,
)
from squeezenet_paddle.finetuning.run import stage_inputs
from squeezenet_paddle.finetuning.stages import stages
from squeezenet_paddle.network.model import load_state
from squeezenet_paddle.run_dir import FEATURES
from squeezenet_paddle.training.best import Best
from squeezenet_paddle.training.inputs import Inputs
from squeezenet_paddle.training.run import Run
from squeezenet_paddle.training.standardise import set_statistics

TEST = 100  # images of a class, at most
DISCRIMINANT = len(RATES)  # its place after the rates
Result = tuple[float, float]
VAL, SCORE = 0, 1  # of a result: best top-1 in validation, and top-1 on the test images there


class Watched:
    """Validation images; where the model is the best so far, it is scored on the test images."""

    def __init__(self, inputs: Inputs, run: Run, test: Batch) -> None:
        assert inputs.val is not None
        self._val, self._test, self._best = inputs.val, test, Best()
        self.images, self.sampler = self._val.images, self._val.sampler
        self.skipped = self._val.skipped
        self._engine = DynamicEngine(
            run.network, "cpu", trained_from="head", features_size=inputs.features_size
        )
        self.result = (0.0, 0.0)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        batches = list(self._val.epoch(epoch, start))
        val = self._summary(batches)
        if self._best.add(val):
            self.result = val["top1"], self._summary([self._test])["top1"]
        yield from batches

    def _summary(self, batches: list[Batch]) -> dict[str, float]:
        scores = Scores()
        for batch in batches:
            scores.add(self._engine.logits(batch.inputs), batch.labels)
        return scores.summary()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder for each class")
    parser.add_argument("--pretrained", type=Path, required=True, help="a model directory")
    parser.add_argument("--per_class", type=int, nargs="+", default=[2, 10], help="(2 10)")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 3], help="(2 3)")
    parser.add_argument("--seeds", type=int, default=1, help="(1)")
    args = parser.parse_args()
    title = " ".join(f"{rate:>7g}" for rate in RATES)
    print(f"classes  images a class  {title}      LDA  default  to best       found", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for classes in args.classes:
            for count in args.per_class:
                drawn = [draw(args, Path(folder), classes, count, s) for s in range(args.seeds)]
                results = np.array([each[0] for each in drawn])  # [seeds, rates and LDA, 2]
                found = [each[1] for each in drawn]
                rows.append(Row(classes, count, results, found))
                print(rows[-1], flush=True)
    print(summary(rows))


@dataclass(frozen=True)
class Row:
    """Folders of the same size.

    Attributes:
        classes, count: their number, and that of the images of each.
        results: [seeds, rates and discriminant, 2], see `VAL` and `SCORE`.
        found: which of them is the default, for each seed.
    """

    classes: int
    count: int
    results: np.ndarray
    found: list[int]

    def default(self, kind: int) -> np.ndarray:
        """The score of the default for each seed."""
        return self.results[np.arange(len(self.found)), self.found, kind]

    def fixed(self, kind: int) -> np.ndarray:
        """[seeds, rates]: the scores of the fixed rates."""
        return self.results[:, :DISCRIMINANT, kind]

    def to_best(self) -> tuple[float, float]:
        """The default's mean test score less that of the best rate, and its standard error."""
        fixed = self.fixed(SCORE)
        difference = self.default(SCORE) - fixed[:, fixed.mean(0).argmax()]
        seeds = len(difference)
        error = difference.std(ddof=1) / seeds**0.5 if seeds > 1 else float("nan")
        return difference.mean(), error

    def __str__(self) -> str:
        means = " ".join(f"{mean:>7.2%}" for mean in self.results[:, :, SCORE].mean(0))
        difference, error = (100 * each for each in self.to_best())
        names = [*(f"{rate:g}" for rate in RATES), "LDA"]
        return (
            f"{self.classes:>7}  {self.count:>14}  {means} {self.default(SCORE).mean():>8.2%}  "
            f"{difference:+.2f} +- {error:.2f}  {' '.join(names[each] for each in self.found)}"
        )


def summary(rows: list[Row]) -> str:
    """How often the default is as good as the best of the rates, and by how much on average."""
    differences = [row.to_best() for row in rows]
    val, test = (
        np.concatenate([row.default(kind) - row.fixed(kind).max(1) for row in rows])
        for kind in (VAL, SCORE)
    )
    images = np.concatenate(
        [np.full(len(row.found), row.classes * validating(row.count)) for row in rows]
    )
    gains = np.mean([row.default(SCORE).mean() - row.fixed(SCORE).mean(0) for row in rows], axis=0)
    at_chance = sum(int((row.default(SCORE) <= 1 / row.classes).sum()) for row in rows)
    return (
        f"test, rows: the default is at least as good as the best rate of the row in "
        f"{sum(each >= 0 for each, _ in differences)} of {len(rows)}, and not worse by more than "
        f"a standard error in {sum(each >= -error for each, error in differences)}\n"
        f"test, means of the rows: the default less each rate "
        f"{' '.join(f'{100 * gain:+.2f}' for gain in gains)} points\n"
        f"test, folders: at least as good as the best of the five in {np.mean(test >= 0):.0%}, "
        f"within 1 point in {np.mean(test >= -0.01):.0%}; at chance: {at_chance}\n"
        f"validation, folders: at least as good as the best of the five in {np.mean(val >= 0):.0%}"
        f", not worse by more than one image in {np.mean(val * images >= -1.01):.0%} of {len(val)}"
    )


def validating(count: int) -> int:
    """How many of so many images of a class validate."""
    return max(1, round(0.2 * count))


def draw(
    args: argparse.Namespace, folder: Path, classes: int, count: int, seed: int
) -> tuple[list[Result], int]:
    """The results of all rates on a folder that is drawn, and which rate is found."""
    tree = read_tree(args.images)
    rng = np.random.default_rng([seed, classes, count])
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, original in enumerate(rng.permutation(len(tree.classes))[:classes]):
        chosen = rng.permutation(np.flatnonzero(tree.labels == original))
        val = validating(count)
        ends = {"val": (0, val), "train": (val, count), "test": (count, count + TEST)}
        for part, (start, end) in ends.items():
            lines[part] += [f"{tree.names[i]} {label}\n" for i in chosen[start:end]]
    for part, each in lines.items():
        (folder / f"{part}.txt").write_text("".join(each))
    run_dir = Path(tempfile.mkdtemp(dir=folder))
    (folder / FEATURES).mkdir(exist_ok=True)
    (run_dir / FEATURES).symlink_to(folder / FEATURES)
    config = FinetuneConfig.from_settings(
        train_list=folder / "train.txt",
        val_list=folder / "val.txt",
        data_dir=args.images,
        pretrained=args.pretrained,
        output_dir=run_dir,
        device="cpu",
        num_workers=0,
    )
    with contextlib.redirect_stderr(io.StringIO()):
        lists = read_images(config)
        assert isinstance(lists, Lists)
        [stage] = stages(with_suited_input(config, lists), lists)
        test_list = read_list(folder / "test.txt", args.images, classes)
        preprocess = stage.plan.info.preprocess
        features, _ = image_features(
            args.pretrained, test_list, folder / FEATURES, preprocess=preprocess
        )
        test = Batch(np.arange(len(features)), features, test_list.labels)
        with Run.start(stage.plan) as run, stage_inputs(stage, run) as inputs:
            return results_of(run, inputs, test, stage.views)


def results_of(run: Run, inputs: Inputs, test: Batch, views: int) -> tuple[list[Result], int]:
    set_statistics(run.network, inputs, "head", run.group)
    before = {key: tensor.numpy() for key, tensor in run.network.state_dict().items()}
    results, trials = [], {}
    discriminant = discriminant_start(run, inputs, views)
    starts = [(rate, before) for rate in RATES]
    if discriminant is not None:
        starts.append((STILL, discriminant))
    for rate, start in starts:
        load_state(run.network, start, "the start")
        val = Watched(inputs, run, test)
        trials[rate] = trial(run.with_lr(rate), Inputs(inputs.train, val, inputs.features_size))
        results.append(val.result)
    still = trials.pop(STILL, None)
    rate = choose(trials)
    if still is None:
        return [*results, (float("nan"),) * 2], RATES.index(rate)
    if prefers_discriminant(still, trials[rate], len(val.images)):
        return results, DISCRIMINANT
    return results, RATES.index(rate)


if __name__ == "__main__":
    main()
