"""Logits and gradients of every variant of the network, against a CPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from squeezenet_paddle.device import use_device
from squeezenet_paddle.network.config import CHOICES, ModelConfig

from .report import Check, Row

LIMIT = 1e-4  # of the largest value of a tensor
IMAGES, SIZE, CLASSES = 6, 49, 5
# A value that lies within rounding of a ReLU's 0 falls on either side of it, and entries of the
# gradient jump: rare, and not for all of several batches. A wrong kernel is wrong for each.
BATCHES = 4

Arrays = dict[str, np.ndarray]


def against_cpu(check: Check, exact: bool) -> Iterator[Row]:
    """The largest difference over the variants.

    Args:
        check: the device.
        exact: float32 is, so that more than `LIMIT` fails; else the figures are told.
    """
    configs = variants(check.size.all_variants)
    worst = {"logits": (0.0, ""), "gradients": (0.0, "")}
    for config in configs:
        errors = [_errors(check.device, config, seed=0)]
        while max(errors[-1]) >= LIMIT and exact and len(errors) < BATCHES:
            errors.append(_errors(check.device, config, seed=len(errors)))
        for (kind, (most, _)), values in zip(list(worst.items()), zip(*errors)):
            error = max(values) if kind == "logits" else min(values)
            if not error <= most:
                worst[kind] = (error, _name(config))
    for kind, (error, name) in worst.items():
        yield Row(
            f"{kind} of {len(configs)} variants",
            f"differ from the CPU's by {error:.1e} of the largest at most ({name})",
            bool(error < LIMIT) if exact else None,
        )


def variants(everything: bool) -> list[ModelConfig]:
    """Every combination of the options, or each of their values at least once."""
    names, values = list(CHOICES), list(CHOICES.values())
    rows: list[tuple[str, ...]] = list(itertools.product(*values))
    if not everything:
        rows = [tuple(v[i % len(v)] for v in values) for i in range(max(map(len, values)))]
    return [ModelConfig(num_classes=CLASSES, **dict(zip(names, row))) for row in rows]


def _errors(device: str, config: ModelConfig, seed: int) -> tuple[float, float]:
    """The largest differences of the logits and of the gradients, as shares of the largest."""
    judged = _results("cpu", config, seed, plain=True)
    found = _results(device, config, seed, plain=False)
    return tuple(max(_difference(a[key], b[key]) for key in b) for a, b in zip(found, judged))  # type: ignore[return-value]


def _results(device: str, config: ModelConfig, seed: int, plain: bool) -> tuple[Arrays, Arrays]:
    """Logits and gradients of a batch, as training computes them, or as `model.py` has them."""
    use_device("cpu")
    import paddle

    from squeezenet_paddle.data.loader import Batch
    from squeezenet_paddle.engines.dynamic import DynamicEngine
    from squeezenet_paddle.network.model import SqueezeNet, load_state
    from squeezenet_paddle.training.gradients import Gradients, Loss, make_gradients

    paddle.seed(seed)
    state = {k: v.numpy() for k, v in SqueezeNet(config, "xavier_normal").state_dict().items()}
    use_device(device)
    network = SqueezeNet(config)
    load_state(network, state, "weights of the check")
    rng = np.random.default_rng(seed)
    inputs = rng.normal(0, 2, (IMAGES, 3, SIZE, SIZE)).astype("float32")
    if config.data_format == "NHWC":
        inputs = np.ascontiguousarray(inputs.transpose(0, 2, 3, 1))
    batch = Batch(np.arange(IMAGES), inputs, rng.integers(0, CLASSES, IMAGES))
    network.eval()
    if plain:
        with paddle.no_grad():
            logits = network(paddle.to_tensor(inputs)).numpy()
        gradients = Gradients(network, network, seed, Loss(), None)
    else:
        logits = DynamicEngine(network, device).logits(inputs)
        gradients = make_gradients(network, device, seed)
    network.train()
    gradients.add(batch, epoch=0)
    named = network.named_parameters()
    return {"logits": logits}, {k: p.grad.numpy() for k, p in named if p.grad is not None}


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))


def _name(config: ModelConfig) -> str:
    return " ".join(str(getattr(config, name)) for name in CHOICES)
