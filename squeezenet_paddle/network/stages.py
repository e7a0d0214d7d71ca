"""The network cut in two: the stages before the cut are frozen, those after it are trained.

A *stage* is conv1, a fire (each with its pool), or the head.
"""

from __future__ import annotations

from .config import FIRES, ModelConfig, layers, output_shapes
from .weights import key_of, state_shapes

STAGES = ("conv1", *FIRES, "head")  # from the input to the logits


def is_trained(stage: str, trained_from: str) -> bool:
    """Whether a stage is trained where `trained_from` is the first one that is."""
    return STAGES.index(stage) >= STAGES.index(trained_from)


def boundary(config: ModelConfig, trained_from: str) -> list[str]:
    """The frozen layers whose outputs the trained stages read, in order.

    This is the last frozen map; for the heads `multiscale` and `compact` also the means of
    the frozen fires, or all means at once. Where nothing is frozen it is "data".
    """
    chain = layers(config)
    is_read = {n for each in chain if is_trained(each.stage, trained_from) for n in each.bottoms}
    frozen = [each.name for each in chain if not is_trained(each.stage, trained_from)]
    return [name for name in ("data", *frozen) if name in is_read]


def boundary_shapes(config: ModelConfig, trained_from: str, size: int) -> list[tuple[int, ...]]:
    """The shape of each output at the boundary, in NCHW, for an image of size x size pixels."""
    shapes = output_shapes(config, size, size)
    return [shapes[name] for name in boundary(config, trained_from)]


def logits_and_fire9(config: ModelConfig) -> list[str]:
    """The layer whose output are the logits, and that of fire9's maps, or of their means."""
    chain = layers(config)
    names = {each.name for each in chain}
    fire9 = next(n for n in ("fire9/pool", "fire9/sum", "fire9/concat") if n in names)
    return [chain[-1].name, fire9]


def state_stages(config: ModelConfig) -> dict[str, str]:
    """The stage of each array of a network, by its state-dict key."""
    stages = {key_of(layer): layer.stage for layer in layers(config)}
    return {key: stages[key.rpartition(".")[0]] for key in state_shapes(config)}
