"""The part of the C code that depends on the network: its arrays, its memory, its layers."""

from __future__ import annotations

from dataclasses import dataclass

from ...network.centers import centers
from ...network.config import FIRES, Layer, ModelConfig, layers, output_shapes
from ...network.heads import HEADS
from .memory import Memory

TILE = 12  # positions that a kernel computes at once, at most; it may read so many too far
MAX_BLOCKS = 8  # of rows of conv1, which threads share
_DECODER = 18_000  # floats that the decoder of a weights file takes, beside some of each layer


@dataclass(frozen=True)
class Code:
    """C code of a network.

    Attributes:
        arrays: the places of all arrays among the weights, and their table.
        memory: the places of the maps.
        forward: the function `forward`.
        steps: the distances of windows that convolutions are needed for.
        maps: floats of all maps.
    """

    arrays: str
    memory: str
    forward: str
    steps: list[int]
    maps: int


def code_of(config: ModelConfig, side: int, scratch: int) -> Code:
    """The code of a network for images of side x side pixels.

    Args:
        config: which network.
        side: in pixels.
        scratch: floats that the preprocessing needs.
    """
    return _Writer(config, side, scratch).code


def macro(name: str) -> str:
    """The name of a layer, or of an array of one, in C: FIRE2_SQUEEZE1X1."""
    return name.replace("/", "_").replace(".", "_").upper()


class _Writer:
    def __init__(self, config: ModelConfig, side: int, scratch: int) -> None:
        self._config, self._side = config, side
        self._head = HEADS[config.head]
        self._layers = {each.name: each for each in layers(config)}
        self._shapes = output_shapes(config, side, side)
        self._steps: set[int] = set()
        self._memory = Memory()
        self._lines: list[str] = []
        weighted = [each for each in self._layers.values() if each.weight_shape]
        self._outputs = max(each.channels for each in weighted)
        self._columns = max(each.in_channels * each.kernel**2 for each in weighted)
        self._decoder = _DECODER + (self._outputs + 2 * self._columns) // 4
        places, table = self._arrays()
        self._memory.add("SCRATCH", scratch)
        self._memory.add("DECODER", self._decoder)
        self._memory.add("INPUT", 3 * side * side + 6 * TILE + 64)
        self._memory.step()
        x = self._conv1()
        for fire in FIRES:
            x = self._fire(fire, x)
        self._end(x)
        largest = max((h * w for _, h, w in map(self._shapes.get, self._mapped())), default=0)  # type: ignore[misc]
        self._memory.add("MAP", largest)
        self._memory.keep("MAP")
        self._memory.keep("SCRATCH")  # another image may be preprocessed before a map is asked for
        if self._head.pools_fires:
            self._memory.keep("INPUT")
        size = self._memory.place()
        buffers = self._memory.buffers.items()
        starts = "".join(f"    {name} = {each.start},\n" for name, each in buffers)
        memory = (
            "/* Where maps start, in floats; what is needed at different times overlaps. */\n"
            f"enum {{\n{starts}    MAPS = {size}\n}};\n"
        )
        body = "\n".join(self._lines)
        forward = (
            "/* Runs the network on INPUT. With `heat` it adds the evidence of the fires instead: "
            "see\n * end_fire. */\n"
            "static void forward(sqz_net *net, const float *gradient, float *heat)\n{\n"
            "    const float *w = net->weights;\n    float *m = net->maps;\n"
            f"{body}\n}}\n"
        )
        self.code = Code(f"{places}\n{table}", memory, forward, sorted(self._steps), size)

    def _mapped(self) -> list[str]:
        """The layers whose positions have maps of evidence."""
        return [self._output(fire) for fire in FIRES] if self._head.pools_fires else ["conv10"]

    def _output(self, fire: str) -> str:
        name = f"{fire}/sum"
        return name if name in self._layers else f"{fire}/concat"

    # --- arrays

    def _arrays(self) -> tuple[str, str]:
        places, rows = [], []
        sizes: list[tuple[str, str]] = []
        for layer in self._layers.values():
            n = layer.channels
            if layer.type == "BatchNorm":
                arrays = [(name, f"{n}") for name in ("WEIGHT", "BIAS", "MEAN", "VARIANCE")]
            elif layer.weight_shape:
                window = layer.in_channels * layer.kernel**2
                arrays = [("WEIGHT", f"PADDED({n}) * {window}"), ("BIAS", f"PADDED({n})")]
            else:
                continue
            for name, size in arrays:
                place = f"{macro(layer.name)}_{name}"
                is_weight = name == "WEIGHT" and layer.type != "BatchNorm"
                window_of = f"{layer.in_channels}, {layer.kernel}" if is_weight else "1, 0"
                rows.append(f"    {{{n}, {window_of}, {place}}}, /* {layer.name} */\n")
                sizes.append((place, size))
        before = "0"
        for place, size in sizes:
            places.append(f"    {place} = {before},\n")
            before = f"{place} + {size}"
        text = "".join(places)
        enum = (
            "/* Where arrays start among the weights. */\n"
            f"enum {{\n{text}    WEIGHTS = {before}\n}};\n"
        )
        table = (
            "/* All arrays in the order of a weights file. Kernel 0: a number for each output. */\n"
            f"#define ARRAYS {len(rows)}\n"
            f"#define MOST_OUTPUTS {self._outputs}\n"
            f"#define MOST_COLUMNS {self._columns}\n"
            f"#define DECODER_FLOATS {self._decoder}\n"
            "static const struct {\n    size_t outputs, inputs, kernel, at;\n"
            f"}} arrays[ARRAYS] = {{\n{''.join(rows)}}};\n"
        )
        return enum, table

    # --- layers

    def _say(self, comment: str, *calls: str) -> None:
        self._lines += ["", f"    /* {comment} */", *[f"    {call}" for call in calls]]

    def _size(self, name: str) -> tuple[int, int, int]:
        channels, height, width = self._shapes[name]
        return channels, height, width

    def _map(self, name: str, slack: int = TILE) -> str:
        channels, height, width = self._size(name)
        return self._memory.add(macro(name), (height * (width + 1) + slack) * channels)

    def _convolution(
        self, layer: Layer, x: str, count: int, y: str, y_step: int, mode: str, width: int = 0
    ) -> str:
        """A call for a layer of `count` positions; `width` is that of the map for a 3x3 window."""
        channels = layer.in_channels
        self._steps.add(channels)
        window = f"1, 0, {channels}"
        if layer.kernel == 3:
            window = f"3, {(width + 1) * channels}, {3 * channels}"
        name = macro(layer.name)
        return (
            f"convolution_{channels}({x}, {count}, {window},\n        w + {name}_WEIGHT, "
            f"w + {name}_BIAS, {layer.channels}, {y}, {y_step}, {mode});"
        )

    def _conv1(self) -> str:
        layer = self._layers["conv1"]
        channels, height, width = self._size("conv1")
        kernel = layer.kernel
        out = self._map("pool1")
        self._memory.add("CONV1_ROWS", MAX_BLOCKS * 3 * width * channels)
        _, out_height, out_width = self._size("pool1")
        self._say(
            f"conv1: 3 -> {channels}, {kernel}x{kernel}, stride 2, {height} x {width}; "
            f"pool1: {out_height} x {out_width}",
            f"conv1_and_pool1(m + INPUT, {kernel}, w + CONV1_WEIGHT, w + CONV1_BIAS, {channels}, "
            f"{height}, {width},",
            f"                m + CONV1_ROWS, m + {out});",
        )
        self._memory.step("INPUT", out, "CONV1_ROWS")
        return out

    def _fire(self, fire: str, x: str) -> str:
        squeeze, e1, e3 = (
            self._layers[f"{fire}/{part}"] for part in ("squeeze1x1", "expand1x1", "expand3x3")
        )
        channels, height, width = self._size(f"{fire}/concat")
        n, s = height * (width + 1), squeeze.channels
        framed = self._memory.add(
            f"{macro(fire)}_SQUEEZE", ((height + 2) * (width + 1) + 1 + TILE + 2) * s
        )
        inside = f"m + {framed} + {(width + 2) * s}"
        self._say(
            f"{fire}/squeeze1x1: {squeeze.in_channels} -> {s}, {height} x {width}",
            self._convolution(squeeze, f"m + {x}", n, inside, s, "ACTIVATED"),
            f"clear_frame(m + {framed}, {height}, {width}, {s});",
        )
        self._memory.step(x, framed)
        out = self._map(self._output(fire))
        self._say(
            f"{fire}/expand1x1 and {fire}/expand3x3: {s} -> {e1.channels} + {e3.channels}",
            self._convolution(e1, inside, n, f"m + {out}", channels, "ACTIVATED"),
            self._convolution(
                *(e3, f"m + {framed}", n, f"m + {out} + {e1.channels}", channels, "ACTIVATED"),
                width,
            ),
        )
        bypass = self._layers.get(f"{fire}/bypass1x1")
        if bypass is not None:
            call = self._convolution(bypass, f"m + {x}", n, f"m + {out}", channels, "ADDED")
            self._say(f"{bypass.name}: {bypass.in_channels} -> {channels}, {fire}/sum", call)
        elif f"{fire}/sum" in self._layers:
            self._say(
                f"{fire}/sum: its input is added", f"add(m + {out}, m + {x}, {n * channels});"
            )
        if self._head.pools_fires:
            start = sum(self._shapes[f"{f}/concat"][0] for f in FIRES if f < fire)
            offset, step = self._centers(fire)
            self._say(
                f"{fire}/pool",
                f"end_fire(net, m + {out}, {height}, {width}, {channels}, {start}, "
                f"{offset}, {step}, gradient, heat);",
            )
        self._memory.step(x, framed, out)
        pool = self._config.facts.pools.get(fire)
        if pool is None:
            return out
        pooled = self._map(pool)
        _, h, w = self._size(pool)
        self._say(
            f"{pool}: {h} x {w}",
            f"max_pool(m + {out}, {height}, {width}, {channels}, m + {pooled});",
        )
        self._memory.step(out, pooled)
        return pooled

    def _centers(self, name: str) -> tuple[float, float]:
        first, second = centers(self._config, name, 2).tolist()
        return first, second - first

    def _end(self, x: str) -> None:
        channels, height, width = self._size(self._output("fire9"))
        if self._head.pools_fires:
            self._end_of_pools(channels)
            return
        n = height * (width + 1)
        self._say(
            "the means of fire9, of which the familiarity is made",
            f"means(m + {x}, {height}, {width}, {channels}, net->fire9);",
        )
        if "bn9" in self._layers:
            self._say("bn9", f"normalise(m + {x}, {n}, {channels}, w + BN9_WEIGHT, w + BN9_BIAS);")
        conv10 = self._layers["conv10"]
        c, pad = conv10.channels, conv10.pad
        out = self._memory.add("CONV10_MAPS", (n + TILE) * c)
        target = "net->logits" if self._head.classifier == "conv10" else "net->pool10"
        self._say(
            f"conv10: {channels} -> {c}; pool10",
            self._convolution(conv10, f"m + {x}", n, f"m + {out}", c, "ACTIVATED"),
            f"means(m + {out}, {height}, {width}, {c}, {target});",
        )
        if pad:
            inner, whole = height * width, (height + 2 * pad) * (width + 2 * pad)
            self._say(
                "conv10 pads its input with zeros, where its output is its activated bias",
                f"for (size_t i = 0; i < {c}; i++)",
                f"    {target}[i] = ({target}[i] * {inner} + activation(w[CONV10_BIAS + i]) "
                f"* {whole - inner}) / {whole};",
            )
        if self._head.classifier == "fc":
            self._say(
                f"fc: {c} -> {self._config.num_classes}",
                f"linear(net->pool10, {c}, w + FC_WEIGHT, w + FC_BIAS, SQZ_CLASSES, net->logits, "
                "LINEAR);",
            )
        self._lines += ["    (void)gradient;", "    (void)heat;"]
        self._memory.step(x, out)

    def _end_of_pools(self, fire9: int) -> None:
        pools, fc10 = self._layers["bn_pools"].channels, self._layers["fc10"]
        self._say(
            "the means of fire9, of which the familiarity is made",
            "if (heat) return;",
            f"memcpy(net->fire9, net->pools + {pools - fire9}, sizeof net->fire9);",
        )
        self._say(
            "bn_pools",
            "memcpy(net->normalised, net->pools, sizeof net->pools);",
            f"normalise(net->normalised, 1, {pools}, w + BN_POOLS_WEIGHT, w + BN_POOLS_BIAS);",
        )
        self._say(
            f"fc10: {pools} -> {fc10.channels}, fc: {fc10.channels} -> {self._config.num_classes}",
            f"linear(net->normalised, {pools}, w + FC10_WEIGHT, w + FC10_BIAS, {fc10.channels}, "
            "net->hidden, ACTIVATED);",
            f"linear(net->hidden, {fc10.channels}, w + FC_WEIGHT, w + FC_BIAS, SQZ_CLASSES, "
            "net->logits, LINEAR);",
        )
