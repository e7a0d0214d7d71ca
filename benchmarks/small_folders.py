"""Small folders: the learning rate that a fine-tuning finds against fixed ones.

    python benchmarks/small_folders.py --images data/eth80/images \\
        --pretrained pretrained/squeezenet_v1.1 --per_class 2 5 10 20 50 --classes 2 3 8 --seeds 5

For each number of classes, images a class and seed, a folder of that size is drawn from --images; a
fifth of it validates, as in `squeezenet finetune`, and up to 50 images a class that are not in it
are the test. The head is trained by each of five fixed rates and by the rate that is found, all
with the defaults. Printed is the top-1 on the test images, averaged over the seeds, of the epoch
that validates best; then, how often the found rate was as good as the best of the five.

Features are computed once, so that a folder takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.loader import Batch, Batches
from squeezenet_paddle.datasets.folders import read_tree
from squeezenet_paddle.engines.dynamic import DynamicEngine
from squeezenet_paddle.evaluation.metrics import Scores
from squeezenet_paddle.features.compute import image_features
from squeezenet_paddle.finetuning.config import FinetuneConfig
from squeezenet_paddle.finetuning.lists import Lists, read_images
from squeezenet_paddle.finetuning.lr_trials import RATES, choose, trial
from squeezenet_paddle.finetuning.run import stage_inputs
from squeezenet_paddle.finetuning.stages import stages
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.network.model import load_state
from squeezenet_paddle.run_dir import FEATURES
from squeezenet_paddle.training.inputs import Inputs
from squeezenet_paddle.training.run import Run
from squeezenet_paddle.training.standardise import set_statistics

TEST = 50  # images of a class, at most
Result = tuple[float, float]  # best validation top-1, and test top-1 there


class Watched:
    """Validation images; each time they are read, the model is scored on the test images too."""

    def __init__(self, val: Batches, run: Run, test: Batch) -> None:
        self.images, self.sampler, self.skipped = val.images, val.sampler, val.skipped
        self._val, self._test = val, test
        size = read_info(run.plan.config.network.pretrained).preprocess.crop_size
        self._engine = DynamicEngine(run.network, "cpu", trained_from="head", features_size=size)
        self.scores: list[tuple[Result, float]] = []

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        batches = list(self._val.epoch(epoch, start))
        val, test = (self._summary(each) for each in (batches, [self._test]))
        self.scores.append(((val["top1"], test["top1"]), val["loss"]))
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
    print(f"classes  images a class  {title}    found  rates found", flush=True)
    found_best, cells, folders, at_chance = 0, 0, [], 0
    with tempfile.TemporaryDirectory() as folder:
        for classes in args.classes:
            for count in args.per_class:
                rows = [draw(args, Path(folder), classes, count, s) for s in range(args.seeds)]
                test = np.array([[result[1] for result in row[0]] for row in rows])
                best = [row[1] for row in rows]
                own = test[np.arange(len(rows)), best]
                print(
                    f"{classes:>7}  {count:>14}  "
                    + " ".join(f"{mean:>7.2%}" for mean in test.mean(0))
                    + f"  {own.mean():>7.2%}  {' '.join(f'{RATES[i]:g}' for i in best)}",
                    flush=True,
                )
                cells += 1
                found_best += own.mean() >= test.mean(0).max()
                folders += list(test.max(1) - own)
                val = [max(row[0])[0] - row[0][row[1]][0] for row in rows]
                assert max(val) == 0, "a trial is not the run"
                at_chance += int((own <= 1 / classes).sum())
    worse = np.array(folders)
    print(
        f"on the validation images the rate that is found is the best of the five for all "
        f"{len(worse)} folders; on the test images it is in {found_best} of {cells} rows by the "
        f"mean, and within 1 point of the best of the five for {np.mean(worse <= 0.01):.0%} of "
        f"the folders; at chance: {at_chance}"
    )


def draw(
    args: argparse.Namespace, folder: Path, classes: int, count: int, seed: int
) -> tuple[list[Result], int]:
    """The results of all rates on a folder that is drawn, and which rate is found."""
    tree = read_tree(args.images)
    rng = np.random.default_rng([seed, classes, count])
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, original in enumerate(rng.permutation(len(tree.classes))[:classes]):
        chosen = rng.permutation(np.flatnonzero(tree.labels == original))
        val = max(1, round(0.2 * count))
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
        [stage] = stages(config, lists)
        test_list = read_list(folder / "test.txt", args.images, classes)
        features, _ = image_features(args.pretrained, test_list, folder / FEATURES)
        test = Batch(np.arange(len(features)), features, test_list.labels)
        with Run.start(stage.plan) as run, stage_inputs(stage, run) as inputs:
            return results_of(run, inputs, test)


def results_of(run: Run, inputs: Inputs, test: Batch) -> tuple[list[Result], int]:
    set_statistics(run.network, inputs, "head", run.group)
    before = {key: tensor.numpy() for key, tensor in run.network.state_dict().items()}
    results, trials = [], {}
    for rate in RATES:
        assert inputs.val is not None
        val = Watched(inputs.val, run, test)
        trials[rate] = trial(run.with_lr(rate), Inputs(inputs.train, val, inputs.features_size))
        load_state(run.network, before, "the start")
        results.append(max(val.scores, key=lambda each: (each[0][0], -each[1]))[0])
    return results, RATES.index(choose(trials))


if __name__ == "__main__":
    main()
