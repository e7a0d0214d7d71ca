"""Class activation maps: that they are what the logits are made of, and where they lie."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from squeezenet_paddle.cli.infer import main, text_lines
from squeezenet_paddle.data.lists import ImageList
from squeezenet_paddle.data.loader import loader_for
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.explain import (
    Explainer,
    Map,
    PngFolder,
    centers,
    enlarge,
    explain,
    explanation,
    heat_of,
    overlay,
)
from squeezenet_paddle.model_dir import ModelInfo, read_info, read_weights, write_model_dir
from squeezenet_paddle.network.config import FIRES, ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.predict import Predictor, predict

SIZE = 67
NAMES = ["red thing", "猫", "blue thing"]


def write_model(path: Path, seed: int = 0, **config: object) -> ModelInfo:
    paddle.seed(seed)
    network = SqueezeNet(ModelConfig(num_classes=3, **config))
    # Larger than the initial ones, so that the images get different classes.
    last = network.conv10 if network.config.head in ("conv", "conv_bn") else network.fc
    last.weight.set_value(last.weight * 20)
    if network.config.head == "multiscale":
        for tensor, low, high in (
            (network.bn_pools._mean, 0, 5),
            (network.bn_pools._variance, 1, 20),
            (network.bn_pools.weight, -1, 2),
            (network.bn_pools.bias, -0.5, 0.5),
            (network.fc10.bias, -0.5, 0.5),
            (network.fc.bias, -1, 1),
        ):
            tensor.set_value(paddle.uniform(tensor.shape, min=low, max=high))
    layout = network.config.data_format
    preprocess = Preprocess(resize_size=80, crop_size=SIZE, data_format=layout)
    info = ModelInfo(network.config, preprocess, NAMES)
    write_model_dir(path, info, network.state_dict())
    return info


def noise(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 90, (count, *shape)).astype("float32")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("head", ["conv", "conv_bn", "conv_fc"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_the_mean_of_a_map_is_the_largest_logit(
    version: str, head: str, data_format: str, tmp_path: Path
) -> None:
    info = write_model(tmp_path / "model", version=version, head=head, data_format=data_format)
    inputs = noise(4, *info.preprocess.input_shape)
    explainer = Explainer(tmp_path / "model", "cpu")
    logits, [(layer, maps)] = explainer(inputs)
    np.testing.assert_allclose(
        logits, Predictor(tmp_path / "model", "cpu").logits(inputs), rtol=1e-4, atol=1e-5
    )
    size = {"1.1": 4, "1.0": 5}[version]  # 3 and a ring of 1 in v1.0
    assert layer == "conv10"
    assert maps.shape == (4, size, size)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logits.max(axis=1), rtol=1e-4, atol=1e-5)
    assert np.ptp(maps[0]) > 0


def head_by_hand(state: dict[str, np.ndarray], means: np.ndarray) -> np.ndarray:
    """Logits, float64 [C], of the means of all fires, float64 [2560]."""
    x = (means - state["bn_pools._mean"]) / np.sqrt(state["bn_pools._variance"] + 1e-5)
    x = x * state["bn_pools.weight"] + state["bn_pools.bias"]
    x = np.maximum(x @ state["fc10.weight"] + state["fc10.bias"], 0)
    return x @ state["fc.weight"] + state["fc.bias"]


MULTISCALE = [
    {"version": "1.1", "data_format": "NCHW"},
    {"version": "1.0", "data_format": "NHWC", "bypass": "complex"},
]


@pytest.mark.parametrize("config", MULTISCALE)
def test_the_means_of_multiscale_maps_sum_to_the_logit_and_a_constant(
    config: dict[str, str], tmp_path: Path
) -> None:
    """The constant, by hand: the active hidden units where all means are those of the training."""
    info = write_model(tmp_path / "model", head="multiscale", **config)
    inputs = noise(4, *info.preprocess.input_shape)
    explainer = Explainer(tmp_path / "model", "cpu")
    logits, maps = explainer(inputs)
    np.testing.assert_allclose(
        logits, Predictor(tmp_path / "model", "cpu").logits(inputs), rtol=1e-4, atol=1e-4
    )
    network = SqueezeNet(info.network)
    network.set_state_dict(paddle.load(str(tmp_path / "model" / "model.pdparams")))
    network.eval()
    means = network.forward_features(paddle.to_tensor(inputs))
    hidden = network.fc10(network.bn_pools(means)).numpy()
    at_mean = network.fc10(network.bn_pools.bias[None]).numpy()
    fc = network.fc.weight.numpy()[:, logits.argmax(axis=1)].T
    constant = (at_mean * (hidden > 0) * fc).sum(axis=1)
    constant += network.fc.bias.numpy()[logits.argmax(axis=1)]
    assert [layer for layer, _ in maps] == list(FIRES)
    total = sum(values.mean(axis=(1, 2)) for _, values in maps)
    assert abs(total).max() > 0.1
    np.testing.assert_allclose(total + constant, logits.max(axis=1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", MULTISCALE)
def test_a_position_of_a_multiscale_map_is_what_the_logit_loses_without_it(
    config: dict[str, str], tmp_path: Path
) -> None:
    """A hundredth of a position is taken out of the means; no gradient in this."""
    info = write_model(tmp_path / "model", head="multiscale", **config)
    logits, maps = Explainer(tmp_path / "model", "cpu")(noise(1, *info.preprocess.input_shape))
    network = SqueezeNet(info.network)
    network.set_state_dict(paddle.load(str(tmp_path / "model" / "model.pdparams")))
    network.eval()
    outputs = {}
    for name in FIRES:
        getattr(network, name).register_forward_post_hook(
            lambda layer, inputs, output, name=name: outputs.update({name: output.numpy()})
        )
    x = paddle.to_tensor(noise(1, *info.preprocess.input_shape))
    means = network.forward_features(x).numpy()[0].astype("float64")
    state = read_weights(tmp_path / "model", info).state
    start, best = 0, int(logits.argmax())
    for name, values in maps:
        output = outputs[name][0]
        if info.network.data_format == "NHWC":
            output = output.transpose(2, 0, 1)
        channels = slice(start, start + len(output))
        start = channels.stop
        positions = values[0].size
        row, column = np.unravel_index(abs(values[0]).argmax(), values[0].shape)
        without = means.copy()
        usual = network.bn_pools._mean.numpy()[channels]
        without[channels] -= 0.01 * (output[:, row, column] - usual) / positions
        lost = head_by_hand(state, means)[best] - head_by_hand(state, without)[best]
        assert lost == pytest.approx(0.01 * values[0, row, column] / positions, rel=0.01)


def test_a_map_does_not_depend_on_the_layout(tmp_path: Path) -> None:
    write_model(tmp_path / "NCHW")
    write_model(tmp_path / "NHWC", data_format="NHWC")
    inputs = noise(2, 3, SIZE, SIZE + 16)
    _, [(_, expected)] = Explainer(tmp_path / "NCHW", "cpu")(inputs)
    _, [(_, maps)] = Explainer(tmp_path / "NHWC", "cpu")(inputs.transpose(0, 2, 3, 1).copy())
    assert maps.shape == (2, 4, 5)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bypass", ["none", "complex"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("layer", ["conv10", "fire2", "fire4", "fire5"])
def test_a_position_of_a_map_lies_in_the_middle_of_what_it_sees(
    version: str, bypass: str, layer: str
) -> None:
    """Gradients tell which pixels a position sees; those of the middle are not cut at an edge."""
    config = ModelConfig(version=version, num_classes=2, bypass=bypass, activation="elu")
    paddle.seed(0)
    network = SqueezeNet(config)
    network.eval()
    for pool in [each for each in network.sublayers() if isinstance(each, paddle.nn.MaxPool2D)]:
        # The gradient of a maximum is that of one pixel; the mean's is that of all.
        pool.forward = lambda x: paddle.nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)
    size = 321
    inputs = paddle.randn([1, 3, size, size])
    inputs.stop_gradient = False
    outputs = []
    getattr(network, layer).register_forward_post_hook(lambda *each: outputs.append(each[-1]))
    network(inputs)
    [maps] = outputs
    middle = maps.shape[2] // 2
    for position in (middle - 1, middle):
        gradient = paddle.grad(maps[:, :, position, position].sum(), inputs, retain_graph=True)[0]
        seen = np.flatnonzero(np.abs(gradient.numpy()).sum(axis=(0, 1, 2)))
        assert seen[0] > 0  # not cut
        assert seen[-1] < size - 1
        assert (seen[0] + seen[-1]) / 2 == centers(config, layer, maps.shape[3])[position]


def test_centers_of_both_versions_by_hand() -> None:
    new, old = ModelConfig(version="1.1"), ModelConfig(version="1.0")
    assert centers(new, "conv10", 14)[[0, 1, 13]].tolist() == [15, 31, 223]
    assert centers(old, "conv10", 15)[[0, 1, 14]].tolist() == [1, 17, 225]
    assert centers(ModelConfig(head="multiscale"), "fire2", 56)[:2].tolist() == [3, 7]


def test_an_enlarged_map_is_itself_at_the_centers_and_linear_between() -> None:
    config = ModelConfig(version="1.1")
    small = np.random.default_rng(0).normal(0, 1, (14, 13))
    at = [centers(config, "conv10", count) for count in small.shape]
    large = enlarge(small, at, (227, 215))
    assert large.shape == (227, 215)
    rows, columns = (places.astype(int) for places in at)
    np.testing.assert_allclose(large[rows][:, columns], small)
    np.testing.assert_allclose(large[rows[0] + 8, columns], small[:2].mean(axis=0))
    np.testing.assert_allclose(large[rows, columns[3] + 4], small[:, 3:5] @ [0.75, 0.25])
    assert (large[: rows[0]] == large[rows[0]]).all()
    assert (large[:, columns[-1] :] == large[:, columns[-1] :][:, :1]).all()


def test_the_heat_of_several_maps_is_their_sum() -> None:
    config = ModelConfig(head="multiscale")
    maps = [Map("fire2", noise(2, 16, 16)), Map("fire9", noise(2, 4, 4))]
    parts = [heat_of([each], 1, config, SIZE) for each in maps]
    np.testing.assert_allclose(heat_of(maps, 1, config, SIZE), parts[0] + parts[1])
    assert parts[0][7, 3] == pytest.approx(maps[0].values[1, 1, 0])


SQUASH = Preprocess(resize_size=80, crop_size=64)  # 8 pixels of 80 on each side are not seen


def heat_at(row: int, column: int) -> np.ndarray:
    heat = np.full((64, 64), -1.0)
    heat[row - 4 : row + 4, column - 4 : column + 4] = 2.0
    return heat


def test_an_overlay_shows_the_map_where_it_lies_in_the_image() -> None:
    """The image is 3 times as wide and 2 times as high as what the crop is cut from."""
    image = np.full((160, 240, 3), 100, "uint8")
    shown = overlay(image, heat_at(10, 40), SQUASH).astype(int)
    changed = (abs(shown - 100).sum(axis=2) > 200).nonzero()
    middle = [each.mean() + 0.5 for each in changed]
    assert middle == pytest.approx([2 * (8 + 10), 3 * (8 + 40)], abs=1)
    inside = shown[16:144, 24:216]
    assert (inside == 100).all(axis=2).mean() > 0.9  # the image where the map is not above 0
    assert (shown[:14] < 90).all()
    assert (shown[:, 220:] < 90).all()  # not seen
    nothing = overlay(image, np.full((64, 64), -1.0), SQUASH)
    assert (nothing[18:142, 27:213] == 100).all()


def test_a_stronger_map_is_brighter_and_the_image_stays_visible() -> None:
    heat = np.repeat(np.linspace(0, 5, 64)[None], 64, axis=0)
    black, white = (
        overlay(np.full((80, 80, 3), value, "uint8"), heat, SQUASH)[40, 8:72] for value in (0, 255)
    )
    lightness = cv2.cvtColor(black[None], cv2.COLOR_BGR2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all()
    assert lightness[-1] > 150
    assert (white.astype(int) - black >= 60).all()


@pytest.mark.parametrize(
    ("preprocess", "shape", "side"),
    [
        (SQUASH, (160, 240), (240, 360)),
        (SQUASH, (30, 15), (360, 180)),
        (Preprocess("short_side", 80, crop_size=64), (160, 240), (240, 360)),
    ],
)
def test_an_explanation_keeps_the_aspect_ratio(
    preprocess: Preprocess, shape: tuple[int, int], side: tuple[int, int]
) -> None:
    image = np.full((*shape, 3), (10, 120, 40), "uint8")
    png = explanation(image, heat_at(32, 32), preprocess, "97.1%  猫")
    whole = cv2.imdecode(np.frombuffer(png, "uint8"), 1)
    height, width = side
    assert whole.shape[1] == 2 * width + 8
    assert (whole[:height, :width] == (10, 120, 40)).all()
    beside = whole[:height, width + 8 :].astype(int)
    assert abs(beside[height // 2, width // 2] - (10, 120, 40)).sum() > 200
    below = whole[height:]
    assert len(below) >= 20
    assert (below < 128).any()  # the caption
    assert (below[-2:] == 255).all()
    other = explanation(image, heat_at(32, 32), preprocess, "97.1%  dog")
    assert (cv2.imdecode(np.frombuffer(other, "uint8"), 1)[height:] != below).any()


def test_a_folder_of_png_files_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg-2.png").write_text("mine")
    first, second = PngFolder(tmp_path), PngFolder(tmp_path)
    for folder, name in ((first, "cat.jpg"), (second, "cat.jpg-3"), (second, "cat.jpg-4")):
        target = folder.add("cat.jpg", name.encode())
        assert target == tmp_path / f"{name}.png"
        assert target.read_bytes() == name.encode()
    assert (tmp_path / "cat.jpg-2.png").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.fixture(scope="module", params=["conv", "multiscale"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    write_model(path, head=request.param)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a/1.png", "b/1.png", "c/ünïcode $1.png"):
        (folder / name).parent.mkdir()
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), "uint8"), (90, 120))
        (folder / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (folder / "c" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    return folder


def test_infer_explains(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    maps = tmp_path / "deep" / "maps"
    arguments = ["--model_dir", str(model), "--image", str(folder), "--explain", str(maps)]
    assert main([*arguments, "--format", "json", "--batch_size", "2"]) == 1
    output = capsys.readouterr()
    assert "broken.jpg" in output.err
    results = json.loads(output.out)
    assert [r["image"] for r in results] == [
        str(folder / name) for name in ("a/1.png", "b/1.png", "c/ünïcode $1.png")
    ]
    names = ["1.png.png", "1.png-2.png", "ünïcode $1.png.png"]
    assert [r["map"] for r in results] == [str(maps / name) for name in names]
    images = ImageList.of_paths([Path(r["image"]) for r in results])
    with loader_for(images, read_info(model).preprocess, 3) as loader:
        plain = list(predict(Predictor(model, "cpu"), loader))
    for result, (_, answer) in zip(results, plain):
        [(class_id, probability)] = answer.top(1)
        assert result["classes"][0]["id"] == class_id
        assert result["classes"][0]["probability"] == pytest.approx(probability, rel=1e-3)
        assert cv2.imdecode(np.fromfile(result["map"], "uint8"), 1).shape[1] == 2 * 270 + 8

    assert main([*arguments, "--format", "csv", "--top_k", "1"]) == 1
    again = capsys.readouterr().out.splitlines()
    assert again[0] == "image,rank,class_id,probability,name,map"
    names = ["1.png-3.png", "1.png-4.png", "ünïcode $1.png-2.png"]
    assert [line.rpartition(",")[2] for line in again[1:]] == [str(maps / name) for name in names]
    assert len(list(maps.iterdir())) == 6


def test_the_caption_is_the_class_of_the_map(model: Path, folder: Path, tmp_path: Path) -> None:
    """Beside other names the file is another one, and only below the images."""
    images = ImageList.of_paths([folder / "a" / "1.png"])
    explainer, pixels = Explainer(model, "cpu"), []
    for names in (["one"] * 3, ["two"] * 3, None):
        with loader_for(images, explainer.info.preprocess) as loader:
            [(_, _, saved)] = explain(explainer, loader, PngFolder(tmp_path), names)
        pixels.append(cv2.imread(str(saved)))
    for other in pixels[1:]:
        assert (other[:360] == pixels[0][:360]).all()
        assert (other[360:] != pixels[0][360:]).any()


def test_the_text_says_where_a_map_is() -> None:
    classes = [{"id": 7, "probability": 0.25, "name": "cock"}]
    lines = text_lines([{"image": "a.jpg", "classes": classes, "map": "maps/a.jpg.png"}])
    assert list(lines) == ["a.jpg", "  0.2500     7  cock", "  map: maps/a.jpg.png"]


def test_a_file_in_place_of_the_folder_is_refused(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "maps").write_text("mine")
    arguments = ["--model_dir", str(model), "--image", str(folder / "a")]
    with pytest.raises(InputError, match=r"maps: cannot be made a folder"):
        main([*arguments, "--explain", str(tmp_path / "maps")])
