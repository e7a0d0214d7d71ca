"""The state of training beside the weights, and the update that changes both."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from ..network.heads import HEADS
from ..network.model import SqueezeNet
from ..network.stages import state_stages
from ..parallel.group import Group
from .gradients import Amp, make_gradients
from .inputs import Inputs
from .optim import Ema, LossScale, joint_norm, make_optimizer, scale_gradients
from .plan import Plan


class Solver:
    """Gradients, optimizer, moving average and loss scale of a run. What is not trained is frozen.

    Args:
        network: the network, whose parameters are changed in place.
        plan: of the run.
        device: "cpu", "gpu" or "gpu:N".
        inputs: what is trained on.
        group: the processes of the run.

    Attributes:
        gradients: adds to `grad` of the trained parameters.
        parameters: what is trained, by state-dict key.

    Raises:
        InputError: as `make_gradients`.
    """

    def __init__(
        self, network: SqueezeNet, plan: Plan, device: str, inputs: Inputs, group: Group
    ) -> None:
        config, machine = plan.solver, plan.config.machine
        network.freeze(config.trained_from)
        self.parameters = {
            name: parameter
            for name, parameter in network.named_parameters()
            if not parameter.stop_gradient
        }
        class_weights = None
        if config.balance:
            labels = inputs.train.images.labels
            class_weights = balanced_weights(labels, network.config.num_classes)
        amp = None if machine.amp is None else Amp(machine.amp, machine.amp_dtype)
        self.gradients = make_gradients(
            network,
            device,
            config.seed,
            label_smoothing=config.label_smoothing,
            to_static=machine.to_static,
            amp=amp,
            trained_from=config.trained_from,
            features_size=inputs.features_size,
            class_weights=class_weights,
        )
        stages = state_stages(network.config)
        self._optimizer = make_optimizer(
            config.optimizer,
            self.parameters,
            config.momentum,
            config.weight_decay,
            {key: config.head_lr_mult for key in self.parameters if stages[key] == "head"},
        )
        self._ema = None if config.ema_decay is None else Ema(self.parameters, config.ema_decay)
        self._loss_scale = LossScale() if amp is not None and amp.dtype == "float16" else None
        self._use_loss_scale()
        self._clip_norm, self._group = config.clip_norm, group
        normalised = HEADS[network.config.head].normalises_batches
        self._buffers = list(network.buffers()) if normalised else []

    @paddle.no_grad()
    def update(self, count: float, lr: float) -> bool:
        """Divides the gradients by the number of images and applies them, once for all processes.

        Args:
            count: of the images that the gradients are sums over, in all processes.
            lr: the learning rate.

        Returns:
            False if a gradient is not finite and there is no loss scale whose fault it may be; then
            nothing was changed.
        """
        parameters = list(self.parameters.values())
        self._group.sum_gradients(parameters)
        factor = 1.0 / (max(count, 1.0) * self.gradients.loss_scale)
        norm = joint_norm(parameters) * factor
        finite = math.isfinite(norm)
        if not finite and self._loss_scale is None:
            return False
        if self._clip_norm is not None and norm > self._clip_norm:
            factor *= self._clip_norm / norm
        if finite and count:
            scale_gradients(parameters, factor)
            self._optimizer.step(lr)
            if self._ema is not None:
                self._ema.update()
        self.clear_gradients()
        if self._loss_scale is not None:
            self._loss_scale.update(finite)
            self._use_loss_scale()
        if self._group.world_size > 1:
            self._average_buffers()
        return True

    def clear_gradients(self) -> None:
        """Forgets the gradients that were added up."""
        for parameter in self.parameters.values():
            parameter.clear_gradient(False)

    def averaged(self) -> contextlib.AbstractContextManager[object]:
        """Within it, the network has the averaged weights, where there are such."""
        return contextlib.nullcontext() if self._ema is None else self._ema.applied()

    def arrays(self) -> dict[str, np.ndarray]:
        """The state for a checkpoint; see `restore`."""
        arrays = {f"optimizer/{k}": v for k, v in self._optimizer.state_dict().items()}
        if self._ema is not None:
            arrays.update({f"ema/{k}": v for k, v in self._ema.state_dict().items()})
        return arrays

    def record(self) -> dict[str, Any] | None:
        """The loss scale for a checkpoint; None where there is none."""
        return None if self._loss_scale is None else self._loss_scale.state_dict()

    def restore(
        self, arrays: Mapping[str, Mapping[str, np.ndarray]], record: dict[str, Any] | None
    ) -> None:
        """Goes back to a checkpoint.

        Args:
            arrays: what `arrays` gave, by the part of each name before the slash.
            record: what `record` gave.
        """
        self._optimizer.set_state_dict(arrays["optimizer"])
        if self._ema is not None:
            self._ema.set_state_dict(arrays["ema"])
        if self._loss_scale is not None and record is not None:
            self._loss_scale.set_state_dict(record)
            self._use_loss_scale()

    def _use_loss_scale(self) -> None:
        self.gradients.loss_scale = 1.0 if self._loss_scale is None else self._loss_scale.value

    def _average_buffers(self) -> None:
        """Batch statistics are of each process's images; all go on with their mean."""
        for buffer in self._buffers:
            total = self._group.sum(buffer.numpy().astype("float64"))
            buffer.set_value((total / self._group.world_size).astype("float32"))


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """What an image counts by its class, so that all classes count the same: 1 on average.

    Args:
        labels: of all images, int64 [n].
        num_classes: length of the result.

    Returns:
        float32 [num_classes]; 0 for a class that has no image.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    weights = len(labels) / (present * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0).astype("float32")
