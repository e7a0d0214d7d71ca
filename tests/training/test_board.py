"""What VisualDL shows of a run, read back by VisualDL itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from visualdl.reader.graph_reader import GraphReader
from visualdl.reader.reader import LogReader
from visualdl.server import lib

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.model_dir import ModelInfo
from squeezenet_paddle.network.config import CHOICES, ModelConfig, layers
from squeezenet_paddle.training.log import TrainRecord, ValRecord
from squeezenet_paddle.training.visualdl.board import CAPTION, Board, image_grid
from squeezenet_paddle.training.visualdl.records import read_records

INFO = ModelInfo(
    ModelConfig(num_classes=3), Preprocess(resize_size=40, crop_size=32), ["apple", "car", "cow"]
)
SETTINGS = {"optimizer": "adam", "lr": 0.5, "batch_size": 32, "clip": None, "nesterov": True}
WEIGHTS = (".weight", ".bias", "._mean", "._variance")
TRAIN_TAGS = [f"train/{n}" for n in ("loss", "top1", "lr", "images_per_second", "reader_wait")]


def train(step: int) -> TrainRecord:
    return TrainRecord(step, step / 8, 2.0 / step, step / 100, 0.5, 100.0 + step, 0.25, 60.0)


def val(step: int) -> ValRecord:
    return ValRecord(step, step / 8, 1.0 / step, step / 128, step / 64, 176, True, 6.5)


def write(folder: Path, first: int, last: int, settings: dict[str, Any] = SETTINGS) -> None:
    """The steps `first` to `last` of a run that is then killed: the file is not closed."""
    board = Board(folder, INFO, settings, first - 1)
    for step in range(first, last + 1):
        if step == 1:
            inputs = np.zeros((4, *INFO.preprocess.input_shape), "float32")
            board.images(0, inputs, np.array([0, 1, 2, 0]))
        board.train(train(step))
        if step % 4 == 0:
            board.histograms(step, {"conv1.weight": np.arange(10.0) * step})
            board.validation(val(step))


def read(folder: Path) -> dict[str, list[Any]]:
    """Every tag's records in their order, as VisualDL parses them."""
    (file,) = folder.glob("*vdlrecords*")
    data = LogReader(file_path=str(file)).log_data
    return {
        tag.replace("%", "/"): list(records)
        for kind, tags in data.items()
        if kind != "meta_data"
        for tag, records in tags.items()
    }


def test_curves(tmp_path: Path) -> None:
    write(tmp_path, 1, 8)
    found = read(tmp_path)
    assert {tag for tag in found if tag.startswith("train/")} == set(TRAIN_TAGS)
    for tag in TRAIN_TAGS:
        points = [(p.id, p.value) for p in found[tag]]
        field = tag.partition("/")[2]
        assert points == [(s, np.float32(getattr(train(s), field))) for s in range(1, 9)]
    for field in ("loss", "top1", "top5"):
        points = [(p.id, p.value) for p in found[f"val/{field}"]]
        assert points == [(s, np.float32(getattr(val(s), field))) for s in (4, 8)]
    times = [p.timestamp for p in found["train/loss"]]
    assert times == sorted(times)
    assert times[0] > 1.6e12  # milliseconds


def test_zero_is_a_point(tmp_path: Path) -> None:
    """A value of 0 is written, which a protocol buffer may leave out."""
    with Board(tmp_path, INFO, {}) as board:
        board.train(dataclasses.replace(train(1), loss=0.0, lr=0.0))
    assert [p.value for p in read(tmp_path)["train/lr"]] == [0.0]


def test_resume_has_each_point_once(tmp_path: Path) -> None:
    """Killed after step 10, resumed from a checkpoint of step 6, with another rate."""
    write(tmp_path, 1, 10)
    write(tmp_path, 7, 12, {**SETTINGS, "lr": 0.25})
    found = read(tmp_path)
    for tag in TRAIN_TAGS:
        assert [p.id for p in found[tag]] == list(range(1, 13))
    assert [p.id for p in found["val/loss"]] == [4, 8, 12]
    assert [p.id for p in found["weights/conv1.weight"]] == [4, 8, 12]
    assert [p.id for p in found["batch/augmented"]] == [0]
    (settings,) = found["hparam"]
    assert [i.float_value for i in settings.hparam.hparamInfos if i.name == "lr"] == [0.25]


def test_start_drops_all(tmp_path: Path) -> None:
    """A run that was killed before its first checkpoint begins anew."""
    write(tmp_path, 1, 6)
    write(tmp_path, 1, 3)
    found = read(tmp_path)
    assert [p.id for p in found["train/loss"]] == [1, 2, 3]
    assert [p.id for p in found["batch/augmented"]] == [0]


def test_record_cut_off(tmp_path: Path) -> None:
    """Wherever the file ends, all whole records are kept, and the run goes on behind them."""
    write(tmp_path, 1, 4)
    (file,) = tmp_path.glob("*vdlrecords*")
    whole = file.read_bytes()
    kept = set()
    for end in (*range(0, len(whole), 41), len(whole) - 1):
        file.write_bytes(whole[:end])
        Board(tmp_path, INFO, SETTINGS, 4).train(train(5))
        found = [p.id for p in read(tmp_path)["train/loss"]]
        assert found == [*range(1, len(found)), 5]
        kept.add(len(found))
    assert kept == {1, 2, 3, 4, 5}


def test_any_flipped_bit_costs_one_record(tmp_path: Path) -> None:
    """All other records are kept, VisualDL reads the file, and damage is reported in one line.

    A record whose step or value is another one now looks like any other.
    """
    with Board(tmp_path, INFO, {}) as board:
        board.train(train(1))
        board.histograms(1, {"fc": np.arange(3.0)})
        board.validation(val(1))
    (file,) = tmp_path.glob("*vdlrecords*")
    whole = file.read_bytes()
    warnings: list[str] = []
    records = read_records(file, 1, warnings.append)
    assert (len(records), warnings) == (9, [])
    for position, bit in itertools.product(range(len(whole)), range(8)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        file.write_bytes(damaged)
        warnings.clear()
        kept = read_records(file, 1, warnings.append)
        intact = [record for record in kept if record in records]
        assert len(intact) >= len(records) - 1
        if warnings:
            (warning,) = warnings
            assert warning.startswith(f"{file}: ")
            assert f"the {len(kept)} records that can be read" in warning
        if position % 64 == bit:  # VisualDL takes milliseconds
            Board(tmp_path, INFO, {}, 1).train(train(2))
            assert [p.id for p in read(tmp_path)["train/top1"]][-1] == 2


def test_noise_for_a_record_file(tmp_path: Path) -> None:
    """Nothing of it can be read; the run goes on with an empty board."""
    (tmp_path / "vdlrecords.log").write_bytes(np.random.default_rng(0).bytes(5000))
    Board(tmp_path, INFO, SETTINGS, 4).train(train(5))
    assert [p.id for p in read(tmp_path)["train/loss"]] == [5]


def test_hyper_parameters_with_last_scores(tmp_path: Path) -> None:
    """As the board's table shows them, for two runs of which one has no score yet."""
    write(tmp_path / "a", 1, 8)
    write(tmp_path / "b", 1, 2)
    a, b = lib.get_hparam_list(LogReader(str(tmp_path)))
    assert Path(a["name"]).name == "a"
    assert a["hparams"] == {
        "optimizer": "adam",
        "lr": 0.5,
        "batch_size": 32,
        "nesterov": "True",
    }
    assert a["metrics"] == {"val/top1": 8 / 128, "val/top5": 8 / 64, "val/loss": 1 / 8}
    assert set(b["metrics"].values()) == {None}


def test_histograms(tmp_path: Path) -> None:
    values = np.concatenate([np.full(7, -1.0), np.full(5, 2.0), [np.nan, np.inf]])
    with Board(tmp_path, INFO, {}) as board:
        board.histograms(3, {"conv1.weight": values.reshape(2, 7), "none": np.array([np.nan])})
    found = read(tmp_path)
    (record,) = found["weights/conv1.weight"]
    counts, edges = record.histogram.hist, record.histogram.bin_edges
    assert (record.id, sum(counts), counts[0], counts[-1]) == (3, 12, 7, 5)
    assert (len(edges), edges[0], edges[-1]) == (len(counts) + 1, -1.0, 2.0)
    assert sum(found["weights/none"][0].histogram.hist) == 0


@pytest.mark.parametrize("data_format", CHOICES["data_format"])
@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [(1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0)), (1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1))],
)
def test_images_are_what_the_network_sees(
    tmp_path: Path, data_format: str, order: str, scale: float, mean: Any, std: Any
) -> None:
    preprocess = Preprocess(
        resize_size=40,
        crop_size=40,
        channel_order=order,
        scale=scale,
        mean=mean,
        std=std,
        data_format=data_format,
    )
    images = np.random.default_rng(0).integers(0, 256, (10, 40, 40, 3), dtype=np.uint8)
    inputs = np.stack([preprocess.normalise(image) for image in images])
    info = ModelInfo(ModelConfig(num_classes=3, data_format=data_format), preprocess)
    with Board(tmp_path, info, {}) as board:
        board.images(0, inputs, np.zeros(10, int))
    (record,) = read(tmp_path)["batch/augmented"]
    png = np.frombuffer(record.image.encoded_image_string, "uint8")
    grid = cv2.imdecode(png, cv2.IMREAD_COLOR)
    height = 40 + CAPTION
    assert grid.shape == (2 * height, 8 * 40, 3)
    for index, image in enumerate(images):
        top, left = height * (index // 8) + CAPTION, 40 * (index % 8)
        assert np.array_equal(grid[top : top + 40, left : left + 40], image)
    assert (grid[height:, 2 * 40 :] == 255).all()  # no images there


def test_captions() -> None:
    """Each above its image; what does not fit stays out of the neighbour's."""
    pictures = np.zeros((3, 64, 64, 3), "uint8")
    png = image_grid(pictures, ["1 car", "", "a name as long as a river \N{SNOWMAN}"])
    grid = cv2.imdecode(np.frombuffer(png, "uint8"), cv2.IMREAD_COLOR)
    strips = np.split(grid[:CAPTION], 3, axis=1)
    assert [bool((strip < 128).any()) for strip in strips] == [True, False, True]
    assert not grid[CAPTION:].any()


def test_captions_in_other_scripts() -> None:
    """Each letter is drawn as itself, where OpenCV's own text would be question marks."""
    captions = ["?", "é", "Ω", "Ж"]
    png = image_grid(np.zeros((4, 64, 64, 3), "uint8"), captions)
    grid = cv2.imdecode(np.frombuffer(png, "uint8"), cv2.IMREAD_COLOR)
    strips = {strip.tobytes() for strip in np.split(grid[:CAPTION], 4, axis=1)}
    assert len(strips) == len(captions)


def test_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []
    monkeypatch.setattr(
        "squeezenet_paddle.training.visualdl.board.image_grid",
        lambda pictures, texts: captions.extend(texts) or b"",
    )
    inputs = np.zeros((40, *INFO.preprocess.input_shape), "float32")
    with Board(tmp_path, INFO, {}) as board:
        board.images(0, inputs, np.arange(40) % 3)
    with Board(tmp_path, dataclasses.replace(INFO, names=None), {}) as board:
        board.images(0, inputs[:1], np.array([2]))
    assert captions[:4] == ["0 apple", "1 car", "2 cow", "0 apple"]
    assert captions[32:] == ["2"]


def graph(folder: Path, **config: Any) -> dict[str, dict[str, Any]]:
    """The nodes that the board shows with everything unfolded, by name."""
    data_format = config.get("data_format", "NCHW")
    info = ModelInfo(ModelConfig(**config), Preprocess(data_format=data_format))
    Board(folder, info, {}).close()
    reader = GraphReader(str(folder))
    (run,) = reader.runs()
    shown = reader.get_graph(run, expand_all=True)
    assert [p["arguments"][0]["name"] for p in shown["inputs"]] == ["data"]
    return {node["name"]: node for node in shown["nodes"]}


def arguments(node: dict[str, Any], side: str) -> dict[str, list[Any]]:
    return {
        a["name"]: a["type"]["shape"]["dimensions"]
        for parameter in node[side]
        for a in parameter["arguments"]
    }


@pytest.mark.parametrize(
    ("head", "bypass", "version"),
    itertools.product(CHOICES["head"], CHOICES["bypass"], CHOICES["version"]),
)
def test_graph_has_all_layers(tmp_path: Path, head: str, bypass: str, version: str) -> None:
    config = {"head": head, "bypass": bypass, "version": version, "num_classes": 5}
    nodes = graph(tmp_path, **config)
    chain = layers(ModelConfig(**config))
    assert sorted(nodes) == sorted(f"/{layer.name}" for layer in chain)
    for layer in chain:
        node = nodes[f"/{layer.name}"]
        bottoms = {n for n in arguments(node, "inputs") if not n.endswith(WEIGHTS)}
        assert bottoms == set(layer.bottoms)
        assert list(arguments(node, "outputs")) == [layer.name]


@pytest.mark.parametrize("head", CHOICES["head"])
def test_graph_has_the_networks_weights(tmp_path: Path, head: str) -> None:
    from squeezenet_paddle.network.model import SqueezeNet

    network = SqueezeNet(ModelConfig(head=head, bypass="complex", num_classes=5))
    weights = {
        argument["name"]: argument["type"]["shape"]["dimensions"]
        for node in graph(tmp_path, head=head, bypass="complex", num_classes=5).values()
        for parameter in node["inputs"]
        for argument in parameter["arguments"]
        if argument["initializer"]
    }
    assert weights == {name: value.shape for name, value in network.state_dict().items()}


def test_graph_sizes(tmp_path: Path) -> None:
    """The map sizes of v1.1 at 227 pixels, and its known number of parameters."""
    nodes = graph(tmp_path)
    sizes = [
        arguments(nodes[f"/{name}"], "outputs")[name]
        for name in ("conv1", "pool1", "pool3", "pool5", "conv10", "pool10")
    ]
    assert sizes == [
        [-1, 64, 113, 113],
        [-1, 64, 56, 56],
        [-1, 128, 28, 28],
        [-1, 256, 14, 14],
        [-1, 1000, 14, 14],
        [-1, 1000, 1, 1],
    ]
    attributes = [
        {a["name"]: (a["value"], a["type"]) for a in node["attributes"]} for node in nodes.values()
    ]
    assert sum(a["parameters"][0] for a in attributes if "parameters" in a) == 1_235_496
    assert attributes[0]["strides"] == ([2, 2], "INTS")
    assert attributes[0]["activation"] == ("relu", "STRING")
    nhwc = graph(tmp_path, data_format="NHWC")
    assert arguments(nhwc["/conv1"], "outputs") == {"conv1": [-1, 113, 113, 64]}


def test_fires_are_groups(tmp_path: Path) -> None:
    """Folded at first, and joined as the simple bypass joins them."""
    graph(tmp_path, bypass="simple")
    reader = GraphReader(str(tmp_path))
    (run,) = reader.runs()
    folded = {node["name"]: node for node in reader.get_graph(run)["nodes"]}
    fires = [f"/fire{n}" for n in range(2, 10)]
    pools = ["/pool1", "/pool3", "/pool5", "/pool10"]
    assert sorted(folded) == sorted(["/conv1", "/conv10", *fires, *pools])
    assert list(arguments(folded["/fire3"], "inputs")) == ["fire2/concat"]
    assert list(arguments(folded["/fire3"], "outputs")) == ["fire3/sum"]
    opened = [node["name"] for node in reader.get_graph(run, nodeid="/fire3", expand=True)["nodes"]]
    parts = ["squeeze1x1", "expand1x1", "expand3x3", "concat", "sum"]
    assert [n for n in opened if n.startswith("/fire3")] == [f"/fire3/{part}" for part in parts]
    found = reader.search_graph_node(run, "fire5/squeeze1x1", is_node=False)["nodes"]
    assert "/fire5/expand3x3" in [node["name"] for node in found]


def test_graph_is_json(tmp_path: Path) -> None:
    (tmp_path / ".a1b2c3d4.sqz-tmp").touch()  # of a process that was killed
    Board(tmp_path, INFO, {}).close()
    assert not (tmp_path / ".a1b2c3d4.sqz-tmp").exists()
    (file,) = tmp_path.glob("*vdlgraph*")
    assert json.loads(file.read_text())["version"] == "1.0.0"


def test_full_disk_names_the_file(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with Board(tmp_path, INFO, {}) as board:
        board._file.close()
        board._file = open("/dev/full", "ab", buffering=0)  # noqa: PTH123, SIM115
        with pytest.raises(RunError, match="/dev/full: cannot be written"):
            board.train(train(1))
