"""Compresses a network without training: layer by layer, from images without labels.

For each layer in the order of computation, x are its inputs in the network compressed so far and x0
those in the float network. The weights that reproduce the float outputs best from x, by least
squares, are rounded to indices of a trellis (`search.py`), and the bias makes up for what is left
on average. How many bits a layer and each of its inputs get follows from how much they matter to
what the network says (`fisher.py`): the divergence that one bit more avoids, `mu`, is the same for
all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Callable

import numpy as np

from ..errors import InputError
from ..network.config import Layer, ModelConfig, layers
from ..network.weights import key_of
from ..progress import Progress
from ..sqz.format import INDICES, SCALES, Array, Content, Indices, caffe_shapes, steps_of, write
from .fisher import fisher_information
from .fold import folded
from .memory import Memory
from .rounding import PASSES, Problem, Rounded, entropy
from .walk import Moments, Walk, moments_of

State = Mapping[str, np.ndarray]

FISHER_IMAGES = 64
_PILOT_IMAGES = 48
_PILOT_PASSES = 1
# Share of the step that would be right for a single quantiser and many bits. The values of each of
# the two quantisers of the trellis are two steps apart.
_STEP = 0.55
_LEAST_SENSITIVITY = 1e-20
_SAVED = 0.5  # bits of an index that plain rounding takes more
_UNUSED = 0.001  # share of `max_bytes` that the fitted layer may leave
_RESERVE = 0.25  # of the bytes of a classifier that comes after the fitted layer
_TOO_SMALL = 0.03  # share of `max_bytes` left, above which the first pass is made again
_SPREAD = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0)  # times mu, where the pilot measures sizes
LEAST_BITS = 1  # a weight, of the smallest file that is made
# A classifier of few classes costs hardly a byte, and comes last: it must not pay, with all that
# the network says, for what the layers before it took beyond the budget.
# A layer of one vector an image errs more on other images than on the calibration images, whose few
# vectors leave most directions free. Models of head `compact`, in 260 kB, diverge on validation
# images by 0.042 at 1, 0.030 at 2, 0.026 at 4 and 0.027 at 8 (CIFAR-10), and by 0.018 at 1, 0.008
# at 4 and 0.009 at 8 (ETH-80).
_ONE_VECTOR = 4.0  # times its sensitivity
_FEW = 0.02  # of the network's weights, below which a classifier is kept
_LARGEST_ERROR = 0.015  # of its outputs; a bit more for each of its weights halves it
_FLOAT16 = float(np.finfo("float16").max)


class Compressor:
    """Rounds the weights of one network to files of different sizes.

    Args:
        config: which network.
        state: its float arrays by state-dict key.
        inputs: float16 [N, *input], calibration images as `Preprocess` makes them.
        seed: of the directions in which sensitivities are measured.
        extra: what goes into each file beside the arrays, as `Content` has it.
        threads: None takes one per core that the process may use.
        memory: knows what a killed run of the same has rounded; None for nothing.
    """

    def __init__(
        self,
        config: ModelConfig,
        state: State,
        inputs: Sequence[np.ndarray],
        seed: int = 0,
        extra: Mapping[str, Any] | None = None,
        threads: int | None = None,
        memory: Memory | None = None,
    ) -> None:
        state = folded(config, state)
        self._config, self._state, self._inputs = config, state, inputs
        self._threads, self._memory = threads, memory or Memory(None, "")
        self._extra = dict(extra or {})
        self._layers = [each for each in layers(config) if each.weight_shape]
        shown = [x.astype("float32") for x in inputs[:FISHER_IMAGES]]
        self._sensitivity = _sensitivity(fisher_information(config, state, shown, seed))
        for layer in self._layers:
            if layer.type == "InnerProduct":
                self._sensitivity[layer.name] *= _ONE_VECTOR
        # A small classifier is kept, and cannot make up for what the pilot has not foreseen.
        self._fitting = self._layers[-2 if self._is_small(self._layers[-1]) else -1]
        self._is_full = False  # whether more bytes would change nothing
        self._shared = 0.0  # bytes of tables, and what else a file has beside its layers' own
        self._before: dict[str, Rounded] = {}  # what the pilot or the pass before has made
        self._sizes: dict[str, np.ndarray] = {}  # log(bytes) of each layer at each of `_grid`
        self._grid = np.zeros(0)  # log(mu)

    @property
    def weights(self) -> int:
        """How many weights are rounded."""
        return sum(math.prod(each.weight_shape) for each in self._layers)

    def _is_small(self, layer: Layer) -> bool:
        """Whether this is a classifier that takes hardly a byte."""
        size = math.prod(layer.weight_shape)
        return layer is self._layers[-1] and size < _FEW * self.weights

    @cached_property
    def smallest(self) -> int:
        """Bytes of a file in which all rounded weights are 0."""
        return self._file({})[1]

    def compress(self, max_bytes: int) -> tuple[Content, list[Rounded]]:
        """The network in a file of at most `max_bytes` bytes.

        Raises:
            InputError: that is too small for any use.
        """
        least = self.smallest + self.weights * LEAST_BITS // 8
        if max_bytes < least:
            raise InputError(
                f"`max_bytes` {max_bytes:,}: at least {least:,} were expected for this network of "
                f"{self.weights:,} weights."
            )
        if not self._sizes:
            self._pilot(max_bytes)
        self._is_full = False
        limit = float(max_bytes)
        is_first = True
        while True:
            rounded = self._pass(limit)
            content, size = self._file(rounded)
            excess = size - max_bytes
            # Where the pilot was wrong, which is now put right, the first pass is made again.
            is_final = self._is_full or not is_first or excess > -_TOO_SMALL * max_bytes
            if excess <= 0 and is_final:
                return content, list(rounded.values())
            if not is_first:
                limit -= max(1.2 * excess, 64)
            is_first = False

    def _file(self, rounded: Mapping[str, Rounded]) -> tuple[Content, int]:
        """The contents of a file and its size; without the layers that are not in `rounded`."""
        arrays: dict[str, Array] = {}
        for key, shape in caffe_shapes(self._config).items():
            values = np.zeros(shape, "float16") if key not in self._state else self._state[key]
            arrays[key] = _short(values)
        for layer in self._layers:
            key = key_of(layer)
            if layer.name in rounded:
                arrays[f"{key}.weight"] = rounded[layer.name].indices
                arrays[f"{key}.bias"] = _short(rounded[layer.name].bias)
            else:
                empty = np.zeros(layer.weight_shape, "int16")
                arrays[f"{key}.weight"] = Indices(empty, np.float32(1), _scales(empty[0].size))
        content = Content(self._config, arrays, **self._extra)
        return content, len(write(content)[0])

    def _pilot(self, max_bytes: int) -> None:
        """Measures with few images how the size of each layer depends on `mu`."""
        bits = 8 * (max_bytes - self.smallest) / self.weights
        low, high = -60.0, 20.0
        while high - low > 0.05:  # the mu at which plain rounding has somewhat more bits
            middle = (low + high) / 2
            plain = sum(
                entropy(np.rint(weight / (2 * step))) * weight.size
                for each in self._layers
                for weight in [self._state[f"{key_of(each)}.weight"]]
                for step in [_step(math.exp(middle), self._sensitivity[each.name])]
            )
            low, high = (low, middle) if plain / self.weights < bits + _SAVED else (middle, high)
        mu = math.exp(low)
        self._grid = np.log(mu * np.array(_SPREAD))
        sizes: dict[str, np.ndarray] = {}
        rounded: dict[str, Rounded] = {}

        def at(layer: Layer, problem: _LayerProblem) -> Rounded:
            # Plain rounding for each, and from them what the search gives.
            several = np.log([problem.rounded(mu * factor, 0).bytes for factor in _SPREAD])
            best = rounded[layer.name] = problem.rounded(mu, _PILOT_PASSES)
            sizes[layer.name] = several + math.log(best.bytes) - several[_SPREAD.index(1.0)]
            return best

        self._run(self._inputs[:_PILOT_IMAGES], at, "trying out sizes")
        self._sizes, self._before = sizes, rounded
        own = sum(each.bytes for each in rounded.values())
        self._shared = self._file(rounded)[1] - self.smallest - own

    def _pass(self, limit: float) -> dict[str, Rounded]:
        """All layers; one of the last is fitted so that the file has about `limit` bytes."""
        budget = limit - self.smallest - self._shared
        rounded: dict[str, Rounded] = {}
        foreseen = 0.0  # bytes of what is in `rounded`
        mu = 0.0

        def at(layer: Layer, problem: _LayerProblem) -> Rounded:
            nonlocal foreseen, mu
            taken = sum(each.bytes for each in rounded.values())
            left = budget - taken
            # Layers to come will be larger or smaller than foreseen, as those before.
            ratio = taken / foreseen if foreseen else 1.0
            after = self._layers[len(rounded) + 1 :]
            if not self._is_small(layer):  # which takes what the fitted layer has left for it
                mu = self._mu([layer, *after], left / ratio)
            foreseen += self._foreseen(layer, math.log(mu))
            best = problem.rounded(mu)
            if layer is self._fitting:
                later = {each.name: self._before[each.name] for each in after}
                reserve = _RESERVE * sum(each.bytes for each in later.values())
                for _ in range(8):
                    size = self._file({**rounded, layer.name: best, **later})[1] + reserve
                    excess = size - limit
                    if -_UNUSED * limit < excess <= 0:
                        break
                    # With half the step a weight takes a bit more, and a bit avoids a quarter.
                    more_bits = -8 * (excess + _UNUSED / 2 * limit) / best.indices.values.size
                    mu *= 4 ** min(max(-more_bits, -4.0), 4.0)
                    before, best = best, problem.rounded(mu)
                    if more_bits > 0.5 and best.bytes < 1.02 * before.bytes:
                        self._is_full = True  # its indices cannot be larger
                        break
            rounded[layer.name] = best
            # For a next pass, what the pilot had is put right.
            curve = self._sizes[layer.name]
            curve += math.log(best.bytes) - _line(math.log(mu), self._grid, curve)
            return best

        self._run(self._inputs, at, "compressing")
        self._before = rounded
        return rounded

    def _run(self, inputs: Sequence[np.ndarray], at: Round, what: str) -> None:
        """Gives each layer's problem to `at`, and goes on with what it makes of the layer."""
        state = dict(self._state)
        with_floats = Walk(self._config, inputs, self._threads)
        compressed = Walk(self._config, inputs, self._threads)
        with Progress(what, len(self._layers), "layers") as progress:
            for layer in self._layers:

                def moments(layer: Layer = layer) -> Moments:
                    with_floats.advance(layer, self._state)
                    compressed.advance(layer, state)
                    return moments_of(layer, compressed, with_floats)

                result = at(layer, _LayerProblem(self, layer, moments))
                key, weight = key_of(layer), result.indices.weight
                linear = layer.type == "InnerProduct"
                state[f"{key}.weight"] = np.ascontiguousarray(weight.T) if linear else weight
                state[f"{key}.bias"] = result.bias
                progress.update()

    def _foreseen(self, layer: Layer, log_mu: float) -> float:
        """Bytes that a layer will take, as the pilot has it."""
        return math.exp(_line(log_mu, self._grid, self._sizes[layer.name]))

    def _mu(self, todo: Sequence[Layer], budget: float) -> float:
        """The `mu` at which these layers take `budget` bytes, as the pilot has it."""

        def size(log_mu: float) -> float:
            return sum(self._foreseen(layer, log_mu) for layer in todo)

        low, high = self._grid[0] - 8, self._grid[-1] + 8
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if size(middle) > budget else (low, middle)
        return math.exp(high)


class _LayerProblem:
    """A layer before rounding.

    Args:
        compressor: whose layer it is.
        layer: one with weights.
        moments: of its inputs in both networks; not called where all results are remembered.
    """

    def __init__(
        self, compressor: Compressor, layer: Layer, moments: Callable[[], Moments]
    ) -> None:
        key = key_of(layer)
        weight, bias = compressor._state[f"{key}.weight"], compressor._state[f"{key}.bias"]
        if layer.type == "InnerProduct":
            weight = weight.T
        self._compressor, self._layer, self._find_moments = compressor, layer, moments
        self._weight = weight.reshape(len(weight), -1).astype("float64")
        self._bias = bias.astype("float64")

    @cached_property
    def _moments(self) -> Moments:
        return self._find_moments()

    @cached_property
    def _problem(self) -> Problem:
        found = self._moments
        return Problem(self._weight, found.cross, found.hessian, found.of_images)

    def rounded(self, mu: float, passes: int = PASSES) -> Rounded:
        """The layer with steps and a price of bits for `mu`."""
        compute = partial(self._computed, mu, passes)
        return self._compressor._memory.next(self._layer.name, compute)

    def _computed(self, mu: float, passes: int) -> Rounded:
        result = self._rounded(mu, passes)
        if self._compressor._is_small(self._layer):
            for _ in range(20):
                error = result.error or 0.0
                if error <= _LARGEST_ERROR:
                    break
                mu *= min((_LARGEST_ERROR / error) ** 2, 0.9)  # the error goes with the step
                result = self._rounded(mu, passes)
        return result

    def _rounded(self, mu: float, passes: int) -> Rounded:
        sensitivity = self._compressor._sensitivity[self._layer.name]
        problem = self._problem
        # Divergence for each unit of the squared error of an output.
        gain = sensitivity * self._weight.shape[1] / problem.trace
        least = np.abs(problem.target).max(axis=0) / INDICES
        wanted = np.maximum(_step(mu, gain) * problem.tolerance, np.maximum(least, 1e-30))
        wanted = np.maximum(wanted, wanted.max() / 2 ** ((SCALES - 1) / 4))  # the range of scales
        scales = np.rint(4 * np.log2(wanted / wanted.min())).astype("uint8")
        unit = np.float32(wanted.min()) / steps_of(np.float32(1), _scales(1))[0]
        steps = steps_of(unit, scales)
        q = problem.round(steps.astype("float64"), mu / gain, passes)
        indices = Indices(q.astype("int16").reshape(self._layer.weight_shape), unit, scales)
        weight = indices.weight.reshape(q.shape).astype("float64")
        bias = self._bias + self._weight @ self._moments.mean0 - weight @ self._moments.mean
        error = problem.error(weight)
        return Rounded(self._layer.name, indices, bias.astype("float32"), error)


def _step(mu: float, gain: float) -> float:
    """The step at which a bit more avoids `mu`, where a squared error of 1 costs `gain`."""
    return _STEP * math.sqrt(6 * mu / (math.log(2) * gain))


def _scales(columns: int) -> np.ndarray:
    return np.zeros(columns, "uint8")


def _sensitivity(fisher: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Divergence for each weight and square of a change, by layer; above 0."""
    means = {name: float(values.mean()) / 2 for name, values in fisher.items()}
    largest = max(means.values())
    if largest < _LEAST_SENSITIVITY:  # only proportions count, and `mu` has limits
        means = {name: value / largest if largest else 1.0 for name, value in means.items()}
        largest = 1.0
    return {name: max(value, largest * 1e-6) for name, value in means.items()}


def _short(values: np.ndarray) -> np.ndarray:
    """In half precision, where it can hold the values."""
    fits = np.abs(values).max(initial=0) < _FLOAT16
    return values.astype("float16" if fits else "float32")


def _line(x: float, xs: np.ndarray, ys: np.ndarray) -> float:
    """Interpolates, and goes on with the slope of the outermost pieces."""
    i = int(np.clip(np.searchsorted(xs, x) - 1, 0, len(xs) - 2))
    return float(ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i]))


Round = Callable[[Layer, _LayerProblem], Rounded]
