"""What computes and applies the updates that a recipe describes, in training and in range tests."""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from ..network.model import SqueezeNet
from ..network.stages import state_stages
from .gradients import Gradients, make_gradients
from .optim import Optimizer, make_optimizer
from .recipe import Inputs, Machine, Recipe, balanced_weights


@dataclass(frozen=True)
class Solver:
    """Gradients and the optimizer of a network.

    Attributes:
        parameters: what is trained, by state-dict key.
        gradients: adds to `grad` of these.
        optimizer: updates these.
    """

    parameters: dict[str, paddle.Tensor]
    gradients: Gradients
    optimizer: Optimizer


def make_solver(network: SqueezeNet, recipe: Recipe, machine: Machine, inputs: Inputs) -> Solver:
    """Freezes what the recipe does not train, and makes the solver of the rest.

    Raises:
        InputError: as `make_gradients`.
    """
    network.freeze(recipe.first)
    named = {name: p for name, p in network.named_parameters() if not p.stop_gradient}
    class_weights = None
    if recipe.balance:
        labels = inputs.train.images.labels
        class_weights = balanced_weights(labels, network.config.num_classes)
    gradients = make_gradients(
        network,
        machine.device,
        recipe.seed,
        label_smoothing=recipe.label_smoothing,
        to_static=machine.to_static,
        amp=machine.amp,
        first=recipe.first,
        features_size=inputs.features_size,
        class_weights=class_weights,
    )
    stages = state_stages(network.config)
    optimizer = make_optimizer(
        recipe.optimizer,
        named,
        recipe.momentum,
        recipe.weight_decay,
        {key: recipe.head_lr_mult for key in named if stages[key] == "head"},
    )
    return Solver(named, gradients, optimizer)
