"""Where the maps of a network lie in one block of memory, which later layers use again."""

from __future__ import annotations

from dataclasses import dataclass

ALIGNMENT = 16  # floats


@dataclass
class Buffer:
    """A part of the memory, in floats, and the first and last step at which it is needed."""

    size: int
    first: int
    last: int
    start: int = 0


class Memory:
    """Buffers by name, of which those that are needed at the same time do not overlap."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}
        self._step = 0

    def add(self, name: str, size: int) -> str:
        """A buffer that is needed from this step on."""
        size = -(-size // ALIGNMENT) * ALIGNMENT
        self.buffers[name] = Buffer(size, self._step, self._step)
        return name

    def step(self, *used: str) -> None:
        """Ends a step in which the buffers that are named, and those of this step, are needed."""
        for name in used:
            self.buffers[name].last = self._step
        self._step += 1

    def keep(self, name: str) -> None:
        """Makes a buffer last from the start to the end."""
        self.buffers[name].first, self.buffers[name].last = 0, self._step

    def place(self) -> int:
        """Gives each buffer its start, the largest ones first; returns the size of the block."""
        placed: list[Buffer] = []
        for each in sorted(self.buffers.values(), key=lambda b: -b.size):
            beside = [b for b in placed if b.first <= each.last and each.first <= b.last]
            for other in sorted(beside, key=lambda b: b.start):
                if each.start + each.size <= other.start:
                    break
                each.start = max(each.start, other.start + other.size)
            placed.append(each)
        return max(b.start + b.size for b in placed)
