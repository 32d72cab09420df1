"""The allocator: what it hands out, what it refuses, and that each label comes once."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

import svirtlib.allocator
from svirtlib import LabelSpace, LabelSpaceError, Level
from svirtlib.allocator import LevelAllocator
from svirtlib.errors import AllocationError, CategoriesExhaustedError


def test_hands_out_two_categories_of_the_whole_space_by_default() -> None:
    """libvirt's shape: ``s0`` and two different categories of c0..c1023."""
    allocator = LevelAllocator()
    level = allocator.allocate()
    assert level.sensitivity == 0
    assert len(level.categories) == 2
    assert (allocator.capacity, allocator.free) == (523_776, 523_775)
    assert allocator.in_use == (level,)


@pytest.mark.slow
def test_hands_out_every_pair_exactly_once() -> None:
    """All 523,776 labels of the default space, then an error with the numbers."""
    allocator = LevelAllocator()
    levels = {allocator.allocate() for _ in range(523_776)}
    assert len(levels) == 523_776
    assert {bin(level.mask).count("1") for level in levels} == {2}
    with pytest.raises(CategoriesExhaustedError) as caught:
        allocator.allocate()
    assert (caught.value.wanted, caught.value.capacity, caught.value.free) == (1, 523_776, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_hands_out_every_level_of_a_size_within_an_interval(size: int) -> None:
    """Exhaustion comes exactly at capacity, for every number of categories."""
    allocator = LevelAllocator(size, first=100, last=107, sensitivity=3)
    wanted = {Level(3, chosen) for chosen in itertools.combinations(range(100, 108), size)}
    handed_out = allocator.allocate_many(allocator.capacity)
    assert set(handed_out) == wanted
    assert len(handed_out) == len(wanted)


def test_a_draw_is_uniform() -> None:
    """A chi-square test over 45 labels, with a false alarm in about 10^9 runs."""
    allocator = LevelAllocator(last=9)
    seen: Counter[Level] = Counter()
    draws = 9_000
    for _ in range(draws):
        level = allocator.allocate()
        seen[level] += 1
        allocator.release(level)
    expected = draws / 45
    statistic = sum((count - expected) ** 2 / expected for count in seen.values())
    assert len(seen) == 45
    # 44 degrees of freedom: the quantile of 1 - 10^-9.
    assert statistic < 124


def test_released_labels_come_back() -> None:
    """A full space that gives one label back hands out that one."""
    allocator = LevelAllocator(last=7)
    levels = allocator.allocate_many(28)
    allocator.release(levels[13])
    assert allocator.allocate() == levels[13]


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("s0", 28),  # comparable with all, and passed over
        ("s0:c1", 21),  # lies inside seven pairs
        ("s0:c1,c2", 27),
        ("s0:c2,c9", 28),  # a category outside: no pair includes it, nor the reverse
        ("s0:c1.c3", 25),
        ("s0:c3.c20", 18),
        ("s0:c0.c7", 0),
        ("s0:c0.c1023", 0),
        ("s0-s0:c0.c1023", 0),
        ("s1:c1,c2", 27),  # the higher sensitivity dominates
        ("s1:c1", 28),  # neither dominates the other
    ],
)
def test_never_hands_out_what_is_comparable_with_a_level_in_use(text: str, free: int) -> None:
    """Every level in use blocks the labels it dominates and those that dominate it."""
    from svirtlib import Range

    used = Range.parse(text).high
    allocator = LevelAllocator(last=7, in_use=[used])
    assert allocator.free == free
    if used.mask:
        assert all(level.incomparable_with(used) for level in allocator.allocate_many(free))
    allocator.release(used)
    assert allocator.free == (28 if not used.mask else 28 - free)


def test_a_level_with_several_holders_is_free_when_the_last_releases_it() -> None:
    """Two guests may have one static level; that is no reason to hand it out earlier."""
    level = Level.parse("s0:c1,c2")
    allocator = LevelAllocator(last=7, in_use=[level, level])
    allocator.release(level)
    assert allocator.free == 27
    allocator.release(level)
    assert allocator.free == 28
    with pytest.raises(AllocationError, match="s0:c1,c2 is not held"):
        allocator.release(level)


def test_many_are_handed_out_or_none() -> None:
    """A request over what is free changes nothing."""
    allocator = LevelAllocator(last=7)
    with pytest.raises(CategoriesExhaustedError, match="29 of 28 labels wanted, and only 28"):
        allocator.allocate_many(29)
    assert allocator.free == 28
    assert allocator.in_use == ()


def test_the_error_names_the_level_that_blocks_all() -> None:
    """``c0.c1023`` in use is the reason, not that labels were handed out."""
    allocator = LevelAllocator(in_use=[Level.parse("s0:c0.c1023")])
    with pytest.raises(CategoriesExhaustedError, match=r"s0:c0\.c1023 is in use and dominates"):
        allocator.allocate()


@pytest.mark.parametrize(
    ("size", "first", "last", "message"),
    [
        (0, 0, 1023, "no level of 0 categories"),
        (2, 5, 5, r"from the 1 of c5\.c5"),
        (2, 9, 5, r"no interval of categories c9\.c5"),
        (2, 0, 1024, "the policy has c0 to c1023"),
        (2, -1, 1023, "no interval"),
    ],
)
def test_refuses_what_makes_no_label(size: int, first: int, last: int, message: str) -> None:
    """The message says what there is."""
    with pytest.raises(AllocationError, match=message):
        LevelAllocator(size, first=first, last=last)


def test_refuses_levels_of_another_policy() -> None:
    """Numbers of two policies do not mean the same categories."""
    other = LabelSpace.numbered(1, 64)
    with pytest.raises(LabelSpaceError):
        LevelAllocator(in_use=[Level.parse("s0:c1", other)])


def test_a_huge_space_that_is_blocked_is_told_and_not_searched_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where free labels cannot be counted, the search for one is bounded."""
    monkeypatch.setattr(svirtlib.allocator, "_LOOKS", 1000)
    allocator = LevelAllocator(3, in_use=[Level.parse("s0:c0.c1023")])
    assert allocator.free is None
    with pytest.raises(CategoriesExhaustedError):
        allocator.allocate()
