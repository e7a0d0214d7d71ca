"""squeezenet compress, and its model directories in every other command."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error
from networks import name_of, small_model_dir

from squeezenet_paddle import Predictor
from squeezenet_paddle.caffe import deep_compression
from squeezenet_paddle.cli.compress import main
from squeezenet_paddle.compression import distil
from squeezenet_paddle.compression.memory import Memory
from squeezenet_paddle.compression.rounding import Rounded
from squeezenet_paddle.model_dir import COMPRESSED, CONFIG, read_info, read_weights
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.sqz.format import Content, write
from squeezenet_paddle.sqz.reader import read
from squeezenet_paddle.training.checkpoint import Checkpoint, save

CONFIGS = [
    ModelConfig("1.1", 5, bypass="complex", head="compact"),
    ModelConfig("1.0", 5, bypass="simple", head="conv_bn", activation="elu", data_format="NHWC"),
]
MAX_BYTES = 320_000
DISTIL = ("--max_bytes", MAX_BYTES, "--with_names", "--method", "distil", "--steps", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory, images, and a list of them."""
    folder = tmp_path_factory.mktemp("compress")
    small_model_dir(folder / "model", ModelConfig("1.1", 5))
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for i in range(16):
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), "uint8"), (60, 50))
        cv2.imwrite(str(folder / "images" / f"{i:02}.png"), image)
    lines = [f"images/{i:02}.png {i % 5}\n" for i in range(16)]
    (folder / "list.txt").write_text("".join(lines))
    return folder


def compress(folder: Path, model: str, output: str, *flags: object) -> str:
    """Compresses a model directory of `folder` and gives back what the command prints."""
    printed = io.StringIO()
    paths = (f"--model_dir={folder / model}", f"--image={folder / 'images'}")
    with contextlib.redirect_stdout(printed):
        main([*paths, f"--output_dir={folder / output}", *map(str, flags)])
    return printed.getvalue()


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    """The output of the command that makes `small`."""
    flags = ("--max_bytes", MAX_BYTES, "--with_names", "--test_list", folder / "list.txt")
    return compress(folder, "model", "small", *flags)


@pytest.fixture(scope="module")
def small(folder: Path, printed: str) -> Path:
    """The model directory of `folder`, compressed."""
    return folder / "small"


@dataclasses.dataclass(frozen=True)
class Killed:
    """What a distillation of the same model left that was killed twice.

    Attributes:
        checkpoints: the folder.
        rounded: how many layers the first of its processes rounded, and the second.
        start: the file before its training.
    """

    checkpoints: Path
    rounded: tuple[int, int]
    start: bytes


@pytest.fixture(scope="module")
def killed(folder: Path) -> Killed:
    counts, starts = [0, 0], []
    goes_on = Memory.next

    def dies(memory: Memory, name: str, compute: Callable[[], Rounded]) -> Rounded:
        def counted() -> Rounded:
            if counts[0] == 170:  # the pilot, of six for each layer, is over
                raise KeyboardInterrupt
            counts[0] += 1
            return compute()

        return goes_on(memory, name, counted)

    def counts_on(memory: Memory, name: str, compute: Callable[[], Rounded]) -> Rounded:
        def counted() -> Rounded:
            counts[1] += 1
            return compute()

        return goes_on(memory, name, counted)

    def dies_later(_: object, start: Content, *__: object) -> None:
        starts.append(write(start)[0])
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "distil", dies_later)
        for patched in (dies, counts_on):
            patch.setattr(Memory, "next", patched)
            with pytest.raises(KeyboardInterrupt):
                compress(folder, "model", "killed", *DISTIL, "--threads", 1)
            assert not (folder / "killed").exists()
    return Killed(folder / "killed.checkpoints", (counts[0], counts[1]), starts[0])


def test_a_model_directory_is_written(small: Path, folder: Path) -> None:
    assert sorted(p.name for p in small.iterdir()) == [CONFIG, COMPRESSED, "synset_words.txt"]
    size = (small / COMPRESSED).stat().st_size
    assert 310_000 < size <= MAX_BYTES
    record = json.loads((small / CONFIG).read_text())["source"]["compressed"]
    assert record["bytes"] == size
    assert (record["calibration_images"], record["checked_on_images"]) == (12, 4)
    content = read((small / COMPRESSED).read_bytes(), "model.sqz")
    assert content.names == [f"class {i}" for i in range(5)]
    config = json.loads((folder / "model" / CONFIG).read_text())
    assert content.preprocess == config["preprocess"]


def test_it_gives_nearly_the_same_logits(small: Path, folder: Path) -> None:
    predictors = [Predictor(path, "cpu") for path in (folder / "model", small)]
    image = cv2.imread(str(folder / "images" / "03.png"))
    inputs = predictors[0].info.preprocess(image)[None]
    expected, found = (predictor.logits(inputs)[0] for predictor in predictors)
    assert np.corrcoef(expected, found)[0, 1] > 0.95


def test_the_tables(printed: str, small: Path, folder: Path) -> None:
    lines = printed.splitlines()
    assert lines[0].split() == ["layer", "weights", "bits/weight", "zeros", "error"]
    assert [line.split()[0] for line in lines[1:3]] == ["conv1", "fire2/squeeze1x1"]
    size = (small / COMPRESSED).stat().st_size
    parts = next(line for line in lines if line.startswith("bytes: ")).replace(",", "").split()
    assert sum(int(part) for part in parts if part.isdigit()) == size
    assert any(line.startswith(f"{small}: {size:,} bytes") for line in lines)
    assert any(line.startswith("on 4 images held back: the same first class for") for line in lines)
    assert [line.split(":")[0] for line in lines[-2:]] == ["before", "after"]
    assert "on 16 images" in lines[-1]


def test_nothing_is_random(small: Path, killed: Killed) -> None:
    """A distillation starts from the same file, whatever the number of threads, killed or not."""
    assert killed.start == (small / COMPRESSED).read_bytes()
    first, second = killed.rounded
    assert first == 170
    assert 26 - 14 <= second < first  # what was rounded is not rounded again


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_every_network(config: ModelConfig, folder: Path) -> None:
    name = name_of(config) + config.data_format
    small_model_dir(folder / name, config, crop_size=32)
    compress(folder, name, f"{name}-small", "--max_bytes", 250_000)
    paths = [folder / name, folder / f"{name}-small"]
    states = [read_weights(path, read_info(path)).state for path in paths]
    assert states[0].keys() == states[1].keys()
    for key, values in states[0].items():
        assert states[1][key].shape == values.shape
    image = cv2.imread(str(folder / "images" / "03.png"))
    inputs = read_info(paths[0]).preprocess(image)[None]
    expected, found = (Predictor(path, "cpu").logits(inputs) for path in paths)
    assert np.corrcoef(expected[0], found[0])[0, 1] > 0.9


def test_other_commands_read_it(small: Path, folder: Path, call_tool: Run, tmp_path: Path) -> None:
    lists = ("--test_list", folder / "list.txt")
    assert call_tool("eval", "--model_dir", small, *lists).returncode == 0
    done = call_tool("compare", "--model_dir", folder / "model", small, *lists, "--format", "csv")
    rows = [line.split(",") for line in done.stdout.splitlines()]
    size = rows[0].index("weights_bytes")
    assert int(rows[2][size]) == (small / COMPRESSED).stat().st_size
    for form in ("onnx", "caffe", "paddle"):
        flags = ("--model_dir", small, "--format", form, "--output_dir", tmp_path / form)
        done = call_tool("export", *flags)
        assert done.returncode == 0, done.stderr
    done = call_tool(
        *("train", "--train_list", folder / "list.txt", "--val_list", folder / "list.txt"),
        *("--pretrained", small, "--max_steps", 1, "--batch_size", 8, "--num_workers", 0),
        *("--output_dir", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr


def test_distilled(folder: Path, killed: Killed) -> None:
    shutil.copytree(killed.checkpoints, folder / "distilled.checkpoints")
    text = compress(folder, "model", "distilled", *DISTIL)
    assert "on 4 images held back: the same first class for" in text
    assert text.splitlines()[0].split() == ["layer", "weights", "bits/weight", "zeros"]
    data = (folder / "distilled" / COMPRESSED).read_bytes()
    size = len(data)
    assert 310_000 < size <= MAX_BYTES
    assert size == len(killed.start)
    assert data != killed.start
    record = json.loads((folder / "distilled" / CONFIG).read_text())["source"]["compressed"]
    assert (record["method"], record["steps"], record["bytes"]) == ("distil", 2, size)
    assert not (folder / "distilled.checkpoints").exists()


def test_only_checkpoints_of_the_run_are_used_and_removed(
    folder: Path, killed: Killed, call_tool: Run
) -> None:
    output = folder / "other"
    checkpoints = folder / "other.checkpoints"
    save(checkpoints, Checkpoint(1, {"x": np.zeros(1)}, {"of": "a training"}), keep=2)
    (checkpoints / "notes.txt").write_text("the user's own")
    command = ("compress", "--model_dir", folder / "model", "--image", folder / "images")
    done = call_tool(*command, "--output_dir", output, *DISTIL)
    assert_user_error(done, f"{checkpoints} holds checkpoints of another compression; remove it")
    [file] = checkpoints.glob("*.ckpt")
    file.write_bytes(b"damaged")
    done = call_tool(*command, "--output_dir", output, *DISTIL)
    expected = "none of its 1 checkpoints can be used; remove that folder to start from scratch."
    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"{checkpoints}: {expected}")
    assert sorted(path.name for path in checkpoints.iterdir()) == ["notes.txt", file.name]
    assert not output.exists()
    file.unlink()
    shutil.copytree(killed.checkpoints / "rounded", checkpoints / "rounded")
    compress(folder, "model", "other", *DISTIL)
    assert [path.name for path in checkpoints.iterdir()] == ["notes.txt"]


def test_infer_without_paddle(small: Path, folder: Path, tmp_path: Path, run_tool: Run) -> None:
    """With a Paddle that cannot be loaded, model.sqz gives the classes that it gives with it."""
    (tmp_path / "paddle.py").write_text("raise ImportError('not here')\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    image = folder / "images" / "03.png"
    done = run_tool(
        "infer", "--model_dir", small, "--image", image, "--format", "json", "--top_k", 5, env=env
    )
    assert done.returncode == 0, done.stderr
    [answer] = json.loads(done.stdout)
    inputs = read_info(small).preprocess(cv2.imread(str(image)))[None]
    [logits] = Predictor(small, "cpu", "dynamic").logits(inputs)
    order = [each["id"] for each in answer["classes"]]
    np.testing.assert_allclose(logits[order], np.sort(logits)[::-1], rtol=1e-4, atol=1e-6)


# Mistakes


def test_damaged_weights_are_named(small: Path, folder: Path, call_tool: Run) -> None:
    shutil.copytree(small, folder / "damaged")
    file = folder / "damaged" / COMPRESSED
    file.write_bytes(file.read_bytes()[:-1])
    done = call_tool("eval", "--model_dir", file.parent, "--test_list", folder / "list.txt")
    assert_user_error(done, f"{file}: this .sqz file should have")


def test_other_weights_than_described_are_refused(
    folder: Path, small: Path, call_tool: Run
) -> None:
    shutil.copytree(small, folder / "mixed")
    config = json.loads((folder / "mixed" / CONFIG).read_text())
    config["network"]["bypass"] = "simple"
    (folder / "mixed" / CONFIG).write_text(json.dumps(config))
    done = call_tool("eval", "--model_dir", folder / "mixed", "--test_list", folder / "list.txt")
    assert_user_error(done, "it holds another network than config.json describes")
    shutil.copy(folder / "model" / "model.pdparams", folder / "mixed")
    done = call_tool("eval", "--model_dir", folder / "mixed", "--test_list", folder / "list.txt")
    assert_user_error(done, "it has both model.pdparams and model.sqz; remove one")


def test_the_format_of_deep_compression_too(tmp_path: Path, folder: Path) -> None:
    small_model_dir(tmp_path / "model", ModelConfig("1.0", 1000))
    flags = [f"--image={folder / 'images' / '0[0-3].png'}", "--max_bytes=500000", "--to=net"]
    main([f"--model_dir={tmp_path / 'model'}", *flags, f"--output_dir={tmp_path / 'small'}"])
    found = deep_compression.parse((tmp_path / "small" / "model.net").read_bytes(), "model.net")
    expected = read((tmp_path / "small" / COMPRESSED).read_bytes(), "model.sqz").state
    for key, values in expected.items():
        if len(np.unique(values)) <= 256:
            np.testing.assert_array_equal(found[key], values, err_msg=key)
        else:
            assert np.abs(found[key] - values).max() <= np.ptp(values) / 254


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_bytes", "5000"], "--max_bytes 5,000: at least"),
        (["--to", "net"], "only a v1.0 of 1,000 classes"),
        (["--max_loss", "0"], "above 0 and at most 100 was expected"),
        (["--max_loss", "1", "--max_bytes", "9"], "not allowed with"),
        (["--num_images", "3"], "--image: at least 4 images were expected"),
        (["--steps", "9"], "--steps are those of --method distil"),
        (["--method", "distil", "--max_loss", "1"], "--max_loss is found by the --method post"),
        (["--data_dir", "x"], "--data_dir is where the paths of --test_list start"),
    ],
)
def test_mistakes(flags: list[str], message: str, folder: Path, call_tool: Run) -> None:
    done = call_tool(
        *("compress", "--model_dir", folder / "model", "--image", folder / "images"),
        *("--output_dir", folder / "none", *flags),
    )
    assert_user_error(done, message)
    assert not (folder / "none").exists()


def test_the_model_itself_is_not_overwritten(folder: Path, call_tool: Run) -> None:
    model = folder / "model"
    done = call_tool(
        *("compress", "--model_dir", model, "--image", folder / "images", "--output_dir", model)
    )
    assert_user_error(done, "this is --model_dir, give another")
