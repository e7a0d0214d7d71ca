"""Dynamic loss scaling for float16 (Micikevicius et al., "Mixed precision training", 2018)."""

from __future__ import annotations

from typing import Any

GROWTH_INTERVAL = 2000  # updates; this and the factors are the usual ones
LARGEST, SMALLEST = 2.0**24, 1.0


class LossScale:
    """What the loss is multiplied by, so that small gradients do not vanish in float16.

    It halves when a gradient overflows, in which case the update is left out, and doubles after
    2,000 updates without that.

    Attributes:
        value: of the moment.
    """

    def __init__(self, value: float = 2.0**15) -> None:
        self.value = value
        self._good = 0

    def update(self, finite: bool) -> None:
        """Takes note of an update whose gradients were finite or not."""
        self._good = self._good + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, SMALLEST)
        elif self._good == GROWTH_INTERVAL:
            self.value, self._good = min(self.value * 2, LARGEST), 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "good": self._good}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self._good = state["value"], state["good"]
