"""Comparing models: the table against its parts, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from squeezenet_paddle.cli.compare import main
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.evaluation.compare import (
    Candidate,
    Row,
    as_csv,
    check_comparable,
    markdown,
    table,
    text,
)
from squeezenet_paddle.evaluation.evaluate import Evaluation, evaluate
from squeezenet_paddle.evaluation.metrics import Predictions
from squeezenet_paddle.export_record import ONNX_INT8
from squeezenet_paddle.model_dir import WEIGHTS, ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet

ROWS = [
    Row(
        model="a|b",
        network="v1.1 at 227",
        engine="auto",
        precision="int8",
        top1=0.5,
        top5=0.75,
        loss=1.25,
        weights_bytes=4_946_364,
        parameters=1_235_496,
        multiply_adds=387_747_520,
        images_per_second=40.25,
        agreement=(1, 0.5),
    ),
    Row(
        model="long/name",
        network="v1.0 at 227",
        engine="auto",
        precision="int8",
        top1=1,
        top5=1,
        loss=0.5,
        weights_bytes=4_998_076,
        parameters=1_248_424,
        multiply_adds=861_339_936,
        images_per_second=9.5,
        agreement=(0.5, 1),
    ),
]


def info(names: list[str] | None = None, **config: object) -> ModelInfo:
    return ModelInfo(ModelConfig(**config), Preprocess(), names)


def evaluation(predicted: list[int], labels: list[int]) -> Evaluation:
    logits = np.eye(4, dtype="float32")[predicted]
    return Evaluation(
        Predictions.from_logits(np.arange(len(labels)), logits, np.array(labels)), [], 1.0
    )


def test_a_table_by_hand(tmp_path: Path) -> None:
    infos = [
        info(num_classes=4),
        info(num_classes=4, version="1.0", bypass="simple", head="conv_bn"),
    ]
    paths = [tmp_path / "one", tmp_path / "two"]
    for size, path in enumerate(paths, 100):
        path.mkdir()
        (path / WEIGHTS).write_bytes(bytes(size))
    (paths[1] / ONNX_INT8).write_bytes(bytes(30))
    candidates = [
        Candidate(paths[0], infos[0], "dynamic"),
        Candidate(paths[1], infos[1], "openvino", "int8"),
    ]
    labels = [0, 1, 2, 3]
    evaluations = [evaluation([0, 1, 2, 0], labels), evaluation([0, 0, 2, 0], labels)]
    rows = table(candidates, evaluations, [10.0, 5.0])
    assert [row.model for row in rows] == [str(path) for path in paths]
    assert [row.network for row in rows] == ["v1.1 at 227", "v1.0 simple bypass conv_bn at 227"]
    assert [row.top1 for row in rows] == [0.75, 0.5]
    assert [row.weights_bytes for row in rows] == [100, 30]
    assert [row.engine for row in rows] == ["dynamic", "openvino"]
    assert [row.precision for row in rows] == ["float32", "int8"]
    assert [row.images_per_second for row in rows] == [10, 5]
    assert [row.agreement for row in rows] == [(1, 0.75), (0.75, 1)]
    # v1.1 of 1,000 classes has 387,747,520; its conv10 has 512 x 14 x 14 a class.
    assert rows[0].multiply_adds == 387_747_520 - 996 * 512 * 14 * 14
    assert rows[0].parameters == 1_235_496 - 996 * 513


def test_text_is_aligned() -> None:
    lines = text(ROWS).splitlines()
    cells = "1 a|b v1.1 at 227 auto int8 50.00% 75.00% 1.2500 4.95 MB 1,235,496 388 M 40.2 100.00%"
    assert lines[1].split() == [*cells.split(), "50.00%"]
    assert len({len(line) for line in lines}) == 1
    assert lines[0].index("network") == lines[1].index("v1.1") == lines[2].index("v1.0")


def test_the_second_accuracy_is_named_after_what_it_counts() -> None:
    for k in (2, 5):
        for table_of in (text, markdown):
            head = table_of(ROWS, k).splitlines()[0]
            assert f"top-{k}" in head
            assert f"top-{7 - k}" not in head
        assert as_csv(ROWS, k) == as_csv(ROWS)


def test_markdown_keeps_its_columns_whatever_a_name_holds() -> None:
    lines = markdown(ROWS).splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert r"| 1 | a\|b | v1.1 at 227 | auto int8 | 50.00% |" in lines[2]
    assert set(lines[1]) == set("|:- ")


def test_csv_is_exact() -> None:
    rows = list(csv.DictReader(as_csv(ROWS).splitlines()))
    assert [row["model"] for row in rows] == ["a|b", "long/name"]
    assert rows[0]["multiply_adds"] == "387747520"
    assert float(rows[0]["images_per_second"]) == 40.25
    assert float(rows[0]["agreement with long/name auto int8"]) == 0.5


def test_models_of_other_classes_are_refused() -> None:
    paths = [Path("a"), Path("b"), Path("c")]
    infos = [info(num_classes=2), info(["x", "y"], num_classes=2), info(["x", "z"], num_classes=2)]
    check_comparable(paths[:2], infos[:2])  # one of them knows no names
    with pytest.raises(InputError, match="class 1 is 'y' in b and 'z' in c.*`synset_word_list`"):
        check_comparable(paths, infos)
    with pytest.raises(InputError, match="a has 2 and b has 3"):
        check_comparable(paths, [info(num_classes=2), info(num_classes=3)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that differ in network, preprocessing and names; images and a list of them."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "one": (
            ModelConfig(num_classes=3),
            Preprocess(resize_size=40, crop_size=33),
            ["x", "y", "z"],
        ),
        "two": (
            ModelConfig(num_classes=3, version="1.0", data_format="NHWC"),
            Preprocess("short_side", 60, crop_size=50, channel_order="RGB", data_format="NHWC"),
            ["x", "y", "Z"],
        ),
    }
    for seed, (name, (config, preprocess, names)) in enumerate(made.items()):
        paddle.seed(seed)
        state = SqueezeNet(config).state_dict()
        write_model_dir(folder / name, ModelInfo(config, preprocess, names), state)
    rng = np.random.default_rng(0)
    lines = []
    for i in range(5):
        image = rng.integers(0, 256, (60, 80, 3), "uint8")
        (folder / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        lines.append(f"{i}.png {i % 3}\n")
    (folder / "list.txt").write_text("".join(lines))
    (folder / "names.txt").write_text("x\ny\nz\n")
    return folder


def compared(capsys: pytest.CaptureFixture, *arguments: object) -> list[dict[str, str]]:
    main([*map(str, arguments), "--format", "csv"])
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def test_compare(models: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ("--model_dir", models / "one", models / "two", "--test_list", models / "list.txt")
    with pytest.raises(InputError, match="class 2 is 'z'.*'Z'"):
        main([*map(str, arguments)])
    one, two = compared(capsys, *arguments, "--synset_word_list", models / "names.txt")
    names = [" ".join(row[key] for key in ("model", "engine", "precision")) for row in (one, two)]
    assert one[f"agreement with {names[1]}"] == two[f"agreement with {names[0]}"]
    for name, row in zip(names, (one, two)):
        assert float(row[f"agreement with {name}"]) == 1
        assert float(row["images_per_second"]) > 0
    assert [row["network"] for row in (one, two)] == ["v1.1 at 33", "v1.0 at 50"]
    scores = evaluate(models / "two", models / "list.txt")
    assert float(two["top1"]) == scores["top1"]
    assert float(two["loss"]) == pytest.approx(scores["loss"])


def test_compare_engines(models: Path, capsys: pytest.CaptureFixture) -> None:
    dynamic, other = compared(
        capsys,
        *("--model_dir", models / "one", "--test_list", models / "list.txt"),
        *("--engine", "dynamic", "onnxruntime"),
    )
    assert [dynamic["engine"], other["engine"]] == ["dynamic", "onnxruntime"]
    assert float(dynamic[f"agreement with {models}/one onnxruntime float32"]) == 1
    assert float(dynamic["loss"]) == pytest.approx(float(other["loss"]), abs=1e-5)


def test_compare_leaves_out_what_cannot_be_read(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "list.txt").write_text("gone.png 0\n" + (models / "list.txt").read_text())
    arguments = ("--test_list", tmp_path / "list.txt", "--data_dir", models)
    [row] = compared(capsys, "--model_dir", models / "one", *arguments, "--skip_unreadable")
    [expected] = compared(capsys, "--model_dir", models / "one", "--test_list", models / "list.txt")
    assert [row["top1"], row["loss"]] == [expected["top1"], expected["loss"]]
    main([*map(str, ("--model_dir", models / "one", "--test_list", models / "list.txt"))])
    assert "top-3" in capsys.readouterr().out
