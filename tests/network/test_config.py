"""The tables of layers against the published facts."""

from __future__ import annotations

import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import (
    ModelConfig,
    layer_table,
    layers,
    minimum_input_size,
)


def total(config: ModelConfig) -> int:
    return sum(layer.parameters for layer in layers(config))


def test_published_parameter_counts() -> None:
    assert total(ModelConfig(version="1.1")) == 1_235_496
    assert total(ModelConfig(version="1.0")) == 1_248_424


@pytest.mark.parametrize(
    ("version", "size", "maps"),
    [
        ("1.1", 227, [113, 56, 28, 14]),
        ("1.1", 224, [111, 55, 27, 13]),
        ("1.0", 227, [111, 55, 27, 13]),
        ("1.0", 224, [109, 54, 27, 13]),
    ],
)
def test_map_sizes(version: str, size: int, maps: list[int]) -> None:
    rows = layer_table(ModelConfig(version=version), size, size)
    heights = list(dict.fromkeys(row.height for row in rows if row.height > 1))
    # v1.0 pads conv10 by one on either side
    assert heights == (maps if version == "1.1" else [*maps, maps[-1] + 2])
    assert all(row.height == row.width for row in rows)


def test_multiply_adds_by_hand() -> None:
    rows = {row.layer.name: row for row in layer_table(ModelConfig(), 227, 227)}
    assert rows["conv1"].multiply_adds == 113 * 113 * 64 * 3 * 3 * 3
    assert rows["fire9/expand3x3"].multiply_adds == 14 * 14 * 256 * 64 * 9
    assert rows["pool1"].multiply_adds == rows["fire2/concat"].multiply_adds == 0


def test_v1_1_needs_2_4_times_less_computation() -> None:
    """The claim of the authors' README for v1.1."""
    v1_0, v1_1 = (
        sum(row.multiply_adds for row in layer_table(ModelConfig(version=v), 227, 227))
        for v in ("1.0", "1.1")
    )
    assert 2.2 < v1_0 / v1_1 < 2.5


@pytest.mark.parametrize(
    ("bypass", "sums", "convolutions"),
    [
        ("none", [], []),
        ("simple", ["fire3", "fire5", "fire7", "fire9"], []),
        (
            "complex",
            [f"fire{i}" for i in range(2, 10)],
            ["fire2", "fire4", "fire6", "fire8"],
        ),
    ],
)
def test_bypass_layers(bypass: str, sums: list[str], convolutions: list[str]) -> None:
    names = [layer.name for layer in layers(ModelConfig(bypass=bypass))]
    assert [n.split("/")[0] for n in names if n.endswith("/sum")] == sums
    assert [n.split("/")[0] for n in names if n.endswith("/bypass1x1")] == convolutions


def test_a_shortcut_starts_after_the_pool() -> None:
    by_name = {layer.name: layer for layer in layers(ModelConfig(version="1.0", bypass="simple"))}
    assert by_name["fire5/sum"].bottoms == ("fire5/concat", "pool4")
    assert by_name["fire9/sum"].bottoms == ("fire9/concat", "pool8")
    assert by_name["fire3/sum"].bottoms == ("fire3/concat", "fire2/concat")


@pytest.mark.parametrize(("version", "minimum"), [("1.1", 17), ("1.0", 21)])
def test_minimum_input_size(version: str, minimum: int) -> None:
    assert minimum_input_size(version) == minimum
    config = ModelConfig(version=version)
    assert min(row.height for row in layer_table(config, minimum, minimum + 1)) == 1
    with pytest.raises(InputError, match=f"at least {minimum}x{minimum} pixels; found {minimum}x5"):
        layer_table(config, minimum, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "1.2"),
        ("bypass", "both"),
        ("activation", "gelu"),
        ("head", "linear"),
        ("data_format", "CHWN"),
        ("num_classes", 0),
        ("num_classes", 2.0),
        ("num_classes", True),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", "half"),
        ("dropout", float("nan")),
    ],
)
def test_config_names_the_wrong_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{field} must be .*found"):
        ModelConfig(**{field: value})
