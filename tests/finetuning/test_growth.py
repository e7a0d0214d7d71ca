"""A folder that grows: what is said, computed, kept and compared when its images change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from runs import (
    assert_same_weights,
    finetune_config,
    finetune_flags,
    make_image_folder,
    make_pretrained,
)

from squeezenet_paddle.datasets.samples import SHAPES, TEXTURES, draw
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.features.cache import size_text
from squeezenet_paddle.finetuning import growth
from squeezenet_paddle.finetuning import run as finetuning
from squeezenet_paddle.finetuning.growth import Image, describe_changes, take_directory
from squeezenet_paddle.finetuning.run import FinetuneResult
from squeezenet_paddle.model_dir import read_info

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


def finetune(*given: Any) -> FinetuneResult:
    return finetuning.finetune(finetune_config(finetune_flags(*given)))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Path:
    """A folder of images, and a run on it beside it."""
    folder = tmp_path_factory.mktemp("first")
    images = make_image_folder(folder / "data", 4).rename(folder / "images")
    paths = [images, *images.rglob("*")]
    before = [path.stat() for path in paths]
    for path in paths:  # nothing has to be written there
        path.chmod(0o555 if path.is_dir() else 0o444)
    finetune(images, pretrained, folder / "run", "--num_epochs", 2)
    assert [path.stat().st_mtime_ns for path in paths] == [each.st_mtime_ns for each in before]
    for path, status in zip(paths, before):
        path.chmod(status.st_mode)
    return folder


@pytest.fixture
def grown(first: Path, tmp_path: Path) -> Path:
    """The same with two images more, one less, one that moved and one with a new name."""
    folder = Path(shutil.copytree(first, tmp_path / "grown"))
    images = folder / "images"
    record = growth.read_record(folder / "run")
    assert record is not None
    train: dict[str, list[str]] = {}
    for image in record.images:
        if image.part == "train":
            train.setdefault(image.class_name, []).append(image.path)
    # Classes that can spare one, so that no image has to change its side.
    changed = [paths[0] for name, paths in train.items() if len(paths) > 1 and name != "ring_noise"]
    for i in range(2):
        add(images / "cross_noise" / f"new{i}.png", i)
    (images / changed[1]).unlink()
    (images / changed[2]).rename(images / "triangle_dots" / "was elsewhere.jpg")
    (images / changed[3]).rename((images / changed[3]).with_name("new name.jpg"))
    return folder


def add(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = draw(SHAPES[seed % 5], TEXTURES[seed % 3], np.random.default_rng(100 + seed))
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def parts(run: Path) -> dict[str, str]:
    record = growth.read_record(run)
    assert record is not None
    return record.parts


def test_the_same_command_goes_on_with_a_changed_folder(
    grown: Path, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = grown / "images", grown / "run"
    before = parts(run)
    files = {path.name: path.read_bytes() for path in (run / "features").glob("*.f16")}
    capsys.readouterr()
    result = finetune(images, pretrained, run, "--num_epochs", 2)
    log = capsys.readouterr().err
    assert f"images: +2 -1, 1 moved; the earlier run is kept in {run / 'runs' / '1'}" in log
    new = sum(
        len(path.read_bytes()) - len(files[path.name]) for path in (run / "features").glob("*.f16")
    )
    after = parts(run)
    train = sum(after[key] == "train" for key in after.keys() - before.keys())
    # The center of both new images for the checks, and two views of those to train on.
    assert new == (2 + 2 * train) * read_feature_size(run)
    # Of the image that went, which was one to train on, the cache keeps two views.
    gone = size_text(2 * read_feature_size(run))
    assert f"; {gone} more of 1 images that are gone, until that folder is removed" in log
    assert len(after.keys() - before.keys()) == 2
    assert all(after[key] == before[key] for key in after.keys() & before.keys())
    comparison = result.comparison
    assert comparison is not None
    assert comparison.earlier == run / "runs" / "1"
    assert comparison.all_known
    assert result.evaluation is not None
    assert comparison.images == len(result.evaluation.predictions)
    assert comparison.after == result.best
    assert comparison.after - comparison.before == pytest.approx(
        (comparison.mended - comparison.broken) / comparison.images
    )

    again = finetune(images, pretrained, run, "--num_epochs", 2)
    log = capsys.readouterr().err
    assert "this run is finished" in log
    assert "images: +" not in log
    assert again.comparison == comparison


def read_feature_size(run: Path) -> int:
    journal = next((run / "features").glob("views-*.log")).read_bytes().splitlines()[0]
    return 2 * json.loads(journal.partition(b" ")[2])["size"]


def test_nothing_of_the_earlier_run_is_lost(first: Path, grown: Path, pretrained: Path) -> None:
    run = grown / "run"
    finetune(grown / "images", pretrained, run, "--num_epochs", 2)
    kept = run / "runs" / "1"
    for path in (first / "run").rglob("*"):
        name = path.relative_to(first / "run")
        shared = name.parts[0] in ("features", "contents.json", ".lock")
        if path.is_file() and not shared:
            assert (kept / name).read_bytes() == path.read_bytes(), name
    assert read_info(kept).network.num_classes == 10  # as a model for every command


def test_it_is_what_a_run_on_its_lists_would_be(
    grown: Path, pretrained: Path, tmp_path: Path
) -> None:
    """Bit for bit, with and without the cache, whose rows are in the order of their coming."""
    images, run = grown / "images", grown / "run"
    finetune(images, pretrained, run, "--num_epochs", 2)
    lists = [f"--{part}_list={run / f'{part}_list.txt'}" for part in ("train", "val")]
    lists += [f"--data_dir={images}", f"--synset_word_list={run / 'synset_words.txt'}"]
    for name, more in ("other", ()), ("uncached", ("--no_cache",)):
        flags = finetune_flags(images, pretrained, tmp_path / name, "--num_epochs", 2, *more)
        finetuning.finetune(finetune_config([*lists, *flags[2:]]))
        assert_same_weights(run / "final", tmp_path / name / "final")


def rename_some(images: Path, run: Path) -> None:
    """New names that sort otherwise: two images swap theirs, and the first one comes last."""
    record = growth.read_record(run)
    assert record is not None
    of_a_class = sorted(i.path for i in record.images if i.class_name == "ring_noise")
    a, b, *_ = (images / path for path in of_a_class)
    a.rename(images / "swapped")
    b.rename(a)
    (images / "swapped").rename(b)
    for folder in ("cross_noise", "square_dots"):
        path = min((images / folder).iterdir())
        path.rename(path.with_name("zz.jpg"))


def test_new_names_alone_keep_the_run(
    first: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(first, tmp_path / "grown"))
    images, run = folder / "images", folder / "run"
    before = {path: path.read_bytes() for path in (run / "best").rglob("*") if path.is_file()}
    earlier = growth.read_record(run)
    assert earlier is not None
    rename_some(images, run)
    capsys.readouterr()
    result = finetune(images, pretrained, run, "--num_epochs", 2)
    log = capsys.readouterr().err
    assert "images: +0 -0, 4 renamed; the run goes on with them\n" in log
    assert "this run is finished" in log
    assert result.comparison is None
    assert not (run / "runs").exists()
    assert {path: path.read_bytes() for path in before} == before
    record = growth.read_record(run)
    assert record is not None
    assert [image[1:] for image in record.images] == [image[1:] for image in earlier.images]
    for part in ("train", "val"):
        lines = (run / f"{part}_list.txt").read_text().splitlines()
        paths = [line.rsplit(" ", 1)[0] for line in lines]
        assert paths == [image.path for image in record.images if image.part == part]
        assert all((images / path).is_file() for path in paths)
    finetune(images, pretrained, run, "--num_epochs", 2)
    assert "renamed" not in capsys.readouterr().err


def test_a_run_goes_on_under_new_names_as_under_the_old_ones(
    first: Path, pretrained: Path, tmp_path: Path
) -> None:
    """Bit for bit: neither the order of the images nor their views depend on names."""
    for name in ("renamed", "as they were"):
        folder = Path(shutil.copytree(first, tmp_path / name))
        if name == "renamed":
            rename_some(folder / "images", folder / "run")
        finetune(folder / "images", pretrained, folder / "run", "--num_epochs", 3)
        assert read_info(folder / "run" / "final").source["step"] == 6
    assert_same_weights(
        *(tmp_path / name / "run" / "final" for name in ("renamed", "as they were"))
    )


def test_new_and_lost_classes(
    grown: Path, pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, run = grown / "images", grown / "run"
    shutil.rmtree(images / "ring_noise")
    for i in range(4):
        add(images / "aardvark" / f"{i}.png", 10 + i)
    result = finetune(images, pretrained, run, "--num_epochs", 1)
    log = capsys.readouterr().err
    assert "images: +6 -5, 1 moved; new class aardvark; gone class ring_noise; " in log
    info = read_info(run)
    assert info.names is not None
    assert info.names[0] == "aardvark"
    assert "ring_noise" not in info.names
    comparison = result.comparison
    assert comparison is not None
    assert not comparison.all_known
    assert "of the classes that both know" in str(comparison)
    assert result.evaluation is not None
    labels = result.evaluation.predictions.labels
    assert comparison.images == np.sum(labels != 0)


def test_a_second_change_is_a_second_run(grown: Path, pretrained: Path) -> None:
    images, run = grown / "images", grown / "run"
    finetune(images, pretrained, run, "--num_epochs", 1)
    add(images / "ring_noise" / "late.png", 30)
    result = finetune(images, pretrained, run, "--num_epochs", 1)
    assert [path.name for path in growth.numbered_runs(run)] == ["1", "2"]
    assert result.comparison is not None
    assert result.comparison.earlier == run / "runs" / "2"


def test_other_settings_of_the_split_are_refused(grown: Path, pretrained: Path) -> None:
    before = sorted(path.name for path in (grown / "run").iterdir())
    for more in ("--val_share", 0.4), ("--seed", 1):
        with pytest.raises(InputError, match=rf"`{more[0][2:]}`.*`overwrite`"):
            finetune(grown / "images", pretrained, grown / "run", *more)
    assert sorted(path.name for path in (grown / "run").iterdir()) == before


def test_overwrite_starts_from_nothing(grown: Path, pretrained: Path) -> None:
    run = grown / "run"
    finetune(grown / "images", pretrained, run, "--num_epochs", 1)
    result = finetune(
        grown / "images", pretrained, run, "--num_epochs", 1, "--seed", 1, "--overwrite"
    )
    assert result.comparison is None
    assert not (run / "runs").exists()


def test_a_kill_while_the_earlier_run_is_moved_loses_nothing(
    first: Path, grown: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rename = grown / "run", Path.rename
    before = parts(run)
    for count in (0, 1, 5, 3):
        calls = iter(range(100))

        def killed(self: Path, target: Path, count: int = count, calls: Any = calls) -> Path:
            if "runs" in Path(target).parts and next(calls) == count:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            with pytest.raises(KeyboardInterrupt):
                finetune(grown / "images", pretrained, run, "--num_epochs", 1)
    finetune(grown / "images", pretrained, run, "--num_epochs", 1)
    kept = run / "runs" / "1"
    assert not (run / "runs" / "2").exists()
    for name in ("best/model.pdparams", "report/report.html", "images.json", "train_list.txt"):
        assert (kept / name).read_bytes() == (first / "run" / name).read_bytes()
    after = parts(run)
    assert all(after[key] == before[key] for key in after.keys() & before.keys())


def test_sides_stay_after_a_kill_before_the_new_lists(grown: Path, pretrained: Path) -> None:
    run = grown / "run"
    before = parts(run)
    record = growth.read_record(run)
    assert record is not None
    text = take_directory(run, growth.Record(record.split, record.images[1:]))
    assert "+0 -1, 0 moved" in text
    finetune(grown / "images", pretrained, run, "--num_epochs", 1)
    after = parts(run)
    assert all(after[key] == before[key] for key in after.keys() & before.keys())


def test_a_run_that_has_trained_nothing_is_not_kept(grown: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("images.json", "train_list.txt", "val_list.txt"):
        shutil.copy(grown / "run" / name, run)
    record = growth.read_record(run)
    assert record is not None
    text = take_directory(run, growth.Record(record.split, record.images[1:]))
    assert "kept" not in text
    assert not list(run.iterdir())


def test_a_kill_after_the_models_were_moved_still_keeps_the_record(tmp_path: Path) -> None:
    images = [Image(f"a/{n}.jpg", "a", "train", str(n)) for n in range(3)]
    (tmp_path / "images.json").write_bytes(growth.Record({}, images).json())
    (tmp_path / "runs" / "1" / "best").mkdir(parents=True)
    assert "kept in" in take_directory(tmp_path, growth.Record({}, images[1:]))
    assert growth.read_record(tmp_path / "runs" / "1") == growth.Record({}, images)


def test_what_the_run_reads_is_neither_moved_nor_removed(tmp_path: Path) -> None:
    names = tmp_path / "synset_words.txt"
    names.write_text("mine")
    images = [Image(f"a/{n}.jpg", "a", "train", str(n)) for n in range(3)]
    (tmp_path / "images.json").write_bytes(growth.Record({}, images).json())
    new = growth.Record({}, images[1:])
    for model in (False, True):  # it would be removed, or kept in runs/1
        if model:
            (tmp_path / "best").mkdir()
        with pytest.raises(InputError, match=f"would move {names}, and `synset_word_list` is"):
            take_directory(tmp_path, new, {"synset_word_list": names, "pretrained": None})
        assert names.read_text() == "mine"
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("check", [False, True])
def test_groups_stay_together_where_images_went(
    tmp_path: Path, pretrained: Path, check: bool
) -> None:
    images = make_image_folder(tmp_path / "data", 6)
    for path in list(images.rglob("*.jpg")):
        path.rename(path.with_name(f"thing{int(path.stem) // 2}-{path.name}"))
    more = ["--group_pattern", r"(.+)-\d+", *([] if check else ["--no_check"])]
    config = finetune_config(finetune_flags(images, pretrained, tmp_path / "run", *more))
    (tmp_path / "run").mkdir()

    def record() -> growth.Record:
        lists, _ = finetuning._lists_of(finetuning.read_images(config), config)
        assert lists.record is not None
        (tmp_path / "run" / "images.json").write_bytes(lists.record.json())
        return lists.record

    for image in record().images:
        if image.part == "val":  # every class has to get other ones
            (images / image.path).unlink()
    sides: dict[str, set[str]] = {}
    for image in record().images:
        sides.setdefault(image.path.rpartition("-")[0], set()).add(image.part)
    assert {"train", "val"} == set.union(*sides.values())
    assert all(len(parts) == 1 for parts in sides.values())


def test_changes_are_counted_by_content() -> None:
    def images(*pairs: str) -> list[Image]:
        return [Image(f"{i}", pair[0], "train", pair[1:]) for i, pair in enumerate(pairs)]

    for before, after, text in (
        (["a1", "b2"], ["b2", "a1"], "+0 -0, 0 moved"),
        (["a1", "b2"], ["a1", "a2", "b3"], "+1 -0, 1 moved"),
        (["a1", "a1", "b2"], ["a1", "b1", "b2"], "+0 -0, 1 moved"),
        (["a1", "b1"], ["a1", "b1", "b1"], "+1 -0, 0 moved"),
        (["a1", "b2"], ["b1", "a2"], "+0 -0, 2 moved"),
        (["a1", "b2"], ["a3", "b2", "c4"], "+2 -1, 0 moved; new class c"),
        (["a1", "b2", "c1"], ["a1", "b2"], "+0 -1, 0 moved; gone class c"),
        (["a1"], ["b1", "c2"], "+1 -0, 1 moved; new classes b, c; gone class a"),
    ):
        assert describe_changes(images(*before), images(*after)) == f"images: {text}"


def test_a_damaged_record_is_told(grown: Path, pretrained: Path) -> None:
    (grown / "run" / "images.json").write_text("{")
    with pytest.raises(InputError, match=r"images.json: this record of images is damaged"):
        finetune(grown / "images", pretrained, grown / "run")
