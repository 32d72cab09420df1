"""Laws of the allocator, against a plain list of what may be handed out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import svirtlib.allocator
from svirtlib import Level
from svirtlib.allocator import LevelAllocator
from svirtlib.errors import CategoriesExhaustedError

_LEVELS = st.builds(Level, st.integers(0, 2), st.sets(st.integers(0, 9), max_size=6))
_STEPS = st.lists(st.one_of(_LEVELS, st.integers(0, 30)), max_size=30)


@pytest.mark.parametrize("dense", [True, False])
@given(size=st.integers(1, 4), first=st.integers(0, 3), more=st.integers(0, 4), steps=_STEPS)
def test_hands_out_free_levels_and_only_those(
    size: int, first: int, more: int, steps: list[object], dense: bool
) -> None:
    """A level is free exactly if it is incomparable with every level in use."""
    last = first + size - 1 + more
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svirtlib.allocator, "_DENSE", 1 << 22 if dense else 0)
        allocator = LevelAllocator(size, first=first, last=last, sensitivity=1)
    everything = [
        Level(1, chosen) for chosen in itertools.combinations(range(first, last + 1), size)
    ]
    used: list[Level] = []
    for step in steps:
        if isinstance(step, Level):
            allocator.reserve(step)
            used.append(step)
        elif used and isinstance(step, int) and step % 2:
            allocator.release(used.pop(step % len(used)))
        free = [
            level
            for level in everything
            if all(not other.mask or level.incomparable_with(other) for other in used)
        ]
        assert allocator.free in (None, len(free))
        try:
            level = allocator.allocate()
        except CategoriesExhaustedError:
            assert not free
        else:
            assert level in free
            used.append(level)
        assert set(allocator.in_use) == set(used)
