"""Gradients of batches: every way of computing them against the network in one piece."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
import pytest
from networks import clear_cut_state, clearest, in_double, network_of, random_state, take_gradients

from squeezenet_paddle.data.loader import Batch
from squeezenet_paddle.engines.dynamic import DynamicEngine, features_run
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network import fast_cpu
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet, load_state
from squeezenet_paddle.network.numpy_forward import activations
from squeezenet_paddle.network.stages import boundary, is_trained, state_stages
from squeezenet_paddle.training.gradients import Amp, dropout_masks, make_gradients

SIZE = 49
CLASSES = 5


@functools.cache
def weights_of(config: ModelConfig) -> dict[str, np.ndarray]:
    """Weights for which none of the batches lies at a kink of the network."""
    return clear_cut_state(config, images(config.data_format))


def build(**variant: Any) -> SqueezeNet:
    config = ModelConfig(num_classes=CLASSES, **variant)
    network = network_of(config, weights_of(config))
    network.train()
    return network


@functools.cache
def images(data_format: str) -> np.ndarray:
    """The inputs that all batches are drawn from."""
    inputs = np.random.default_rng(0).uniform(-3, 3, (12, 3, SIZE, SIZE)).astype("float32")
    inputs *= np.linspace(0.5, 1.5, len(inputs), dtype="float32")[:, None, None, None]
    return inputs if data_format == "NCHW" else inputs.transpose(0, 2, 3, 1).copy()


def batch_of(count: int, data_format: str = "NCHW", seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    inputs = rng.permutation(images(data_format))[:count]
    return Batch(rng.permutation(1000)[:count], inputs, rng.integers(0, CLASSES, count))


def masks(network: SqueezeNet, batch: Batch, seed: int, epoch: int) -> paddle.Tensor | None:
    """What the dropout keeps, as documented: 16 random bits a value, in the order of NCHW."""
    config = network.config
    if config.head == "conv_bn" or not config.dropout:
        return None
    side = {"1.0": 2, "1.1": 3}[config.version]  # of fire9's maps
    shape = (1024,) if config.head == "multiscale" else (512, side, side)
    result = []
    for index in batch.indices:
        data = np.random.default_rng([seed, epoch, index, 1]).bytes(2 * int(np.prod(shape)))
        kept = np.frombuffer(data, "<u2") >= round(config.dropout * 65536)
        result.append(kept.reshape(shape))
    stacked = np.stack(result)
    if config.data_format == "NHWC" and len(shape) == 3:
        stacked = stacked.transpose(0, 2, 3, 1)
    return paddle.to_tensor(stacked)


def reference(
    network: SqueezeNet, batch: Batch, seed: int, epoch: int, smoothing: float = 0.0
) -> tuple[float, int, dict[str, np.ndarray]]:
    """Loss, hits and gradients of the whole batch at once, by the network in float64."""
    judge = in_double(network)
    inputs = paddle.to_tensor(batch.inputs.astype("float64"))
    logits = judge(inputs, masks(network, batch, seed, epoch))
    target = np.full((len(batch.labels), CLASSES), smoothing / CLASSES)
    target[np.arange(len(target)), batch.labels] += 1 - smoothing
    loss = -(paddle.nn.functional.log_softmax(logits) * paddle.to_tensor(target)).sum()
    loss.backward()
    hits = int((logits.numpy().argmax(1) == batch.labels).sum())
    return loss.item(), hits, take_gradients(judge)


def assert_same(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], limit: float = 1e-4
) -> None:
    """Equal to the order of float sums."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = np.abs(value).max()
        assert scale > 0, key
        np.testing.assert_allclose(found[key], value, rtol=0, atol=limit * scale, err_msg=key)


@pytest.mark.parametrize(
    ("variant", "way", "smoothing"),
    [
        ({}, {"threads": 1}, 0.1),
        ({}, {"threads": 2}, 0.0),
        ({"version": "1.0", "bypass": "simple"}, {"threads": 3}, 0.1),
        ({"head": "conv_fc", "dropout": 0.2}, {"threads": 2}, 0.0),
        ({"dropout": 0.0}, {}, 0.1),
        ({"head": "conv_bn"}, {}, 0.1),
        ({"data_format": "NHWC"}, {}, 0.1),
        ({"data_format": "NHWC", "head": "conv_bn"}, {}, 0.0),
        ({}, {"to_static": True}, 0.1),
        ({"head": "conv_bn"}, {"to_static": True}, 0.0),
        ({"head": "multiscale", "dropout": 0.3}, {"threads": 3}, 0.1),
        ({"head": "multiscale", "version": "1.0"}, {"threads": 1}, 0.0),
        ({"head": "multiscale", "data_format": "NHWC"}, {}, 0.0),
        ({"head": "multiscale"}, {"to_static": True}, 0.0),
        ({"data_format": "NHWC", "dropout": 0.0}, {"to_static": True}, 0.0),
    ],
)
def test_every_way_gives_the_same(
    variant: dict[str, Any], way: dict[str, Any], smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("MICRO_PIXELS", "PLAIN_PIXELS"):
        monkeypatch.setattr(f"squeezenet_paddle.network.fast_cpu.{limit}", 2 * SIZE * SIZE)
    network = build(**variant)
    batch = batch_of(7, network.config.data_format)
    loss, hits, expected = reference(network, batch, seed=3, epoch=5, smoothing=smoothing)
    gradients = make_gradients(network, "cpu", 3, smoothing, **way)
    found = gradients.add(batch, epoch=5)
    assert found[0] == pytest.approx(loss, rel=1e-5)
    assert found[1] == hits
    assert_same(take_gradients(network), expected)


FROZEN = [
    ({}, "fire8", {"threads": 2}),
    ({"head": "conv_bn", "bypass": "simple"}, "fire9", {"threads": 2}),
    ({"head": "multiscale"}, "head", {"threads": 2}),
    ({"head": "multiscale", "version": "1.0", "bypass": "complex"}, "fire8", {"threads": 2}),
    ({"head": "multiscale", "data_format": "NHWC"}, "fire7", {}),
]


@pytest.mark.parametrize(("variant", "first", "way"), FROZEN)
def test_the_frozen_part_gets_no_gradient(
    variant: dict[str, Any], first: str, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where its parameters would take one: nothing goes backward there."""
    monkeypatch.setattr("squeezenet_paddle.network.fast_cpu.MICRO_PIXELS", 2 * SIZE * SIZE)
    network = build(**variant)
    batch = batch_of(12, network.config.data_format)
    loss, hits, expected = reference(network, batch, seed=3, epoch=5)
    stages = state_stages(network.config)
    trained = {key: v for key, v in expected.items() if is_trained(stages[key], first)}
    assert 0 < len(trained) < len(expected)
    found = make_gradients(network, "cpu", 3, trained_from=first, **way).add(batch, 5)
    assert found == (pytest.approx(loss, rel=1e-5), hits)
    assert_same(take_gradients(network), trained, limit=1e-3)


@pytest.mark.parametrize(("variant", "first", "way"), FROZEN)
def test_features_stand_in_for_images(
    variant: dict[str, Any], first: str, way: dict[str, Any]
) -> None:
    network = build(**variant)
    batch = batch_of(12, network.config.data_format)
    pixels = make_gradients(network, "cpu", 3, trained_from=first, **way)
    expected, expected_grads = pixels.add(batch, 5), take_gradients(network)
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    rows = []
    for image in batch.inputs:
        layers = activations(network.config, state, image)
        rows.append(
            np.concatenate([layers[name].ravel() for name in boundary(network.config, first)])
        )
    features = Batch(batch.indices, np.stack(rows), batch.labels)
    cached = make_gradients(network, "cpu", 3, trained_from=first, features_size=SIZE, **way)
    found = cached.add(features, 5)
    assert found == (pytest.approx(expected[0], rel=1e-4), expected[1])
    assert_same(take_gradients(network), expected_grads, limit=1e-3)
    halves = Batch(batch.indices, np.stack(rows).astype("float16"), batch.labels)
    assert cached.add(halves, 5)[0] == pytest.approx(expected[0], rel=1e-2)
    take_gradients(network)
    network.eval()
    engine = DynamicEngine(network, "cpu", trained_from=first, features_size=SIZE)
    logits = DynamicEngine(network, "cpu").logits(batch.inputs)
    limit = 1e-3 * np.abs(logits).max()
    np.testing.assert_allclose(engine.logits(features.inputs), logits, rtol=0, atol=limit)


def test_a_static_graph_takes_no_features() -> None:
    with pytest.raises(InputError, match="`to_static`"):
        make_gradients(build(), "cpu", 0, to_static=True, trained_from="head", features_size=SIZE)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_images_count_by_the_weight_of_their_class(smoothing: float) -> None:
    network = build()
    batch = batch_of(6)
    weights = np.array([0.5, 2, 0, 1, 3], "float32")
    expected: dict[str, np.ndarray] = {}
    total = 0.0
    for i, label in enumerate(batch.labels):
        one = Batch(batch.indices[i : i + 1], batch.inputs[i : i + 1], batch.labels[i : i + 1])
        loss, _, grads = reference(network, one, 0, 0, smoothing)
        total += weights[label] * loss
        for key, value in grads.items():
            expected[key] = expected.get(key, 0) + weights[label] * value
    gradients = make_gradients(network, "cpu", 0, smoothing, class_weights=weights)
    assert gradients.add(batch, 0)[0] == pytest.approx(total, rel=1e-5)
    assert_same(take_gradients(network), expected)


def test_a_single_image_goes_by_the_running_statistics() -> None:
    network = build(head="multiscale", dropout=0.0)
    mean, variance = network.bn_pools._mean, network.bn_pools._variance
    expected_variance = variance.numpy()
    mean.set_value(np.full(2560, 0.5, "float32"))
    batch = batch_of(1)
    network.eval()
    loss, _, expected = reference(network, batch, 0, 0)
    network.train()
    assert make_gradients(network, "cpu", 0).add(batch, 0)[0] == pytest.approx(loss, rel=1e-5)
    assert_same(take_gradients(network), expected)
    np.testing.assert_array_equal(mean.numpy(), np.full(2560, 0.5, "float32"))
    np.testing.assert_array_equal(variance.numpy(), expected_variance)


def test_gradients_add_up_and_empty_batches_add_nothing() -> None:
    network = build()
    gradients = make_gradients(network, "cpu", 0, threads=2)
    batches = [batch_of(3, seed=1), batch_of(0), batch_of(1, seed=2)]
    expected = [reference(network, batch, 0, 4) for batch in (batches[0], batches[2])]
    found = [gradients.add(batch, 4) for batch in batches]
    assert found[1] == (0, 0)
    for (loss, hits, _), (found_loss, found_hits) in zip(expected, found[::2]):
        assert found_loss == pytest.approx(loss, rel=1e-5)
        assert found_hits == hits
    first, second = (grads for _, _, grads in expected)
    assert_same(take_gradients(network), {key: first[key] + second[key] for key in first})
    gradients.add(batch_of(0), 4)
    assert take_gradients(network) == {}


@pytest.mark.parametrize("variant", [{}, {"data_format": "NHWC"}])
def test_the_same_bits_every_time(variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squeezenet_paddle.network.fast_cpu.MICRO_PIXELS", 2 * SIZE * SIZE)
    network = build(**variant)
    batch = batch_of(9, network.config.data_format)
    results = []
    for kilobytes in (1, 33, 700):
        rest = [np.ones(kilobytes * 1000, "uint8") for _ in range(10)]  # a heap of another shape
        gradients = make_gradients(network, "cpu", 0, threads=2)
        gradients.add(batch, 0)
        gradients.add(batch, 1)
        results.append(take_gradients(network))
        del rest
    for other in results[1:]:
        for key, value in results[0].items():
            np.testing.assert_array_equal(other[key], value, err_msg=key)


def test_changed_weights_are_seen() -> None:
    """Threads share the weights of the network, whichever way they are changed."""
    paddle.seed(0)  # of the new classifier
    network = build()
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-3, 3, (48, 3, SIZE, SIZE)).astype("float32")
    pool = Batch(np.arange(48), inputs, rng.integers(0, CLASSES, 48))
    batch = batch_of(4)
    gradients = make_gradients(network, "cpu", 0, threads=2)
    optimizers = [
        paddle.optimizer.Momentum(1e-3, parameters=network.parameters()),
        paddle.optimizer.Adam(1e-3, parameters=network.parameters()),
    ]

    def by(optimizer: paddle.optimizer.Optimizer) -> None:
        gradients.add(batch, 0)
        optimizer.step()
        for parameter in network.parameters():
            parameter.clear_gradient(False)

    def by_value() -> None:
        weight = network.conv1.weight
        weight.set_value(weight.numpy() * 1.1)

    def in_place() -> None:
        with paddle.no_grad():
            network.conv1.weight.subtract_(paddle.full([1], 0.1))

    def load() -> None:
        load_state(network, random_state(network.config, seed=5), "other weights")

    def replace() -> None:
        network.reset_classifier(CLASSES)

    losses = [gradients.add(batch, 0)[0]]
    take_gradients(network)
    for change in (*(lambda o=o: by(o) for o in optimizers), by_value, in_place, load, replace):
        change()
        clear = clearest(network, pool.inputs, masks(network, pool, 0, 0))[:2]
        batch = Batch(pool.indices[clear], pool.inputs[clear], pool.labels[clear])
        loss, _, expected = reference(network, batch, 0, 0)
        losses.append(gradients.add(batch, 0)[0])
        assert losses[-1] == pytest.approx(loss, rel=1e-5)
        assert_same(take_gradients(network), expected)
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("way", [{"threads": 2}, {"to_static": True}])
def test_frozen_layers_get_no_gradient(way: dict[str, Any]) -> None:
    network = build()
    batch = batch_of(4)
    _, _, expected = reference(network, batch, 0, 0)
    for layer in (network.conv1, network.fire2, network.fire5.expand3x3):
        for parameter in layer.parameters():
            parameter.stop_gradient = True
    network.fire9.squeeze1x1.bias.stop_gradient = True
    make_gradients(network, "cpu", 0, **way).add(batch, 0)
    found = take_gradients(network)
    assert len(found) == 52 - 2 - 6 - 2 - 1
    assert_same(found, {key: expected[key] for key in found})


@pytest.mark.parametrize("way", [{"threads": 2}, {"to_static": True}])
def test_the_loss_scale_multiplies_the_gradients_alone(way: dict[str, Any]) -> None:
    network = build()
    batch = batch_of(3)
    loss, _, expected = reference(network, batch, 0, 0)
    gradients = make_gradients(network, "cpu", 0, **way)
    gradients.loss_scale = 1024.0
    assert gradients.add(batch, 0)[0] == pytest.approx(loss, rel=1e-5)
    assert_same(take_gradients(network), {key: 1024 * value for key, value in expected.items()})


def test_dropout_masks_depend_on_seed_epoch_and_image_alone() -> None:
    config = ModelConfig(dropout=0.3)
    batch = batch_of(6)

    def mask(seed: int = 1, epoch: int = 2, part: slice = slice(0, 6)) -> np.ndarray:
        result = dropout_masks(config, (SIZE, SIZE), seed, epoch, batch.indices[part])
        assert result is not None
        return result

    whole = mask()
    assert whole.dtype == bool
    assert whole.shape == (6, 512, 3, 3)
    assert abs(whole.mean() - 0.7) < 0.01
    np.testing.assert_array_equal(mask(part=slice(2, 5)), whole[2:5])
    others = [mask(seed=2), mask(epoch=3), np.roll(whole, 1, axis=0)]
    for other in others:  # independent masks agree in 0.7^2 + 0.3^2 of the places
        assert abs((other == whole).mean() - 0.58) < 0.02
    oblong = dropout_masks(config, (49, 100), 1, 2, batch.indices[:1])
    assert oblong is not None
    assert oblong.shape == (1, 512, 3, 6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_amp_that_the_gpu_cannot_do_is_refused(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle only warns, here because the tests compute on a CPU, and goes on in float32."""

    @contextlib.contextmanager
    def auto_cast(level: str, dtype: str) -> Iterator[None]:
        warnings.warn(f"For {dtype}, amp only support Compute Capability 8.0.", stacklevel=2)
        yield

    monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
    with pytest.raises(InputError, match=f"`amp_dtype` {dtype}: For {dtype}, amp only support"):
        make_gradients(build(), "gpu", 0, amp=Amp("O2", dtype))


def test_nothing_for_a_cpu_runs_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers of fast_cpu are slow or missing there; the network's own are used."""
    for name in ("forward", "front", "tail", "features", "head"):
        monkeypatch.setattr(fast_cpu, name, lambda *_, name=name: pytest.fail(name))
    network, batch = build(), batch_of(3)
    network.eval()
    DynamicEngine(network, "gpu").logits(batch.inputs)
    DynamicEngine(network, "gpu:1", with_means=True).outputs(batch.inputs)
    features_run(network, "head", "gpu")(batch.inputs)
    network.train()
    make_gradients(network, "gpu", 0).add(batch, 0)
    assert take_gradients(network).keys() == dict(network.named_parameters()).keys()


@pytest.mark.parametrize("variant", [{}, {"data_format": "NHWC"}], ids=["threads", "plain"])
def test_batches_may_be_overwritten_once_they_are_started(variant: dict[str, Any]) -> None:
    """As the reader does with its memory when the next one is asked for."""
    network = build(**variant)
    gradients = make_gradients(network, "cpu", 3, threads=1)
    first, second = (batch_of(5, network.config.data_format, seed) for seed in (1, 2))
    expected = [gradients.add(batch, epoch=5) for batch in (first, second)]
    summed = take_gradients(network)
    shared = np.empty_like(first.inputs)
    started = []
    for batch in (first, second):
        shared[:] = batch.inputs
        started.append(gradients.start(Batch(batch.indices, shared, batch.labels), epoch=5))
        shared[:] = np.nan
    np.testing.assert_allclose([wait() for wait in started], expected, rtol=1e-6)
    assert_same(take_gradients(network), summed)


def test_amp_needs_a_gpu() -> None:
    with pytest.raises(InputError, match="`amp`: mixed precision needs a GPU"):
        make_gradients(build(), "cpu", 0, amp=Amp("O1", "bfloat16"))
