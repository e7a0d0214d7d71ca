"""The proof itself: that it sees a wrong network, and the published and OpenCV's results."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from networks import random_state

from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.caffe.verify import CaffeJudge, format_verification, verify
from squeezenet_paddle.caffe.writer import caffemodel, deploy_prototxt
from squeezenet_paddle.conversion import build_network
from squeezenet_paddle.data.decode import read_image
from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.logits import softmax, top_k
from squeezenet_paddle.network.model import SqueezeNet, load_state


@pytest.mark.parametrize("key", ["fire4.expand3x3.weight", "conv10.bias"])
def test_one_wrong_value_is_seen_and_placed(key: str, tmp_path: Path) -> None:
    config = ModelConfig(num_classes=4)
    state = random_state(config)
    (tmp_path / "deploy.prototxt").write_text(deploy_prototxt(config, 67, 67))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(config, state))
    judge = CaffeJudge(tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel")
    network = SqueezeNet(config)
    x = np.random.default_rng(0).uniform(-100, 100, (1, 3, 67, 67)).astype("float32")
    load_state(network, state, "right")
    network.eval()
    assert verify(network, judge, x, "noise").passed
    state[key].flat[0] += 10
    load_state(network, state, "wrong")
    result = verify(network, judge, x, "noise")
    assert not result.passed
    over = [
        line for line in format_verification(result, None).splitlines() if "over 0.0001" in line
    ]
    assert over[0].split()[0] == key.rpartition(".")[0].replace(".", "/")


def test_files_that_opencv_refuses(tmp_path: Path) -> None:
    (tmp_path / "deploy.prototxt").write_text("layer { ")
    (tmp_path / "net.caffemodel").write_bytes(b"")
    with pytest.raises(InputError, match="OpenCV cannot read this network"):
        CaffeJudge(tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel")


def logits_of(network: SqueezeNet, x: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return network(paddle.to_tensor(x)).numpy()


def test_published_probabilities_of_the_car(assets: Path) -> None:
    """The authors' v1.1 on an image squashed to 227x227 without a mean: published values."""
    weights = read_weights(assets / "caffe/squeezenet_v1.1.caffemodel")
    preprocess = Preprocess(resize_size=227, interpolation="linear", mean=(0, 0, 0))
    x = preprocess(read_image(assets / "caffe/car.png"))
    probabilities = softmax(logits_of(build_network(weights), x[None]))[0]
    published = {817: 0.8363350, 511: 0.0946481, 479: 0.0419132, 751: 0.0091071, 436: 0.0068161}
    assert list(top_k(probabilities[None], 5)[0]) == list(published)
    for index, value in published.items():
        assert abs(probabilities[index] - value) < 2e-4


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_car_without_mean_equals_opencv(version: str, assets: Path) -> None:
    prototxt = assets / f"caffe/deploy_v{version}.prototxt"
    file = assets / f"caffe/squeezenet_v{version}.caffemodel"
    preprocess = Preprocess(resize_size=227, interpolation="linear", mean=(0, 0, 0))
    x = preprocess(read_image(assets / "caffe/car.png"))[None]
    result = verify(build_network(read_weights(file)), CaffeJudge(prototxt, file), x, "car")
    assert result.passed
    assert [i for i, _ in result.our_top5] == [i for i, _ in result.caffe_top5]
    for (_, ours), (_, caffe) in zip(result.our_top5, result.caffe_top5):
        assert abs(ours - caffe) < 1e-5


@pytest.mark.parametrize(("version", "step"), [("1.0", 5), ("1.1", 3)])
def test_photos_get_the_classes_that_opencv_gives_them(
    version: str, step: int, assets: Path
) -> None:
    file = assets / f"caffe/squeezenet_v{version}.caffemodel"
    network = build_network(read_weights(file))
    net = cv2.dnn.readNetFromCaffe(str(assets / f"caffe/deploy_v{version}.prototxt"), str(file))
    mean = np.array([104, 117, 123], "float32")
    images = read_list(assets / "data/photos/val_list.txt", None, 1000)
    hits = np.zeros((2, 2), int)
    chosen = range(0, len(images), step)
    for path, label in zip(map(images.path, chosen), images.labels[::step]):
        pixels = cv2.resize(cv2.imread(str(path)), (256, 256), interpolation=cv2.INTER_CUBIC)
        blob = np.ascontiguousarray((pixels[14:241, 14:241] - mean).transpose(2, 0, 1))[None]
        net.setInput(blob)
        caffe = top_k(net.forward("pool10").reshape(1, -1), 5)[0]
        ours = top_k(logits_of(network, Preprocess()(read_image(path))[None]), 5)[0]
        assert list(ours) == list(caffe), path.name
        hits += [[label == top[0], label in top] for top in (ours, caffe)]
    assert len(images) == 300
    assert (hits[0] == hits[1]).all()
    assert hits[0, 0] > len(chosen) / 2  # of 1000 classes
