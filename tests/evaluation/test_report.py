"""The report: every number against its source, every link against the folder, any name."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.data.lists import ImageList
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.evaluation import plots
from squeezenet_paddle.evaluation.evaluate import Evaluation
from squeezenet_paddle.evaluation.metrics import Predictions
from squeezenet_paddle.evaluation.report import Report, check_report_target, write_report
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet

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
        self.ids: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        given = dict(attributes)
        self.links += [given[key] for key in ("href", "src") if key in given]
        self.ids |= {given["id"]} if "id" in given else set()
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
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Six images of three of four classes, three of them wrong."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i} & <{i}>.png" for i in range(len(LABELS))]
    for i, path in enumerate(paths):
        path.write_bytes(cv2.imencode(".png", np.full((8, 9, 3), 40 * i, "uint8"))[1].tobytes())
    predictions = Predictions.of(np.arange(6), LOGITS.astype("float32"), np.array(LABELS))
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


def test_the_page_needs_nothing_but_its_folder(report: Report, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(folder, report)
    assert {file.name for file in folder.iterdir()} == FILES
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors <= page.ids
    assert len(anchors) == 6
    files = [link for link in page.links if not link.startswith("#")]
    assert set(files) == FILES - {"report.html"}
    assert "url(" not in text
    assert "@import" not in text
    # Names come out as they are, whatever is in them.
    facts, pairs, wrong, _, averages, classes = page.tables
    assert facts == [["model", "the <model>"]]
    assert [row[1] for row in classes] == ["class", *NAMES]
    assert classes[1][2:] == ["33.33%", "50.00%", "40.00%", "2", "3"]
    assert classes[4][2:] == ["", "", "", "0", "0"]
    assert pairs[1] == ["2", "2", NAMES[2], "0", NAMES[0]]
    assert wrong[1][-1].endswith("4 & <4>.png")
    assert averages[1][0] == "macro: mean of the 3 classes with images"
    assert "line 7: <gone>.jpg" in page.text


def test_without_an_error_there_are_no_images_of_errors(report: Report, tmp_path: Path) -> None:
    right = Predictions.of(np.arange(2), LOGITS[[0, 2]].astype("float32"), np.array([0, 1]))
    perfect = Report(Evaluation(right, [], 1.0), report.images, 4)
    write_report(tmp_path / "report", report)
    write_report(tmp_path / "report", perfect)  # which replaces it
    folder = tmp_path / "report"
    assert {file.name for file in folder.iterdir()} == FILES - {"confidently_wrong.png"}
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert set(page.links) & FILES == FILES - {"confidently_wrong.png", "report.html"}
    assert page.text.count("Every image was classified rightly.") == 2
    assert rows_of(folder / "confused_pairs.csv") == []
    # Nor have the tables a column for names that nobody knows.
    assert page.tables[-1][0] == ["id", "precision", "recall", "F1", "images", "predicted"]
    assert rows_of(folder / "per_class.csv")[0]["name"] == ""


def test_of_very_many_classes_no_matrix_is_written(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "LARGEST_MATRIX", 3)
    write_report(tmp_path / "report", report)
    left = FILES - {"confusion_matrix.csv", "confusion_matrix.png"}
    assert {file.name for file in (tmp_path / "report").iterdir()} == left
    assert "Too many classes" in (tmp_path / "report" / "report.html").read_text()


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


def test_eval_writes_a_report(model: Path, tmp_path: Path, run_tool: Run) -> None:
    done = run_tool(
        *("eval", "--model_dir", model / "model", "--test_list", model / "list.txt"),
        *("--report_dir", tmp_path / "report", "--metrics_json", tmp_path / "scores.json"),
        *("--skip_unreadable", "--ten_crop"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"report: {tmp_path}/report/report.html\n")
    scores = json.loads((tmp_path / "scores.json").read_text())
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["facts"]["engine"] == f"{scores.pop('engine')}, {scores.pop('precision')}"
    assert {key: metrics[key] for key in scores} == scores
    assert metrics["images"] == 5
    assert sum(row["support"] for row in metrics["classes"]) == 5
    assert "ten crops" in metrics["facts"]["input"]
    page = Page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    assert "gone.png" in page.text
    assert f"{metrics['top1']:.2%}" in page.text
    assert "top-3" in page.text


def test_processes_share_a_list(model: Path, tmp_path: Path, run_tool: Run) -> None:
    arguments = ("eval", "--model_dir", model / "model", "--test_list", model / "list.txt")
    three = ("--device", "cpu", "--num_procs", 3, "--batch_size", 4)
    found = []
    for name, processes in (("one", ()), ("three", three)):
        file = tmp_path / f"{name}.json"
        done = run_tool(*arguments, *processes, "--skip_unreadable", "--metrics_json", file)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("top-1") == 1
        assert "5 images  1 skipped" in done.stdout
        assert done.stderr.count("gone.png") == 1
        found.append(json.loads(file.read_text()))
        del found[-1]["images_per_second"]
    assert found[0] == found[1]
    refused = run_tool(*arguments, *three)
    assert_user_error(refused, "1 of 6 images cannot be read", "gone.png")


def test_eval_refuses_a_wrong_folder_before_the_work(model: Path, run_tool: Run) -> None:
    done = run_tool(
        *("eval", "--model_dir", model / "model", "--test_list", model / "list.txt"),
        *("--report_dir", model),
    )
    assert_user_error(done, "holds something else")
    assert done.stdout == ""
