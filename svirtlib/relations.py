"""Which of many levels are equal, and which dominate which.

Two guests whose levels are equal reach each other's images; a guest whose level strictly
dominates another's reaches that one's and not the reverse. This module finds both among any
number of levels. It knows nothing of guests: a level is told by its position in the input.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Optional, Union

import attr

from svirtlib._cover import fewest_stars
from svirtlib._inclusion import Family, bitmap, elements, popcount
from svirtlib.errors import LabelSpaceError
from svirtlib.mls import DEFAULT_SPACE, LabelSpace, Level

__all__ = ["Cause", "DominanceIndex", "Exposure", "Group", "Holders", "Relations", "relate"]

#: A level as callers may give it.
AnyLevel = Union[Level, str]


class Cause(enum.Enum):
    """What the exposures that are told together have in common."""

    #: One level, as a rule a wide one, that dominates others.
    DOMINATING = "dominating"
    #: One level, as a rule a narrow one, that others dominate.
    DOMINATED = "dominated"


@attr.frozen
class Group:
    """Those that hold one level."""

    level: Level
    #: Their positions in the input, ascending; all of them.
    members: tuple[int, ...]


@attr.frozen
class Holders:
    """Those that hold one of some levels, on one side of an :class:`Exposure`."""

    #: How many they are; exact.
    count: int
    #: How many different levels they hold; exact.
    levels: int
    #: Their positions in the input, ascending: the lowest, if there are more than the cap.
    members: tuple[int, ...]


@attr.frozen
class Exposure:
    """Strict dominance with one cause: each of *reaching* reaches each of *reached*."""

    by: Cause
    #: The one level: that of all *reaching* or of all *reached*, as *by* tells.
    level: Level
    #: Those whose levels dominate. The holders of the one level are never cut.
    reaching: Holders
    #: Those whose levels are dominated. The holders of the one level are never cut.
    reached: Holders


@attr.frozen
class Relations:
    """What :func:`relate` found."""

    #: Levels that more than one holds, in the order of their first holders.
    collisions: tuple[Group, ...]
    #: Strict dominance among levels that have categories: the fewest stars that tell all
    #: of it. Dominating causes come first; each kind ascends by its levels' sort keys.
    exposures: tuple[Exposure, ...]
    #: The levels without categories, ascending. Every level that has categories and no
    #: lower sensitivity dominates them; that is not in *exposures*.
    uncategorised: tuple[Group, ...]


def relate(
    levels: Sequence[AnyLevel], *, cap: int = 10_000, space: LabelSpace = DEFAULT_SPACE
) -> Relations:
    """Tell which of *levels* are equal and which strictly dominate which, exactly.

    A level is a :class:`Level` or its text in any spelling; ``s0:c2,c1`` equals
    ``s0:c1,c2``. Text is the quicker of the two for many levels. *cap* is the greatest
    number of positions listed on the far side of one exposure; counts are exact anyway.
    *space* gives the names in text their meaning.

    Raises:
        InvalidLevelError: a text is no level of *space*.
        LabelSpaceError: a level is of another policy than *space*.
    """
    distinct = _Distinct(levels, space)
    collisions = tuple(
        Group(distinct.level(number), distinct.members(number))
        for number, position in enumerate(distinct.first)
        if position in distinct.others
    )
    uncategorised = tuple(
        Group(level, distinct.members(number))
        for number, level in sorted(distinct.uncategorised.items(), key=_displayed)
    )
    return Relations(collisions, _exposures(distinct, cap, space), uncategorised)


def _exposures(distinct: _Distinct, cap: int, space: LabelSpace) -> tuple[Exposure, ...]:
    if not distinct.sets:
        # All have two categories and the same sensitivity: comparable only if equal.
        return ()
    inclusion = _Inclusion(distinct, space)
    family = inclusion.family
    including, included = fewest_stars(family)

    def centre(number: int) -> Holders:
        members = distinct.members(number)
        return Holders(len(members), 1, members)

    exposures = []
    for number, level in sorted(distinct.levels(including), key=_displayed):
        if number in family.wide:
            far = distinct.holders_in(family.inside_wide(number), cap)
        else:
            inside = family.subsets(inclusion.mask(level))
            far = distinct.holders_of([other for other in inside if other != number], cap)
        exposures.append(Exposure(Cause.DOMINATING, level, centre(number), far))
    for number, level in sorted(distinct.levels(included), key=_displayed):
        outside = family.supersets(inclusion.mask(level))
        far = distinct.holders_of([other for other in outside if other != number], cap)
        exposures.append(Exposure(Cause.DOMINATED, level, far, centre(number)))
    return tuple(exposures)


def _displayed(item: tuple[int, Level]) -> tuple[int, tuple[int, ...]]:
    return item[1].sort_key


class DominanceIndex:
    """Answers which of many levels dominate one level, or are dominated by it.

    The arguments are those of :func:`relate`. To a query, equal levels count as dominating
    and dominated, and levels without categories are levels as any other.

    Raises:
        InvalidLevelError: a text is no level of *space*.
        LabelSpaceError: a level is of another policy than *space*.
    """

    __slots__ = ("_distinct", "_inclusion", "_space")

    def __init__(self, levels: Sequence[AnyLevel], *, space: LabelSpace = DEFAULT_SPACE) -> None:
        self._space = space
        self._distinct = _Distinct(levels, space)
        self._inclusion = _Inclusion(self._distinct, space)

    def dominating(self, level: Level) -> Sequence[int]:
        """Return the positions of those whose levels dominate *level*, ascending.

        Raises:
            LabelSpaceError: *level* is of another policy.
        """
        _same_policy(level, self._space)
        numbers = [
            number
            for number, other in self._distinct.uncategorised.items()
            if other.dominates(level)
        ]
        numbers += self._inclusion.dominating(level)
        return self._distinct.positions(numbers)

    def dominated_by(self, level: Level) -> Sequence[int]:
        """Return the positions of those whose levels *level* dominates, ascending.

        Raises:
            LabelSpaceError: *level* is of another policy.
        """
        _same_policy(level, self._space)
        numbers = [
            number
            for number, other in self._distinct.uncategorised.items()
            if level.dominates(other)
        ]
        numbers += self._inclusion.dominated_by(level)
        return self._distinct.positions(numbers)


class _Distinct:
    """The different levels of an input, numbered in the order of their first holders."""

    __slots__ = (
        "_heavy",
        "_levels",
        "_space",
        "first",
        "others",
        "pairs",
        "sets",
        "uncategorised",
        "width",
    )

    #: Per number: the position of the first holder; ascending.
    first: list[int]
    #: Position of a first holder -> those of the other holders, ascending, if there are any.
    others: dict[int, list[int]]
    #: Levels of two categories and the lowest sensitivity, the shape that libvirt draws,
    #: as ``low * width + high`` -> their numbers. No :class:`Level` is made of them until
    #: one is asked for: that would take most of the time and of the memory.
    pairs: dict[int, int]
    #: Numbers of the other levels that have categories.
    sets: dict[int, Level]
    #: Numbers of the levels that have none.
    uncategorised: dict[int, Level]
    #: The factor in *pairs*; no element of an :class:`_Inclusion` is as great.
    width: int

    def __init__(self, levels: Sequence[AnyLevel], space: LabelSpace) -> None:
        self._levels = levels
        self._space = space
        self._heavy: Optional[list[int]] = None
        self.width = len(space.categories) + len(space.sensitivities)
        self.first = []
        self.pairs = {}
        self.sets = {}
        self.uncategorised = {}
        # One quick pass finds the first position of each text, and of that at each position.
        spellings: dict[AnyLevel, int] = {}
        origins = list(map(spellings.setdefault, levels, range(len(levels))))
        respelled = self._number(spellings)
        del spellings
        self.others = defaultdict(list)
        for position, origin in enumerate(origins):
            if position != origin:
                self.others[origin].append(position)
        for origin, number in respelled:
            found = self.others[self.first[number]]
            found.append(origin)
            found += self.others.pop(origin, ())
            found.sort()

    def _number(self, spellings: Mapping[AnyLevel, int]) -> list[tuple[int, int]]:
        """Number the different levels among *spellings*, which map to first positions.

        Returns:
            The first position of each further spelling of a level, and the level's number.
        """
        heads, tails = _halves(self._space)
        width = self.width
        first = self.first
        pairs = self.pairs
        others: dict[Level, int] = {}
        respelled = []
        for given, position in spellings.items():
            if isinstance(given, str):
                # Two single categories take a short cut past Level.
                head, _, tail = given.partition(",")
                low = heads.get(head)
                high = tails.get(tail)
                if low is not None and high is not None and low != high:
                    code = low * width + high if low < high else high * width + low
                    number = pairs.setdefault(code, len(first))
                    if number == len(first):
                        first.append(position)
                    else:
                        respelled.append((position, number))
                    continue
            level = _parsed(given, self._space)
            inside = level.categories
            if level.sensitivity == 0 and len(inside) == 2:
                low, high = inside
                number = pairs.setdefault(low * width + high, len(first))
            else:
                number = others.setdefault(level, len(first))
                if number == len(first):
                    (self.sets if level.mask else self.uncategorised)[number] = level
            if number == len(first):
                first.append(position)
            else:
                respelled.append((position, number))
        return respelled

    def level(self, number: int) -> Level:
        """Return the level of this number."""
        level = self.sets.get(number, self.uncategorised.get(number))
        if level is None:
            level = _parsed(self._levels[self.first[number]], self._space)
        return level

    def levels(self, numbers: Iterable[int]) -> list[tuple[int, Level]]:
        """Return each number with its level."""
        return [(number, self.level(number)) for number in numbers]

    def members(self, number: int) -> tuple[int, ...]:
        """Return the positions of all holders of one level, ascending."""
        position = self.first[number]
        return (position, *self.others.get(position, ()))

    def positions(self, numbers: Iterable[int]) -> list[int]:
        """Return the positions of all holders of some levels, ascending."""
        found = []
        for number in numbers:
            position = self.first[number]
            found.append(position)
            if position in self.others:
                found += self.others[position]
        found.sort()
        return found

    def holders_of(self, numbers: Sequence[int], cap: int) -> Holders:
        """Return the holders of some levels."""
        positions = self.positions(numbers)
        return Holders(len(positions), len(numbers), tuple(positions[:cap]))

    def holders_in(self, numbers: int, cap: int) -> Holders:
        """Return the holders of the levels in a bitmap, of which there may be very many."""
        if self._heavy is None:
            # Bit n of bitmap k tells whether bit k is set in the number of holders, but for
            # the first, of level n: so counting is a few operations on large integers.
            heavy: dict[int, list[int]] = defaultdict(list)
            for number, position in enumerate(self.first):
                for bit in elements(len(self.others.get(position, ()))):
                    heavy[bit].append(number)
            size = len(self.first)
            self._heavy = [bitmap(heavy[bit], size) for bit in range(max(heavy, default=-1) + 1)]
        levels = popcount(numbers)
        count = levels
        for bit, heavier in enumerate(self._heavy):
            count += popcount(numbers & heavier) << bit
        # Numbers ascend with the first positions: the lowest positions are among the holders
        # of as many levels.
        members = self.positions(islice(elements(numbers), cap))
        return Holders(count, levels, tuple(members[:cap]))


class _Inclusion:
    """Dominance as inclusion of sets.

    To the categories of a level as many more elements are added as there are sensitivities
    below its own: then one level dominates another exactly if its set includes the other's.
    """

    __slots__ = ("_categories", "_sensitivities", "family")

    #: The levels that have categories, under their numbers.
    family: Family

    def __init__(self, distinct: _Distinct, space: LabelSpace) -> None:
        found = {level.sensitivity for level in distinct.sets.values()}
        if distinct.pairs:
            found.add(0)
        #: Sensitivities of levels that have categories; no others make a difference.
        self._sensitivities = sorted(found)
        self._categories = len(space.categories)
        self.family = Family(
            distinct.width,
            distinct.pairs,
            {number: self.mask(level) for number, level in distinct.sets.items()},
            len(distinct.first),
        )

    def mask(self, level: Level) -> int:
        """Return the set of a level of the family."""
        return self._mask(level, bisect_left(self._sensitivities, level.sensitivity))

    def _mask(self, level: Level, below: int) -> int:
        return level.mask | ((1 << below) - 1) << self._categories

    def dominating(self, level: Level) -> Iterable[int]:
        """Return the numbers of the levels with categories that dominate *level*."""
        below = bisect_left(self._sensitivities, level.sensitivity)
        if below == len(self._sensitivities):
            return ()
        return self.family.supersets(self._mask(level, below))

    def dominated_by(self, level: Level) -> Iterable[int]:
        """Return the numbers of the levels with categories that *level* dominates."""
        below = bisect_right(self._sensitivities, level.sensitivity) - 1
        if below < 0:
            return ()
        return self.family.subsets(self._mask(level, below))


def _halves(space: LabelSpace) -> tuple[dict[str, int], dict[str, int]]:
    """Return what may stand before and after the comma of a level with two categories.

    Both map to the numbers of the categories. The level has the lowest sensitivity and
    primary names; for a policy that does not allow all categories with it, there are none.
    """
    categories = space.categories
    try:
        Level(0, range(len(categories)), space)
    except LabelSpaceError:
        return {}, {}
    lowest = space.sensitivities[0]
    return (
        {f"{lowest}:{name}": number for number, name in enumerate(categories)},
        {name: number for number, name in enumerate(categories)},
    )


def _parsed(level: AnyLevel, space: LabelSpace) -> Level:
    if isinstance(level, str):
        return Level.parse(level, space)
    _same_policy(level, space)
    return level


def _same_policy(level: Level, space: LabelSpace) -> None:
    if level.space is not space and level.space != space:
        raise LabelSpaceError(f"level {level} is of another policy than the one given")
