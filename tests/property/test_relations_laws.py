"""The laws of equal and dominating levels among many.

What relate() and DominanceIndex find by look-ups and bitmaps is held to the plain definition:
every level is compared with every other.
"""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from levelfamilies import FAMILIES

from svirtlib import _cover, _inclusion
from svirtlib.mls import Level
from svirtlib.relations import Cause, DominanceIndex, Group, Holders, relate


@st.composite
def _categories(draw, width):
    """A set of categories below *width*: random, a run, or a link of one chain."""
    size = draw(st.sampled_from([0, 1, 1, 2, 2, 2, 2, 3, 4, 8, width // 2, width]))
    size = min(size, width)
    kind = draw(st.sampled_from(["any", "any", "run", "chain"]))
    if kind == "any" and size <= 8:
        return draw(st.frozensets(st.integers(0, width - 1), min_size=size, max_size=size))
    start = 0 if kind == "chain" else draw(st.integers(0, width - size))
    return frozenset(range(start, start + size))


@st.composite
def families(draw):
    """Levels as relate() takes them: canonical or other text, or values; near each other."""
    width = draw(st.sampled_from([3, 5, 12, 100]))
    sensitivities = draw(st.sampled_from([(0,), (0,), (0, 1), (1, 2, 3)]))
    pool = draw(
        st.lists(
            st.builds(Level, st.sampled_from(sensitivities), _categories(width)),
            min_size=1,
            max_size=30,
        )
    )
    return [
        draw(st.sampled_from([_shuffled, str, lambda level: level]))(level)
        for level in draw(st.lists(st.sampled_from(pool), max_size=40))
    ]


def _shuffled(level):
    """A text of *level* that is not canonical, if there is one."""
    if not level.mask:
        return str(level)
    categories = list(level.categories)
    random.Random(level.mask).shuffle(categories)
    return f"s{level.sensitivity}:" + ",".join(f"c{number}" for number in categories)


def _parsed(given_levels):
    return [Level.parse(level) if isinstance(level, str) else level for level in given_levels]


class Naive:
    """What holds of some levels by definition; different ones are told by numbers."""

    def __init__(self, given_levels):
        members = defaultdict(list)
        for position, level in enumerate(_parsed(given_levels)):
            members[level].append(position)
        self.levels = list(members)
        self.members = list(members.values())
        self.number = {level: number for number, level in enumerate(self.levels)}
        self.below = defaultdict(set)
        self.above = defaultdict(set)
        plain = [(level.sensitivity, level.mask) for level in self.levels]
        # Not Level.dominates(): a million calls of it take their time.
        for high, (high_sensitivity, high_mask) in enumerate(plain):
            for low, (sensitivity, mask) in enumerate(plain):
                if low == high:
                    continue
                if mask and mask & high_mask == mask and sensitivity <= high_sensitivity:
                    self.below[high].add(low)
                    self.above[low].add(high)

    def groups(self, wanted):
        """The levels that are *wanted* for what they are or who holds them, with holders."""
        return [
            Group(level, tuple(members))
            for level, members in zip(self.levels, self.members)
            if wanted(level, members)
        ]

    def centres(self, exposures):
        """The levels of which all that they dominate is told, and the others."""
        wide = [self.number[told.level] for told in exposures if told.by is Cause.DOMINATING]
        narrow = [self.number[told.level] for told in exposures if told.by is Cause.DOMINATED]
        return wide, narrow

    def assert_told_once(self, wide, narrow):
        """Each dominance is told; each of the levels tells one that no other tells."""
        both = set(wide), set(narrow)
        assert list(map(len, both)) == [len(wide), len(narrow)]
        assert all(low <= both[1] for high, low in self.below.items() if high not in both[0])
        assert all(self.below[high] - both[1] for high in wide)
        assert all(self.above[low] - both[0] for low in narrow)

    def assert_complete(self, exposures, cap):
        """Each exposure has all that its level dominates, or that dominates it."""
        for exposure in exposures:
            number = self.number[exposure.level]
            centre = self._holders([number])
            if exposure.by is Cause.DOMINATING:
                assert exposure.reaching == centre
                assert exposure.reached == self._holders(self.below[number], cap)
            else:
                assert exposure.reaching == self._holders(self.above[number], cap)
                assert exposure.reached == centre

    def _holders(self, numbers, cap=None):
        positions = sorted(position for number in numbers for position in self.members[number])
        return Holders(len(positions), len(numbers), tuple(positions[:cap]))


def _greatest_matching(neighbours):
    """The most edges of which no two have an end in common."""
    partner = {}

    def match(left, tried):
        for right in neighbours[left]:
            if right not in tried:
                tried.add(right)
                if right not in partner or match(partner[right], tried):
                    partner[right] = left
                    return True
        return False

    return sum(match(left, set()) for left in neighbours)


@given(families())
def test_collisions_are_the_classes_of_equal_levels(drawn):
    classes = Naive(drawn).groups(lambda _, members: len(members) > 1)
    assert list(relate(drawn).collisions) == classes


@given(families())
def test_uncategorised_are_the_levels_without_categories(drawn):
    classes = Naive(drawn).groups(lambda level, _: not level.mask)
    classes.sort(key=lambda group: group.level.sensitivity)
    assert list(relate(drawn).uncategorised) == classes


@given(families())
def test_exposures_tell_all_strict_dominance_and_none_is_redundant(drawn):
    naive = Naive(drawn)
    naive.assert_told_once(*naive.centres(relate(drawn).exposures))


@given(families(), st.sampled_from([0, 1, 3, 1000]))
def test_an_exposure_is_complete_whatever_others_tell(drawn, cap):
    """Counts are exact, and the lowest positions are listed."""
    Naive(drawn).assert_complete(relate(drawn, cap=cap).exposures, cap)


@given(families())
def test_no_fewer_exposures_can_tell_all(drawn):
    """Edges without a level in common need an exposure each."""
    assert len(relate(drawn).exposures) == _greatest_matching(Naive(drawn).below)


_ends = st.integers(0, 11)


@given(st.dictionaries(_ends, st.lists(_ends, max_size=4, unique=True), max_size=12))
def test_a_smallest_cover_has_an_end_of_every_edge(neighbours):
    """And no more ends than edges can be chosen of which no two share one."""
    lefts, rights = _cover.smallest_cover(list(neighbours), neighbours.__getitem__)
    assert all(left in lefts or rights.issuperset(ends) for left, ends in neighbours.items())
    assert len(lefts) + len(rights) == _greatest_matching(neighbours)


@given(families(), st.randoms(use_true_random=False))
def test_exposures_do_not_depend_on_the_order_of_the_input(drawn, generator):
    def shape(levels):
        return [
            (e.by, e.level, e.reaching.count, e.reached.count) for e in relate(levels).exposures
        ]

    shuffled = list(drawn)
    generator.shuffle(shuffled)
    assert shape(shuffled) == shape(drawn)


@given(families())
def test_spelling_makes_no_difference(drawn):
    as_given = relate(drawn)
    as_values = relate(_parsed(drawn))
    assert list(as_given.collisions) == list(as_values.collisions)
    assert as_given.exposures == as_values.exposures
    assert as_given.uncategorised == as_values.uncategorised


@given(families(), st.builds(Level, st.integers(0, 4), _categories(12)))
def test_the_index_answers_by_the_definition(drawn, level):
    index = DominanceIndex(drawn)
    values = _parsed(drawn)
    for query in {level, *values}:
        assert list(index.dominating(query)) == [
            position for position, other in enumerate(values) if other.dominates(query)
        ]
        assert list(index.dominated_by(query)) == [
            position for position, other in enumerate(values) if query.dominates(other)
        ]


@given(families(), st.integers(0, 5))
def test_beyond_the_bounded_search_all_is_still_told_by_no_more_than_one_kind(drawn, edges):
    """Where no smallest cover is sought, it is no larger than the better uniform grouping."""
    _assert_told_by_few(Naive(drawn), edges)


@pytest.mark.parametrize("edges", [0, 1, 10_000])
def test_wide_levels_beyond_the_bounded_search_are_told_too(edges):
    """A chain of wide levels; the same with others beside it; many levels above a single one."""
    chain = [Level(0, range(end)) for end in range(1, 90)]
    _assert_told_by_few(Naive(chain), edges)
    _assert_told_by_few(Naive([*chain, Level(0, (0, *range(2, 500)))]), edges)
    _assert_told_by_few(Naive([*chain, Level(0, range(50, 90))]), edges)
    fan = [Level(0, (*range(40), top)) for top in range(500, 520)]
    _assert_told_by_few(Naive([Level(0, range(40)), *fan]), edges)


def _assert_told_by_few(naive, edges):
    masks = [level.mask | (1 << level.sensitivity) - 1 << 1024 for level in naive.levels]
    sets = {n: mask for n, (mask, level) in enumerate(zip(masks, naive.levels)) if level.mask}
    wide, narrow = _cover.fewest_stars(_inclusion.Family(1040, {}, sets, len(masks)), edges)
    naive.assert_told_once(sorted(wide), sorted(narrow))
    assert len(wide) + len(narrow) <= min(len(naive.below), len(naive.above))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_thousand_guests_are_related_as_by_the_definition(name):
    drawn = FAMILIES[name](1000)
    naive = Naive(drawn)
    found = relate(drawn, cap=7)
    assert list(found.collisions) == naive.groups(lambda _, members: len(members) > 1)
    naive.assert_told_once(*naive.centres(found.exposures))
    naive.assert_complete(found.exposures, 7)
    assert len(found.exposures) <= min(len(naive.below), len(naive.above))
