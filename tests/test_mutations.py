"""Damaged files of our own formats end in one line, or are read as what they were."""

from __future__ import annotations

import pytest
from mutate import BAD, FORMATS, outcomes


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name: str) -> None:
    found = outcomes(name, 200)
    assert sum(found.values()) == 200
    assert not any(found[each] for each in BAD), found
