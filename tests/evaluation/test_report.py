"""The report: every number against its source, every link against the folder, any name."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle import __version__
from squeezenet_paddle.cli import compare
from squeezenet_paddle.cli.common import with_flags
from squeezenet_paddle.cli.eval import main
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.datasets.folders import labelled_images
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.evaluation import plots
from squeezenet_paddle.evaluation.evaluate import Evaluation, score_list
from squeezenet_paddle.evaluation.metrics import Predictions
from squeezenet_paddle.evaluation.report import (
    Report,
    check_report_target,
    report_of,
    write_report,
)
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.predict import Predictor

NAMES = ["<b>cat</b> & dog", 'a "quoted", name', "größe 猫", "=1+1"]
LABELS = [0, 0, 1, 2, 2, 2]
LOGITS = np.log(
    np.array(
        [
            [0.7, 0.1, 0.1, 0.1],
            [0.2, 0.6, 0.1, 0.1],
            [0.1, 0.8, 0.05, 0.05],
            [0.3, 0.1, 0.5, 0.1],
            [0.9, 0.02, 0.04, 0.04],
            [0.5, 0.2, 0.2, 0.1],
        ]
    )
)
FILES = {
    *("report.html", "metrics.json", "per_class.csv", "confused_pairs.csv", "reliability.png"),
    *("confusion_matrix.csv", "confusion_matrix.png", "confidently_wrong.png"),
}


class Page(HTMLParser):
    """What a page links, embeds and shows, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: dict[str, str] = {}  # sources by alternative text
        self.ids: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.links += [values["href"]] if "href" in values else []
        self.ids |= {values["id"]} if "id" in values else set()
        if "src" in values:
            assert tag == "img"
            self.images[values["alt"]] = values["src"]
        if tag not in ("img", "meta"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "script" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def page_of(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def embedded(source: str) -> bytes:
    head, _, data = source.partition(";base64,")
    assert head in ("data:image/png", "data:image/jpeg")
    return base64.b64decode(data, validate=True)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Six images of three of four classes, three of them wrong."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i} & <{i}>.png" for i in range(len(LABELS))]
    for i, path in enumerate(paths):
        path.write_bytes(cv2.imencode(".png", np.full((8, 9, 3), 40 * i, "uint8"))[1].tobytes())
    predictions = Predictions.from_logits(np.arange(6), LOGITS.astype("float32"), np.array(LABELS))
    evaluation = Evaluation(predictions, ["list, line 7: <gone>.jpg"], 2.0)
    return Report(evaluation, ImageList.of_paths(paths), 4, NAMES, {"model": "the <model>"})


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_numbers_by_hand(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "report", report)
    text = (tmp_path / "report" / "metrics.json").read_text()
    found = json.loads(text, parse_constant=no_constant)
    assert (found["images"], found["top1"], found["top5"]) == (6, 0.5, 1.0)
    probabilities = [0.7, 0.2, 0.8, 0.5, 0.04, 0.2]
    assert found["loss"] == pytest.approx(-np.log(probabilities).mean(), rel=1e-6)
    assert found["images_per_second"] == 3.0
    assert found["unreadable"] == ["list, line 7: <gone>.jpg"]
    assert found["facts"] == {"model": "the <model>"}
    assert found["macro"]["recall"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    # Five of the six images are alone in their bin, 0.5 and 0.5 share one.
    distances = 0.3 + 0.6 + 0.2 + 0.9 + abs(1 - 2 * 0.5)
    assert found["expected_calibration_error"] == pytest.approx(distances / 6, rel=1e-5)
    assert sum(row["images"] for row in found["calibration"]) == 6
    assert found["classes"] == [
        {
            **{"id": i, "name": name, "precision": precision, "recall": recall, "f1": f1},
            **{"support": support, "predicted": predicted},
        }
        for i, (name, precision, recall, f1, support, predicted) in enumerate(
            [
                (NAMES[0], 1 / 3, 1 / 2, pytest.approx(0.4), 2, 3),
                (NAMES[1], 1 / 2, 1.0, pytest.approx(2 / 3), 1, 2),
                (NAMES[2], 1.0, 1 / 3, 0.5, 3, 1),
                (NAMES[3], None, None, None, 0, 0),
            ]
        )
    ]
    assert [(p["label"], p["predicted"], p["images"]) for p in found["confused_pairs"]] == [
        *((2, 0, 2), (0, 1, 1)),
    ]
    wrong = found["confidently_wrong"]
    assert [Path(w["image"]).name[0] for w in wrong] == ["4", "1", "5"]
    assert [w["confidence"] for w in wrong] == pytest.approx([0.9, 0.6, 0.5])
    assert wrong[0]["label_name"] == NAMES[2]


def test_tables_hold_any_name(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(folder, report)
    with (folder / "confusion_matrix.csv").open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    assert head[1:] == [row[0] for row in rows] == NAMES
    assert [[int(n) for n in row[1:]] for row in rows] == [
        *([1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]),
    ]
    classes = rows_of(folder / "per_class.csv")
    assert [row["name"] for row in classes] == NAMES
    assert float(classes[2]["recall"]) == 1 / 3
    assert classes[3]["recall"] == ""
    pairs = rows_of(folder / "confused_pairs.csv")
    assert [(p["label_name"], p["predicted_name"]) for p in pairs] == [
        *((NAMES[2], NAMES[0]), (NAMES[0], NAMES[1])),
    ]


def test_the_page_needs_no_other_file(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(folder, report)
    assert {file.name for file in folder.iterdir()} == FILES
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = page_of(folder)
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors <= page.ids
    assert len(anchors) == 6
    assert {link for link in page.links if not link.startswith("#")} == FILES - {"report.html"}
    for remote in ("url(", "@import", "http:", "https:", "<link"):
        assert remote not in text
    for name in ("confusion matrix", "accuracy over confidence"):
        assert embedded(page.images[name]) in [f.read_bytes() for f in folder.glob("*.png")]


def test_the_page_holds_any_name(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "report", report)
    page = page_of(tmp_path / "report")
    assert "the <model>" in page.text
    pairs, _, classes = page.tables
    assert pairs[1] == ["2", NAMES[2], NAMES[0]]
    # Class 3 has no images.
    assert [row[1] for row in classes[1:4]] == NAMES[:3]
    assert "3 of the 4 classes have images" in page.text
    assert len(classes) == 1 + 3 + 2
    assert classes[1][2:] == ["33.33%", "50.00%", "40.00%", "2", "3"]
    assert [row[1] for row in classes[4:]] == ["mean of the classes", "weighted by images"]
    assert "line 7: <gone>.jpg" in page.text


def test_classes_without_images_are_only_counted(report: Report, tmp_path: Path) -> None:
    labels = np.array([0, 0, 1])
    logits = np.eye(4, dtype="float32")[[0, 3, 2]]
    predictions = Predictions.from_logits(np.arange(3), logits, labels)
    few = dataclasses.replace(report, evaluation=Evaluation(predictions, [], 1.0))
    write_report(tmp_path / "report", few)
    page = page_of(tmp_path / "report")
    assert [row[1] for row in page.tables[-1][1:3]] == NAMES[:2]
    assert "2 of the 4 classes" in page.text
    assert "one of the others: 2." in page.text


def test_the_page_shows_the_images_of_errors(report: Report, tmp_path: Path) -> None:
    large = np.zeros((900, 1200, 3), "uint8")
    large[:, 600:] = (0, 0, 255)
    report.images.path(4).write_bytes(cv2.imencode(".png", large)[1].tobytes())
    write_report(tmp_path / "report", report)
    page = page_of(tmp_path / "report")
    shown = {}
    for index in (4, 1, 5):
        data = embedded(page.images[report.images.name(index)])
        shown[index] = cv2.imdecode(np.frombuffer(data, "uint8"), 1)
    assert abs(shown[1].astype(int) - 40).max() <= 2
    assert shown[1].shape == (8, 9, 3)  # smaller ones are not enlarged
    assert shown[4].shape == (300, 400, 3)
    assert abs(shown[4][150, [20, 380]].astype(int) - [(0, 0, 0), (0, 0, 255)]).max() < 9


def test_the_page_says_when_and_with_what(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "report", report)
    text = page_of(tmp_path / "report").text
    assert re.search(r"20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}", text)
    assert f"squeezenet_paddle {__version__}" in text
    assert f"numpy {np.__version__}" in text
    assert f"OpenCV {cv2.__version__}" in text


def test_training_curves_are_in_the_page(report: Report, tmp_path: Path) -> None:
    write_report(tmp_path / "report", report)
    assert "training" not in page_of(tmp_path / "report").ids
    curves = cv2.imencode(".png", np.full((9, 9, 3), 77, "uint8"))[1].tobytes()
    (tmp_path / "curves.png").write_bytes(curves)
    write_report(tmp_path / "report", dataclasses.replace(report, curves=tmp_path / "curves.png"))
    page = page_of(tmp_path / "report")
    assert embedded(page.images["training curves"]) == curves
    assert "training" in page.ids


@pytest.mark.parametrize(
    ("counts", "hits", "hinted"),
    [
        ((30, 30, 9), (30, 30, 3), True),
        ((30, 30, 9), (30, 30, 9), False),  # rare, and recognised
        ((30, 30, 20), (30, 30, 5), False),  # not rare
        ((30, 30, 3), (30, 30, 0), False),  # too few to say
    ],
)
def test_balance_is_suggested_where_a_rare_class_is_worse(
    counts: tuple, hits: tuple, hinted: bool, report: Report, tmp_path: Path
) -> None:
    labels = np.repeat(np.arange(3), counts)
    right = np.concatenate([np.arange(n) < hit for n, hit in zip(counts, hits)])
    logits = np.eye(4, dtype="float32")[np.where(right, labels, 0)]
    predictions = Predictions.from_logits(np.arange(len(labels)), logits, labels)
    images = ImageList.of_paths([report.images.path(0)] * len(labels))
    write_report(tmp_path / "report", Report(Evaluation(predictions, [], 1.0), images, 4, NAMES))
    text = page_of(tmp_path / "report").text
    assert ("--balance" in text) == hinted
    assert (f"{NAMES[2]} ({hits[2] / counts[2]:.2%} of {counts[2]} images)" in text) == hinted


def test_without_an_error_there_are_no_images_of_errors(report: Report, tmp_path: Path) -> None:
    right = Predictions.from_logits(
        np.arange(2), LOGITS[[0, 2]].astype("float32"), np.array([0, 1])
    )
    perfect = Report(Evaluation(right, [], 1.0), report.images, 4)
    write_report(tmp_path / "report", report)
    write_report(tmp_path / "report", perfect)  # which replaces it
    folder = tmp_path / "report"
    assert {file.name for file in folder.iterdir()} == FILES - {"confidently_wrong.png"}
    page = page_of(folder)
    assert set(page.links) & FILES == FILES - {"confidently_wrong.png", "report.html"}
    assert page.text.count("Every image was classified correctly.") == 2
    assert rows_of(folder / "confused_pairs.csv") == []
    # Classes without a name are shown by their id.
    assert [row[1] for row in page.tables[-1][1:3]] == ["class 0", "class 1"]
    assert rows_of(folder / "per_class.csv")[0]["name"] == ""


def test_of_very_many_classes_no_matrix_is_written(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "LARGEST_MATRIX", 3)
    write_report(tmp_path / "report", report)
    left = FILES - {"confusion_matrix.csv", "confusion_matrix.png"}
    assert {file.name for file in (tmp_path / "report").iterdir()} == left
    assert "Too many classes" in page_of(tmp_path / "report").text


def test_a_report_is_written_whole_or_not_at_all(report: Report, tmp_path: Path) -> None:
    report.images.path(4).unlink()
    with pytest.raises(InputError, match=r"4 & <4>\.png"):
        write_report(tmp_path / "report", report)
    assert {entry.name for entry in tmp_path.iterdir()} == {"images"}


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt is in it"):
        check_report_target(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, and a list of six images with one that cannot be read."""
    folder = tmp_path_factory.mktemp("model")
    paddle.seed(0)
    network = SqueezeNet(ModelConfig(num_classes=3))
    info = ModelInfo(network.config, Preprocess(resize_size=40, crop_size=33), NAMES[:3])
    write_model_dir(folder / "model", info, network.state_dict())
    rng = np.random.default_rng(0)
    lines = ["gone.png 0\n"]
    for i in range(5):
        image = rng.integers(0, 256, (30 + i, 40, 3), "uint8")
        (folder / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        lines.append(f"{i}.png {i % 3}\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder


def test_eval_writes_a_report(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = (
        *("--model_dir", model / "model", "--test_list", model / "list.txt"),
        *("--report_dir", tmp_path / "report", "--metrics_json", tmp_path / "scores.json"),
        *("--skip_unreadable", "--ten_crop"),
    )
    assert main([*map(str, arguments)]) == 0
    output = capsys.readouterr().out
    assert output.endswith(f"report: {tmp_path}/report/report.html\n")
    assert "top-3 100.00%" in output
    scores = json.loads((tmp_path / "scores.json").read_text())
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["facts"]["engine"] == f"{scores.pop('engine')}, {scores.pop('precision')}"
    assert {key: metrics[key] for key in scores} == scores
    assert metrics["images"] == 5
    assert sum(row["support"] for row in metrics["classes"]) == 5
    assert "ten crops" in metrics["facts"]["input"]
    page = page_of(tmp_path / "report")
    assert "gone.png" in page.text
    assert f"{metrics['top1']:.2%}" in page.text
    assert "top-3" in page.text
    for fact in metrics["facts"].values():
        assert fact in page.text
    assert metrics["facts"]["list"] == str(model / "list.txt")


@pytest.mark.parametrize("name", ["run", "run/best"])
def test_the_curves_of_a_run_are_found(name: str, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model / "model", tmp_path / "run" / "best")
    (tmp_path / "run" / "curves.png").write_bytes(b"a drawing")
    predictor = Predictor(tmp_path / name, "cpu")
    images = read_list(model / "list.txt", None, 3)
    evaluation = score_list(predictor, images, skip_unreadable=True)
    assert report_of(predictor, images, evaluation).curves == tmp_path / "run" / "curves.png"
    apart = Predictor(model / "model", "cpu")
    assert report_of(apart, images, evaluation).curves is None


def test_a_folder_of_class_folders_is_scored_by_their_names(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As by a list of the same labels; the order of the folders is not that of the classes."""
    names = tmp_path / "names.txt"
    names.write_text("zebra\nn01 apple\nmango tree\n")
    folders = {0: "zebra", 1: "n01", 2: "mango tree"}
    for i in range(5):
        target = tmp_path / "images" / folders[i % 3] / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((model / f"{i}.png").read_bytes())
    readable = tmp_path / "list.txt"
    readable.write_text("".join((model / "list.txt").read_text().splitlines(True)[1:]))
    common = ["--model_dir", str(model / "model"), "--synset_word_list", str(names)]
    scores = []
    for number, source in enumerate(
        (
            ["--images", str(tmp_path / "images")],
            ["--test_list", str(readable), "--data_dir", str(model)],
        )
    ):
        file = tmp_path / f"{number}.json"
        assert main([*common, *source, "--metrics_json", str(file)]) == 0
        scores.append(json.loads(file.read_text()))
        del scores[-1]["images_per_second"]
        scores[-1]["loss"] = pytest.approx(scores[-1]["loss"])
    assert scores[0] == scores[1]
    with pytest.raises(InputError, match="that has none; `synset_word_list`"):
        labelled_images(tmp_path / "images", None)
    (tmp_path / "images" / "n01").rename(tmp_path / "images" / "pear")
    with pytest.raises(InputError, match=r"zebra.*expected, found 'pear'"):
        main([*common, "--images", str(tmp_path / "images")])
    with pytest.raises(InputError, match="`data_dir`"):
        main([*common, "--images", str(tmp_path / "images"), "--data_dir", str(tmp_path)])


def test_an_unreadable_image_names_the_flag_that_leaves_it_out(model: Path) -> None:
    arguments = ["--model_dir", str(model / "model"), "--test_list", str(model / "list.txt")]
    for command in (main, compare.main):
        with pytest.raises(InputError, match=r"1 of 6.*`skip_unreadable`") as error:
            command(arguments)
        assert "--skip_unreadable is not set" in with_flags(str(error.value))


def test_processes_share_a_list(model: Path, tmp_path: Path, run_tool: Run, call_tool: Run) -> None:
    arguments = ("eval", "--model_dir", model / "model", "--test_list", model / "list.txt")
    three = ("--device", "cpu", "--num_procs", 3, "--batch_size", 4)
    found = []
    for name, run, processes in (("one", call_tool, ()), ("three", run_tool, three)):
        file = tmp_path / f"{name}.json"
        done = run(*arguments, *processes, "--skip_unreadable", "--metrics_json", file)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("top-1") == 1
        assert "5 images  1 skipped" in done.stdout
        assert done.stderr.count("gone.png") == 1
        found.append(json.loads(file.read_text()))
        del found[-1]["images_per_second"]
    assert found[0] == found[1]
    refused = run_tool(*arguments, "--device", "cpu", "--num_procs", 2)
    assert_user_error(refused, "1 of 6 images cannot be read", "gone.png")


def test_eval_refuses_a_wrong_folder_before_the_work(
    model: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--model_dir", str(model / "model"), "--test_list", str(model / "list.txt")]
    with pytest.raises(InputError, match="holds something else"):
        main([*arguments, "--report_dir", str(model)])
    assert capsys.readouterr().out == ""
