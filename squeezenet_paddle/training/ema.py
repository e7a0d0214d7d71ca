"""An exponential moving average of the weights, to validate and save in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import paddle

from .optim import check_state


class Ema:
    """average = decay * average + (1 - decay) * weight, after each update of the weights.

    The n-th update, counted from 0, takes the smaller of `decay` and (1 + n) / (10 + n), so that
    the average soon leaves the weights that it started from. Buffers, the statistics of a batch
    normalisation, are not averaged: they are running averages already.

    Args:
        parameters: float32, the weights by state-dict key; they are the first average.
        decay: share of the average that an update keeps, at least 0 and below 1.
    """

    def __init__(self, parameters: Mapping[str, paddle.Tensor], decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._parameters = dict(parameters)
        self._averages = {key: p.detach().clone() for key, p in self._parameters.items()}

    @paddle.no_grad()
    def update(self) -> None:
        """Takes in the weights of now."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        for key, parameter in self._parameters.items():
            average = self._averages[key]
            average.add_((parameter - average).scale_(1 - decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the parameters hold the averages; after it what they held before."""
        weights = {key: p.detach().clone() for key, p in self._parameters.items()}
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(weights)

    @paddle.no_grad()
    def _fill(self, values: Mapping[str, paddle.Tensor]) -> None:
        for key, parameter in self._parameters.items():
            paddle.assign(values[key], output=parameter)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the averages, by the parameters' keys, and int64 "updates"."""
        averages = {key: average.numpy() for key, average in self._averages.items()}
        return {"updates": np.array(self._updates, np.int64), **averages}

    def set_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `state_dict` gave, bit for bit.

        Raises:
            InputError: something is missing, unexpected or of another shape; nothing was changed.
        """
        check_state(self.state_dict(), state, "the state of the averaged weights")
        self._updates = int(state["updates"])
        for key, average in self._averages.items():
            average.set_value(state[key])
