"""Exports, run by the programs that they are for; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import paddle
import pytest
from conftest import Run, assert_user_error
from networks import (
    VARIANTS,
    assert_same,
    logits_of,
    name_of,
    network_of,
    pixels,
    random_state,
    small_model_dir,
    state_of,
)

from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.caffe.writer import caffemodel, deploy_prototxt
from squeezenet_paddle.cli.export import main
from squeezenet_paddle.conversion import build_network
from squeezenet_paddle.datasets import samples
from squeezenet_paddle.engines.paddle_inference import compile_paddle
from squeezenet_paddle.errors import InputError, RunError
from squeezenet_paddle.export.export import Export, export
from squeezenet_paddle.model_dir import load_network, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig, layers
from squeezenet_paddle.onnx.quantise import read_constants, step_and_zero


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model_dir(tmp_path_factory.mktemp("export") / "model", VARIANTS[0])


@pytest.fixture
def model_dir(shared_dir: Path, tmp_path: Path) -> Path:
    """One that a test may change."""
    return Path(shutil.copytree(shared_dir, tmp_path / "model"))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rngs = [np.random.default_rng((0, i)) for i in range(10)]
    return [samples.draw(*one, rng) for one, rng in zip(samples.CLASSES * 10, rngs)]


def by_opencv(prototxt: Path, weights: Path, inputs: np.ndarray, last: str) -> np.ndarray:
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    net.setInput(inputs)
    return net.forward(last).reshape(len(inputs), -1)


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
@pytest.mark.parametrize("size", [40, 43])
def test_caffe_files_in_opencv(config: ModelConfig, size: int, tmp_path: Path) -> None:
    network = network_of(config)
    state = state_of(network)
    files = tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel"
    files[0].write_text(deploy_prototxt(config, size, size, 3))
    files[1].write_bytes(caffemodel(config, state, size, size, 3))
    inputs = pixels(config, 3, size)
    nchw = inputs if config.data_format == "NCHW" else inputs.transpose(0, 3, 1, 2)
    found = by_opencv(*files, np.ascontiguousarray(nchw), layers(config)[-1].name)
    assert_same(found, logits_of(network, inputs))


def test_a_round_trip_through_caffe_changes_no_bit(tmp_path: Path) -> None:
    for config in (ModelConfig(num_classes=5), ModelConfig("1.0", 5, bypass="complex")):
        state = random_state(config)
        (tmp_path / "net.caffemodel").write_bytes(caffemodel(config, state))
        network = build_network(read_weights(tmp_path / "net.caffemodel"))
        back = state_of(network)
        assert set(back) == set(state)
        assert all((back[key] == state[key]).all() for key in state)


def test_paddle(model_dir: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    info = read_info(model_dir)
    result = export(model_dir, info, Export("paddle", 40), images, tmp_path / "out")
    assert result.same_top1 == result.images == 10
    assert result.relative < 1e-5
    inputs = pixels(info.network, 7, 40)
    run = compile_paddle(*result.files, threads=1)
    assert_same(run(inputs)[0], logits_of(load_network(model_dir, info), inputs))
    record = json.loads((tmp_path / "out" / "exports.json").read_text())
    assert list(record) == ["paddle"]
    assert set(record["paddle"]["files"]) == {file.name for file in result.files}


@pytest.mark.parametrize("kind", ["paddle", "onnx"])
def test_pixels_to_logits(
    kind: str, model_dir: Path, images: list[np.ndarray], tmp_path: Path
) -> None:
    """Preprocessing in the graph, for another size and a batch of its own."""
    info = read_info(model_dir)
    what = Export(kind, 56, batch=4, with_preprocess=True)
    result = export(model_dir, info, what, images, tmp_path / "out")
    assert result.same_top1 == 10
    pixels = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), "uint8")
    if kind == "paddle":
        logits = compile_paddle(*result.files, threads=1)(pixels)[0]
    else:
        onnx.checker.check_model(str(result.files[0]), full_check=True)
        session = onnxruntime.InferenceSession(str(result.files[0]))
        [logits] = session.run(None, {"pixels": pixels})
    mean, scale = np.array(info.preprocess.mean, "float32"), np.float32(info.preprocess.scale)
    inputs = np.ascontiguousarray((pixels * scale - mean).transpose(0, 3, 1, 2))
    assert_same(logits, logits_of(load_network(model_dir, info), inputs))


@pytest.mark.parametrize("kind", ["paddle", "onnx", "caffe"])
def test_an_export_that_gives_other_logits_is_not_written(
    kind: str,
    model_dir: Path,
    images: list[np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The writers get weights in which one bias is different."""
    from squeezenet_paddle.engines import static_graph
    from squeezenet_paddle.export import export as module

    def changed(weights: object) -> dict[str, np.ndarray]:
        state = {key: value.copy() for key, value in weights.items()}  # type: ignore[attr-defined]
        state["fire5.squeeze1x1.bias"] += 0.5
        return state

    if kind == "paddle":
        original = static_graph.save_static_graph

        def write(network, *args):  # type: ignore[no-untyped-def]
            network.set_state_dict(changed(state_of(network)))
            return original(network, *args)

        monkeypatch.setattr(static_graph, "save_static_graph", write)
    else:
        name = {"onnx": "onnx_model", "caffe": "caffemodel"}[kind]
        writer = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda c, state, *args, **kw: writer(c, changed(state), *args, **kw)
        )
    with pytest.raises(RunError, match=r"gives other logits than the network.*nothing was written"):
        export(model_dir, read_info(model_dir), Export(kind, 40), images, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_tool(
    model_dir: Path, tmp_path: Path, images: list[np.ndarray], call_tool: Run
) -> None:
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    arguments = ("--model_dir", model_dir, "--image", tmp_path / "*.png", "--format")
    for kind, names in (
        ("onnx", ["model.onnx"]),
        ("caffe", ["deploy.prototxt", "model.caffemodel"]),
    ):
        done = call_tool("export", *arguments, kind)
        assert done.returncode == 0, done.stderr
        *written, report = done.stdout.splitlines()
        assert [Path(line.split("  ")[0]) for line in written] == [model_dir / n for n in names]
        assert report.startswith("checked by ")
        assert "on 10 images: largest difference" in report
        assert report.endswith("the same first class for 10")
    done = call_tool("export", *arguments, "onnx", "--precision", "int8")
    assert done.returncode == 0, done.stderr
    record = json.loads((model_dir / "exports.json").read_text())
    assert list(record) == ["onnx", "caffe", "int8"]
    assert (model_dir / "model_int8.onnx").stat().st_size < 1_000_000
    assert not list(model_dir.glob(".*"))


def test_int8_says_how_many_images_it_is_fitted_to_and_checked_on(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(70):
        image = np.random.default_rng(i).integers(0, 200, (12, 12, 3), "uint8")
        cv2.imwrite(str(folder / f"{i:02}.png"), image)
    arguments = ["--model_dir", str(model_dir), "--format", "onnx", "--image", str(folder)]
    for count, precision in ((0, "float32"), (64, "int8")):
        main([*arguments, "--precision", precision])
        out = capsys.readouterr().out
        assert ("int8: fitted to 64 images" in out) == (count > 0)
        assert " on 32 images: largest difference" in out
        entry = json.loads((model_dir / "exports.json").read_text())[
            "onnx" if precision == "float32" else precision
        ]
        assert (entry["check"]["calibrated"], entry["check"]["images"]) == (count, 32)
    info, file = read_info(model_dir), model_dir / "model_int8.onnx"
    constants = read_constants(file.read_bytes(), info.network, file.name)
    step, zero = step_and_zero(*info.preprocess.limits)  # of all pixels, not of these images
    np.testing.assert_array_equal(constants["data/scale"], step)
    np.testing.assert_array_equal(constants["data/zero"], zero)
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "32 to check the export, 64 to fit int8 to" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "caffe", "--with_preprocess"], "--with_preprocess: Caffe has no layers"),
        (
            ["--format", "paddle", "--precision", "int8", "--image", "."],
            "only the --format onnx has it",
        ),
        (["--format", "onnx", "--precision", "int8"], "--precision int8 needs --image"),
        (["--format", "onnx", "--input_size", "16"], "at least 17x17 pixels"),
        (["--format", "onnx", "--batch", "0"], "--batch"),
        (["--format", "onnx", "--image", "/nowhere"], "no file matches it as a glob: /nowhere"),
        (["--format", "onnx", "--output_dir", "{file}"], "{file}"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, model_dir: Path, tmp_path: Path, run_tool: Run
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    before = sorted(model_dir.iterdir())
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((50, 50, 3), "uint8"))
    arguments = [a.format(file=file) if a != "." else str(tmp_path) for a in arguments]
    done = run_tool("export", "--model_dir", model_dir, *arguments)
    assert_user_error(done, message.format(file=file))
    assert sorted(model_dir.iterdir()) == before


def test_a_missing_package_is_named(
    model_dir: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from squeezenet_paddle.engines import load

    monkeypatch.setattr(load, "is_installed", lambda name: False)
    with pytest.raises(InputError, match=r"checked by ONNX Runtime: the package onnxruntime is"):
        export(model_dir, read_info(model_dir), Export("onnx", 40), images, model_dir)
    assert not (model_dir / "model.onnx").exists()


def test_training_into_it_again_removes_exports(model_dir: Path, images: list[np.ndarray]) -> None:
    """Rewriting a model directory leaves no export of the old weights."""
    info = read_info(model_dir)
    export(model_dir, info, Export("onnx", 40), images, model_dir)
    small_model_dir(model_dir, VARIANTS[0], seed=1)
    assert not (model_dir / "model.onnx").exists()
    assert not (model_dir / "exports.json").exists()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_authors_weights_back_in_caffe(version: str, assets: Path, tmp_path: Path) -> None:
    """caffe -> paddle -> caffe -> OpenCV: the same numbers as from the authors' files."""
    theirs = (
        assets / f"caffe/deploy_v{version}.prototxt",
        assets / f"caffe/squeezenet_v{version}.caffemodel",
    )
    network = build_network(read_weights(theirs[1]))
    ours = tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel"
    for size in (224, 227):
        ours[0].write_text(deploy_prototxt(network.config, size, size))
        ours[1].write_bytes(caffemodel(network.config, state_of(network)))
        inputs = np.random.default_rng(0).uniform(-120, 150, (1, 3, size, size)).astype("float32")
        expected = by_opencv(*theirs, inputs, "pool10")
        assert (by_opencv(*ours, inputs, "pool10") == expected).all()


def test_a_model_that_is_replaced_while_it_is_exported(
    model_dir: Path, images: list[np.ndarray]
) -> None:
    """As by a training with its next best one."""

    class Replacing(list[np.ndarray]):
        def __iter__(self) -> Iterator[np.ndarray]:  # after the weights have been read
            info = read_info(model_dir)
            state = {k: v + 1 for k, v in state_of(load_network(model_dir, info)).items()}
            write_model_dir(model_dir, info, {k: paddle.to_tensor(v) for k, v in state.items()})
            return super().__iter__()

    info = read_info(model_dir)
    what = Export("onnx", info.preprocess.crop_size)
    with pytest.raises(RunError, match=r"was replaced by another one while it was exported"):
        export(model_dir, info, what, Replacing(images), model_dir)
    assert not (model_dir / "model.onnx").exists()
    assert not (model_dir / "exports.json").exists()
