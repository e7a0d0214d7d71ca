"""Engines: that each gives the network's logits, which one is taken, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Run, assert_user_error
from networks import VARIANTS, assert_same, name_of, pixels, small_model_dir
from spoiled import spoil_onnxruntime

from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.conversion import build_network
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.loader import Loader
from squeezenet_paddle.data.preprocess import EvalTransform, Preprocess
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.datasets import samples
from squeezenet_paddle.engines import load as engine_loading
from squeezenet_paddle.engines.load import ENGINES, load_engine
from squeezenet_paddle.errors import InputError, RunError
from squeezenet_paddle.export.export import Export, export
from squeezenet_paddle.files import sha256
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.logits import top_k
from squeezenet_paddle.predict import Predictor

FLOAT32 = [name for name, has in ENGINES.items() if "float32" in has]


def drawn(count: int = 8) -> list[np.ndarray]:
    classes = (samples.CLASSES * 8)[:count]
    return [samples.draw(*one, np.random.default_rng((0, i))) for i, one in enumerate(classes)]


def add_exports(model_dir: Path, *kinds: str) -> None:
    """Exports of a model directory: "paddle" and "int8"."""
    info = read_info(model_dir)
    size = info.preprocess.crop_size
    for kind in kinds:
        what = (
            Export("paddle", size) if kind == "paddle" else Export("onnx", size, None, False, kind)
        )
        export(model_dir, info, what, drawn(), model_dir)


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = small_model_dir(tmp_path_factory.mktemp("engines") / "model", VARIANTS[0])
    add_exports(path, "paddle", "int8")
    return path


@pytest.fixture
def model_dir(shared_dir: Path, tmp_path: Path) -> Path:
    """One that a test may change."""
    return Path(shutil.copytree(shared_dir, tmp_path / "model"))


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_engines_give_the_networks_logits(config: ModelConfig, tmp_path: Path) -> None:
    path = small_model_dir(tmp_path / "model", config)
    inputs = pixels(config, 11, 40)
    expected = Predictor(path, "cpu", "dynamic").logits(inputs)
    for name in FLOAT32:
        for threads in (1, 3):
            engine = Predictor(path, "cpu", name, threads=threads)
            assert engine.engine == name
            for count in (0, 1, 2, 11):
                found = engine.logits(inputs[:count])
                assert found.dtype == np.float32
                if count:
                    assert_same(found, expected[:count])
                assert found.shape == (count, 5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_is_near(engine: str, shared_dir: Path) -> None:
    inputs = np.stack([read_info(shared_dir).preprocess(image) for image in drawn(16)])
    expected = Predictor(shared_dir, "cpu", "dynamic").logits(inputs)
    found = Predictor(shared_dir, "cpu", engine, "int8").logits(inputs)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)


def test_logits_do_not_depend_on_the_rest_of_the_batch(shared_dir: Path) -> None:
    inputs = pixels(VARIANTS[0], 9, 40)
    engine = Predictor(shared_dir, "cpu", "onnxruntime", threads=2)
    together = engine.logits(inputs)
    alone = np.concatenate([engine.logits(x[None]) for x in inputs])
    np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(alone).max())


def load(path: Path, name: str = "auto", precision: str = "float32") -> str:
    return load_engine(path, read_info(path), name, precision)[0]


def test_auto_takes_the_first_that_is_installed(
    shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(shared_dir) == "onnxruntime"
    monkeypatch.setattr(engine_loading, "is_installed", lambda name: name != "onnxruntime")
    assert load(shared_dir) == "openvino"
    monkeypatch.setattr(engine_loading, "is_installed", lambda name: name in ("paddle", "dynamic"))
    assert load(shared_dir) == "paddle"
    with pytest.raises(InputError, match="no engine that has int8.* onnxruntime, openvino"):
        load(shared_dir, precision="int8")
    with pytest.raises(InputError, match=r"`engine` openvino: the package openvino is not inst"):
        load(shared_dir, "openvino")


def test_engines_of_float32_need_no_export(tmp_path: Path) -> None:
    path = small_model_dir(tmp_path / "model", VARIANTS[0])
    for name in FLOAT32:
        assert load(path, name) == name
    assert sorted(each.name for each in path.iterdir()) == [
        *("config.json", "model.pdparams", "synset_words.txt"),
    ]
    with pytest.raises(InputError, match="has no int8 export; make it by: squeezenet export"):
        load(path, precision="int8")


def slightly_wrong(logits: np.ndarray) -> np.ndarray:
    return logits * np.float32(1.001)


@pytest.mark.parametrize("threads", [1, 2], ids=["one core", "all cores"])
def test_an_engine_that_disagrees_is_not_taken(
    threads: int,
    shared_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also if only single images are wrong, or only batches."""
    spoil_onnxruntime(monkeypatch, slightly_wrong, threads)
    info = read_info(shared_dir)
    with pytest.raises(RunError, match=r"onnxruntime \d.* does not compute this network here"):
        load_engine(shared_dir, info, "onnxruntime", threads=2)
    assert load_engine(shared_dir, info, threads=2)[0] == "openvino"
    assert "Trying another engine, openvino." in caplog.text


def test_not_a_number_is_not_taken(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_onnxruntime(monkeypatch, lambda logits: logits * np.float32("nan"))
    with pytest.raises(RunError, match="off by nan"):
        load(shared_dir, "onnxruntime")


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_on_a_processor_without_it_is_told(
    supported: bool,
    shared_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engine_loading, "computes_bfloat16", lambda: supported)
    assert load(shared_dir, "openvino", "float32") == "openvino"
    assert not caplog.text
    assert load(shared_dir, "openvino", "bfloat16") == "openvino"
    assert ("no bfloat16 instructions; it uses float32" in caplog.text) != supported


def test_a_precision_that_an_engine_lacks(shared_dir: Path) -> None:
    with pytest.raises(InputError, match=r"`precision` int8: the engine paddle has only float32"):
        load(shared_dir, "paddle", "int8")


def test_an_export_of_other_weights_is_refused(model_dir: Path, tmp_path: Path) -> None:
    other = small_model_dir(tmp_path / "other", VARIANTS[0], seed=1)
    for name in ("model.pdparams", "config.json"):
        shutil.copy(other / name, model_dir)
    with pytest.raises(InputError, match="export is of other weights .* replace it by"):
        load(model_dir, "onnxruntime", "int8")


def test_an_export_of_another_preprocessing_is_refused(model_dir: Path) -> None:
    config = json.loads((model_dir / "config.json").read_text())
    config["preprocess"]["mean"] = [1, 2, 3]
    (model_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="of other weights or another config.json"):
        load(model_dir, "openvino", "int8")


def test_a_changed_file_of_an_export_is_refused(model_dir: Path) -> None:
    name = "model_int8.onnx"
    data = bytearray((model_dir / name).read_bytes())
    data[len(data) // 2] ^= 1
    (model_dir / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match=rf"{name} is not the file that was exported"):
        load(model_dir, "openvino", "int8")


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", '{"paddle": 3}', "[" * 10**5, "", '{"int8": null}', '{"int8": {}}'),
        *('{"int8": {"files": []}}', '{"int8": {"files": {}}}', '{"int8": {"files": null}}'),
        *('{"int8": {"files": {"../../x": ""}}}', '{"int8": {"files": {"/etc/passwd": ""}}}'),
    ],
)
def test_a_damaged_record_of_exports_is_named(model_dir: Path, content: str) -> None:
    (model_dir / "exports.json").write_text(content)
    with pytest.raises(InputError, match=r"exports\.json(, int8)?: "):
        load(model_dir, precision="int8")


def test_an_int8_export_without_its_file_is_named(model_dir: Path) -> None:
    record = json.loads((model_dir / "exports.json").read_text())
    record["int8"]["files"] = {"int8.json": "0"}
    (model_dir / "exports.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"exports\.json, int8: model_int8\.onnx was expected"):
        load(model_dir, precision="int8")


def test_a_program_in_a_model_directory_is_not_run(model_dir: Path) -> None:
    """A static graph may hold any operator, one that writes files too; checksums prove nothing."""
    record = json.loads((model_dir / "exports.json").read_text())
    inputs = pixels(VARIANTS[0], 2, 40)
    expected = Predictor(model_dir, "cpu", "dynamic").logits(inputs)
    for name in record["paddle"]["files"]:
        (model_dir / name).write_bytes(b"a program of somebody else")
        record["paddle"]["files"][name] = sha256(b"a program of somebody else")
    (model_dir / "exports.json").write_text(json.dumps(record))
    assert_same(Predictor(model_dir, "cpu", "paddle").logits(inputs), expected)


def test_infer_without_paddle(shared_dir: Path, tmp_path: Path, run_tool: Run) -> None:
    """With a Paddle that cannot be loaded, ONNX Runtime and OpenVINO do the work."""
    (tmp_path / "paddle.py").write_text("raise ImportError('not here')\n")
    cv2.imwrite(str(tmp_path / "x.png"), drawn(1)[0])
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    arguments = ("--model_dir", shared_dir, "--image", tmp_path / "x.png", "--format", "json")
    answers = []
    for engine in ("auto", "onnxruntime", "openvino"):
        done = run_tool("infer", *arguments, "--engine", engine, env=env)
        assert done.returncode == 0, done.stderr
        answers.append([each["id"] for each in json.loads(done.stdout)[0]["classes"]])
    dynamic = run_tool("infer", *arguments, "--engine", "dynamic")
    expected = [each["id"] for each in json.loads(dynamic.stdout)[0]["classes"]]
    assert answers == [expected] * 3


def test_wrong_arguments(shared_dir: Path, tmp_path: Path, call_tool: Run) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), drawn(1)[0])
    arguments = ("--model_dir", shared_dir, "--image", tmp_path / "x.png")
    done = call_tool("infer", *arguments, "--engine", "paddle", "--precision", "bfloat16")
    assert_user_error(done, "--precision bfloat16: the engine paddle has only float32", "openvino")
    done = call_tool("infer", *arguments, "--engine", "openvino", "--explain", tmp_path / "maps")
    assert_user_error(done, "--explain needs the --engine dynamic")
    assert not (tmp_path / "maps").exists()


def test_photos(assets: Path, tmp_path: Path) -> None:
    """Every engine gives photographs the class that the dynamic network gives them."""
    network = build_network(read_weights(assets / "caffe/squeezenet_v1.1.caffemodel"))
    path = tmp_path / "model"
    write_model_dir(path, ModelInfo(network.config, Preprocess()), network.state_dict())
    images = read_list(assets / "data/photos/val_list.txt", None, 1000)
    transform, sampler = EvalTransform(Preprocess()), Sampler(len(images), 32)
    with Loader(images, transform, sampler, 0, 10**8) as loader:
        batches = [(batch.inputs.copy(), batch.labels) for batch in loader.epoch()]
    inputs, labels = (np.concatenate(parts) for parts in zip(*batches))
    info = read_info(path)
    calibration = [images.path(i) for i in range(0, 300, 15)]
    what = Export("onnx", 227, precision="int8")
    export(path, info, what, [read_image(each) for each in calibration], path)
    expected = Predictor(path, "cpu", "dynamic").logits(inputs[::3])
    for name in FLOAT32[:-1]:
        logits = Predictor(path, "cpu", name).logits(inputs[::3])
        assert np.abs(logits - expected).max() < 1e-3
        assert (top_k(logits, 1) == top_k(expected, 1)).all()
    both = [("onnxruntime", "float32"), ("openvino", "int8")]
    logits, int8 = (Predictor(path, "cpu", *each).logits(inputs) for each in both)
    right, right_int8 = (np.mean(top_k(each, 1)[:, 0] == labels) for each in (logits, int8))
    assert abs(right_int8 - right) <= 0.02
