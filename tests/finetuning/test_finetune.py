"""Fine-tuning from cached features: what it computes, keeps, refuses, and goes on from."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run as RunTool
from conftest import assert_user_error
from runs import (
    assert_same_weights,
    finetune_config,
    finetune_flags,
    make_image_folder,
    make_pretrained,
    metrics,
    weights,
)

from squeezenet_paddle import FinetuneConfig
from squeezenet_paddle.data.loader import AHEAD
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.evaluation.evaluate import Evaluation
from squeezenet_paddle.features import cache, compute
from squeezenet_paddle.finetuning import features, lr_range
from squeezenet_paddle.finetuning import run as finetuning
from squeezenet_paddle.finetuning.lists import (
    Images,
    Lists,
    inspect_images,
    read_images,
    split_images,
    write_lists,
)
from squeezenet_paddle.finetuning.run import stage_inputs
from squeezenet_paddle.finetuning.stages import stages
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.run_dir import locked
from squeezenet_paddle.training.run import Run, start_network

pytestmark = pytest.mark.usefixtures("blank_figures")

IMAGES = 50


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_folder(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


def find_lists(config: FinetuneConfig) -> Lists:
    images = read_images(config)
    assert isinstance(images, Images)
    return split_images(inspect_images(images, config), config)


def listed(run: Path) -> tuple[int, int]:
    """Images for training and for validation, which depend on how OpenCV writes the JPEG files."""
    names = ("train_list.txt", "val_list.txt")
    train, val = (len((run / name).read_text().splitlines()) for name in names)
    assert train + val == IMAGES
    assert val >= 10  # each class has one
    return train, val


def finetune(*given: Any) -> Evaluation:
    result = finetuning.finetune(finetune_config(finetune_flags(*given)))
    assert result.evaluation is not None
    return result.evaluation


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, images: Path, pretrained: Path) -> Path:
    """A run from its start to its end."""
    run = tmp_path_factory.mktemp("whole") / "run"
    evaluation = finetune(images, pretrained, run)
    assert len(evaluation.predictions) == listed(run)[1]
    return run


def test_a_run_leaves_a_model_with_names_and_a_report(whole: Path) -> None:
    info = read_info(whole)
    assert info.network.head == "compact"
    assert info.network.num_classes == 10
    assert info.names is not None
    assert info.names[0] == "cross_noise"
    assert (whole / "report" / "report.html").is_file()
    assert [r["step"] for r in metrics(whole) if r["kind"] == "val"] == [3, 6, 9]


def test_the_frozen_layers_stay_as_they_were(whole: Path, pretrained: Path) -> None:
    before, after = weights(pretrained), weights(whole / "final")
    frozen = [key for key in before if not key.startswith("conv10.")]
    assert len(frozen) == 50
    for key in frozen:
        assert np.array_equal(before[key], after[key]), key


def test_the_cache_changes_nothing(
    whole: Path, images: Path, pretrained: Path, tmp_path: Path
) -> None:
    """Bit for bit: the features are the same, and so is all that is computed from them."""
    finetune(images, pretrained, tmp_path / "run", "--no_cache")
    assert not (tmp_path / "run" / "features").exists()
    assert_same_weights(whole / "final", tmp_path / "run" / "final")


def test_a_killed_cache_goes_on_and_ends_the_same(
    whole: Path, images: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    for module in (cache, compute):
        monkeypatch.setattr(module, "BLOCK", 8)
    calls, write = itertools.count(), cache.Writer.write

    def killed(self: cache.Writer, *given: Any) -> None:
        if next(calls) in (3, 7):
            raise KeyboardInterrupt
        write(self, *given)

    monkeypatch.setattr(cache.Writer, "write", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            finetune(images, pretrained, run)
    finetune(images, pretrained, run)
    # Each block of the check, in which those of validation are, and of two views; and the kills.
    assert next(calls) == 7 + 2 * 5 + 2
    for path in (whole / "features").glob("*.f16"):
        assert (run / "features" / path.name).read_bytes() == path.read_bytes()
    assert_same_weights(whole / "final", run / "final")


def test_a_damaged_cache_is_mended(
    whole: Path, images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole / "features", tmp_path / "run" / "features")
    [train] = (tmp_path / "run" / "features").glob("views-*.f16")
    good = train.read_bytes()
    train.write_bytes(good[:-2] + b"xx")
    finetune(images, pretrained, tmp_path / "run")
    assert "1 blocks are damaged; they are computed again" in capsys.readouterr().err
    assert train.read_bytes() == good
    assert_same_weights(whole / "final", tmp_path / "run" / "final")


@pytest.mark.parametrize(
    "more", [("--seed", 1), ("--flip", 0), ("--crop_size", 35), ("--trainable", "fire9")]
)
def test_other_features_are_never_taken(
    images: Path, pretrained: Path, tmp_path: Path, more: tuple[object, ...]
) -> None:
    """Whatever a feature depends on is in the key of its file."""
    files = []
    for given in ((), more):
        config = finetune_config(finetune_flags(images, pretrained, tmp_path / "run", *given))
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        lists = find_lists(config)
        write_lists(lists, tmp_path / "run")
        [stage] = stages(config, lists)
        network, _ = start_network(stage.plan)
        frozen = features.frozen_part(stage.plan, network)
        train, _ = features.feature_files(stage.plan, network, frozen, tmp_path / "features")
        train.check()
        files.append(train)
        if not given:
            with train.writer() as writer:
                writer.write(["a"], 0, np.zeros((1, frozen.size)))
    assert files[0].rows(["a"]) == [0]
    assert files[1].rows(["a"]) == [-1]


def test_images_that_cannot_be_read_are_all_named(
    images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = shutil.copytree(images, tmp_path / "tree")
    bad = sorted(tree.rglob("*.jpg"))[::17]
    for path in bad:
        path.write_bytes(f"no image {path.parent.name}".encode())
    run = tmp_path / "run"
    with pytest.raises(InputError, match="without `strict`") as caught:
        finetune(tree, pretrained, run, "--strict")
    for path in bad:
        assert path.name in str(caught.value)
    assert f"{len(bad)} of 50" in str(caught.value)
    found = finetune(tree, pretrained, run)
    assert f"left out: {len(bad)} images that cannot be read" in capsys.readouterr().err
    lines = (run / "left_out.csv").read_text().splitlines()
    for path in bad:
        assert any(f"{path.parent.name}/{path.name}" in line for line in lines)
    assert len(found.predictions) == len((run / "val_list.txt").read_text().splitlines())
    assert not found.unreadable


def test_two_runs_in_one_directory(images: Path, pretrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(run,))
    process.start()
    while not (run / "held").exists():
        time.sleep(0.01)
    try:
        with pytest.raises(InputError, match="another run is writing there"):
            finetune(images, pretrained, run, "--overwrite")
        assert sorted(path.name for path in run.iterdir()) == [".lock", "held"]
    finally:
        process.kill()
        process.join()


def _hold(run: Path) -> None:
    with locked(run):
        (run / "held").touch()
        time.sleep(60)


@pytest.mark.parametrize(("trainable", "same"), [("fire2+", True), ("all", False)])
def test_each_epoch_has_its_own_view_where_all_layers_are_trained(
    images: Path, pretrained: Path, tmp_path: Path, trainable: str, same: bool
) -> None:
    more = ("--trainable", trainable, *(("--views", 1, "--no_cache") if same else ()))
    config = finetune_config(finetune_flags(images, pretrained, tmp_path / "run", *more))
    lists = find_lists(config)
    write_lists(lists, tmp_path / "run")
    [stage] = stages(config, lists)
    with Run.start(stage.plan) as run, finetuning.stage_inputs(stage, run) as inputs:
        epochs = [
            {
                int(i): x.tobytes()
                for batch in inputs.train.epoch(epoch)
                for i, x in zip(batch.indices, batch.inputs)
            }
            for epoch in (0, 1)
        ]
    assert len(epochs[0]) == listed(tmp_path / "run")[0]
    assert (epochs[0] == epochs[1]) == same


def test_a_second_stage(
    images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = ("--num_epochs", 1, "--then", "fire9", "--then_epochs", 1, "--head_lr_mult", 10)
    finetune(images, pretrained, run, *more)
    told = capsys.readouterr().err
    assert "learning rate: " in told
    first, second = weights(run / "first_stage" / "final"), weights(run / "final")
    changed = {key.split(".")[0] for key in first if not np.array_equal(first[key], second[key])}
    assert changed == {"fire9", "bn_pools", "fc10", "fc"}
    scores = [read_info(path).scores["val"]["top1"] for path in (run / "first_stage", run)]
    assert scores[1] >= scores[0]
    finetune(images, pretrained, run, *more)  # again, there is nothing to do
    assert capsys.readouterr().err.count("this run is finished") == 2
    with pytest.raises(InputError, match="`then` head"):
        finetune(images, pretrained, tmp_path / "other", "--then", "head")


def test_balance_raises_the_rare_class(images: Path, pretrained: Path, tmp_path: Path) -> None:
    names = [f"{path.parent.name}/{path.name}" for path in sorted(images.rglob("*.jpg"))]
    lines = [f"{name} {i // 5}\n" for i, name in enumerate(names)]

    def run(name: str, train: list[str], val: list[str], **more: Any) -> Evaluation:
        for file, part in ("train", train), ("val", val):
            (tmp_path / f"{file}.txt").write_text("".join(part))
        lists = {f"{file}_list": tmp_path / f"{file}.txt" for file in ("train", "val")}
        more = {"pretrained": pretrained, "output_dir": tmp_path / name, "num_workers": 0, **more}
        config = FinetuneConfig.from_settings(**lists, data_dir=images, lr=1e-3, **more)
        evaluation = finetuning.finetune(config).evaluation
        assert evaluation is not None
        return evaluation

    even = [line for i, line in enumerate(lines) if i % 5]
    for name, balance in ("even", False), ("even balanced", True):
        run(name, even, lines[::5], num_epochs=1, balance=balance)
    assert_same_weights(tmp_path / "even" / "final", tmp_path / "even balanced" / "final")
    losses = []
    for name, balance in ("rare", False), ("rare balanced", True):
        found = run(name, lines[4:], lines[:4], num_epochs=20, balance=balance).predictions
        losses.append(found.loss.mean())
    assert losses[1] < losses[0]


def test_the_range_test_takes_whole_updates(
    images: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 37 images or so, in two parts of 20 or of 32 and the rest, are one update."""
    losses: list[float] = []

    def choose(found: list[float], *_: float) -> float:
        losses.append(found[0])
        return 1e-3

    monkeypatch.setattr(lr_range, "choose", choose)
    monkeypatch.setattr(lr_range, "rates", lambda: [lr_range.LOWEST])
    for batch_size in 40, 64:
        more = ("--trainable", "all", "--head", "conv", "--batch_size", batch_size)
        run = tmp_path / str(batch_size)
        given = finetune_flags(images, pretrained, run, *more, "--num_epochs", 1, lr=None)
        assert finetuning.finetune(finetune_config(given)).finished
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_range_test_sees_the_same_images_however_they_are_read(
    images: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reader processes use the memory of a batch again; more batches than that are compared."""
    losses: list[list[float]] = []
    monkeypatch.setattr(lr_range, "choose", lambda found, *_: losses.append(found) or 1e-3)
    monkeypatch.setattr(lr_range, "rates", lambda: [lr_range.LOWEST, 1e-3])
    for workers in 0, 1:
        more = ("--trainable", "all", "--batch_size", 2, "--num_workers", workers, "--no_check")
        run = tmp_path / str(workers)
        config = finetune_config(finetune_flags(images, pretrained, run, *more, lr=None))
        lists = find_lists(config)
        write_lists(lists, run)
        [stage] = stages(config, lists)
        with Run.start(stage.plan) as started, stage_inputs(stage, started) as inputs:
            assert inputs.val is not None
            assert len(inputs.val.sampler) > AHEAD + 1
            lr_range.find_lr(started, inputs, stage.views)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("start", [2.0, 0.0])  # much to learn, and nothing
def test_the_range_test_takes_a_tenth_of_the_last_good_rate(start: float) -> None:
    rates = np.array(lr_range.rates())
    falling = np.maximum(start - np.log10(rates / rates[0]) / 4, 0)
    losses = np.where(rates <= rates[27], falling, 99.0)
    assert lr_range.choose(losses.tolist(), 10) == pytest.approx(rates[27] / 10, rel=0.2)
    assert lr_range.choose(losses.tolist(), 10, 3) == pytest.approx(rates[27] / 3, rel=0.2)
    assert lr_range.choose([1.0], 10) == lr_range.LOWEST
    assert lr_range.choose([], 10) == lr_range.LOWEST


def test_the_command_of_a_user(
    images: Path, pretrained: Path, tmp_path: Path, run_tool: RunTool, call_tool: RunTool
) -> None:
    run = tmp_path / "run"
    given = finetune_flags(images, pretrained, run, "--num_workers", 1, lr=None)
    done = run_tool("finetune", *given)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "learning rate: " in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("top-1 ")
    assert any("squeezenet eval" in line for line in lines)
    [use] = [line for line in lines if "squeezenet infer" in line]
    image = next(images.rglob("*.jpg"))
    named = call_tool("infer", *shlex.split(use)[2:-1], image)
    assert named.returncode == 0, named.stderr
    assert_user_error(call_tool("finetune", *given, "--seed", 1), "--overwrite")


def test_a_second_stage_goes_on_from_a_run_that_had_one_alone(
    images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    finetune(images, pretrained, run, "--num_epochs", 2)
    before = weights(run / "final")
    features = {path: path.stat().st_mtime_ns for path in (run / "features").glob("*.f16")}
    capsys.readouterr()
    more = ("--num_epochs", 2, "--then", "all", "--then_epochs", 4, "--then_lr", 1e-4)
    finetune(images, pretrained, run, *more)
    log = capsys.readouterr().err
    assert f"{run}: its run is the first stage now" in log
    assert f"{run / 'first_stage'}: this run is finished" in log
    first = weights(run / "first_stage" / "final")
    assert all(np.array_equal(before[key], first[key]) for key in before)
    assert len(features) == 2
    assert all(path.stat().st_mtime_ns == time for path, time in features.items())
    assert read_info(run / "final").source["step"] == 12  # of the second stage
    settings = json.loads((run / "settings.json").read_text())["settings"]
    assert (settings["trainable"], settings["lr"]) == ("all", 1e-4)
    assert settings["warmup_steps"] == 1  # a tenth
    finetune(images, pretrained, run, *more)  # again, there is nothing to do
    assert capsys.readouterr().err.count("this run is finished") == 2


def test_a_run_of_other_settings_is_no_first_stage(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finetune(images, pretrained, run, "--num_epochs", 1)
    before = sorted(path.name for path in run.iterdir())
    with pytest.raises(InputError, match="`batch_size` was 16, is 8"):
        finetune(images, pretrained, run, "--num_epochs", 1, "--batch_size", 8, "--then", "fire9")
    assert sorted(path.name for path in run.iterdir()) == before


def test_images_of_lists_that_cannot_be_read_are_named_once(
    images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In two stages, and in training and validation."""
    tree = shutil.copytree(images, tmp_path / "tree")
    names = [f"{path.parent.name}/{path.name}" for path in sorted(tree.rglob("*.jpg"))]
    for part, chosen in ("val", slice(0, None, 5)), ("train", slice(1, None, 2)):
        lines = [f"{name} {i // 5}\n" for i, name in enumerate(names)][chosen]
        (tmp_path / f"{part}.txt").write_text("".join(lines))
    bad = [names[0], names[1], names[30], names[33]]
    for name in bad:
        (tree / name).write_bytes(b"no image")
    flags = finetune_flags(tree, pretrained, tmp_path / "run", "--num_epochs", 1)
    lists = [f"--{part}_list={tmp_path / part}.txt" for part in ("train", "val")]
    flags = [*lists, "--data_dir", str(tree), *flags[2:]]
    with pytest.raises(InputError, match="4 of 35 images cannot be read, and without `strict`"):
        finetuning.finetune(finetune_config([*flags, "--strict"]))
    capsys.readouterr()
    two = [*flags, "--then", "fire9", "--then_epochs", "1"]
    result = finetuning.finetune(finetune_config(two)).evaluation
    assert result is not None
    assert len(result.unreadable) == 2
    log = capsys.readouterr().err
    for name in bad:
        assert log.count(name) == 1, name


def test_the_better_stage_is_named_again(
    images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second stage at a rate that destroys the network; then the same command again."""
    run = tmp_path / "run"
    more = ("--num_epochs", 15, "--then", "fire9", "--then_epochs", 1, "--then_lr", 10)
    finetune(images, pretrained, run, *more)
    assert "the first is kept" in capsys.readouterr().err
    assert_same_weights(run / "best", run / "first_stage" / "best")
    finetune(images, pretrained, run, *more)
    log = capsys.readouterr().err
    assert "the first is kept" in log
    assert "the second is kept" not in log


def test_the_result_of_a_fine_tuning(images: Path, pretrained: Path, tmp_path: Path) -> None:
    config = FinetuneConfig.from_settings(
        images=str(images),
        pretrained=str(pretrained),
        output_dir=str(tmp_path / "run"),
        num_epochs=1,
        batch_size=16,
        num_workers=0,
        lr=1e-3,
    )
    result = finetuning.finetune(config)
    assert (result.finished, result.model_dir) == (True, tmp_path / "run" / "best")
    assert result.best == read_info(tmp_path / "run").scores["val"]["top1"]
