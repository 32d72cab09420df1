"""Which of many levels are equal, and which dominate which.

Two guests whose levels are equal reach each other's images; a guest whose level strictly
dominates another's reaches that one's and not the reverse. This module finds both among any
number of levels. It knows nothing of guests: a level is told by its position in the input.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from itertools import chain, compress, islice
from typing import Optional, Union, overload

import attr

from svirtlib._collection import no_collection
from svirtlib._cover import fewest_stars
from svirtlib._inclusion import Family, bitmap, elements, flags, popcount
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


@attr.frozen(eq=False)
class Relations:
    """What :func:`relate` found."""

    #: Levels that more than one holds, in the order of their first holders. A group is made
    #: anew each time that it is looked at: of a million guests hundreds of thousands share.
    collisions: Sequence[Group]
    #: Strict dominance among levels that have categories: the fewest stars that tell all
    #: of it. Dominating causes come first; each kind ascends by sensitivity, and then by the
    #: highest category that two do not share.
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
        ValueError: *cap* is negative.
    """
    if cap < 0:
        raise ValueError(f"a cap of {cap} positions")
    with no_collection():
        distinct = _Distinct(levels, space)
        shared = [number for number, members in enumerate(distinct.members) if len(members) > 1]
        return Relations(
            _Groups(distinct, shared),
            _exposures(distinct, cap, space),
            tuple(distinct.group(number) for number, _ in distinct.sorted(distinct.uncategorised)),
        )


def _exposures(distinct: _Distinct, cap: int, space: LabelSpace) -> tuple[Exposure, ...]:
    if not distinct.sets:
        # All have two categories and the same sensitivity: comparable only if equal.
        return ()
    inclusion = _Inclusion(distinct, space)
    family = inclusion.family
    including, included = fewest_stars(family)
    census = _Census(distinct, cap)
    exposures = []
    for number, level in distinct.sorted(including):
        if number in family.wide:
            far = census.in_bitmap(family.inside_wide(number))
        else:
            far = census.of(family.strict_subsets(number, inclusion.mask(level)))
        near = tuple(distinct.members[number])
        exposures.append(Exposure(Cause.DOMINATING, level, Holders(len(near), 1, near), far))
    for number, level in distinct.sorted(included):
        outside = family.supersets(inclusion.mask(level))
        far = census.of([other for other in outside if other != number])
        near = tuple(distinct.members[number])
        exposures.append(Exposure(Cause.DOMINATED, level, far, Holders(len(near), 1, near)))
    return tuple(exposures)


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
        with no_collection():
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
    """The different levels of an input, each with a number.

    Numbers ascend with the positions of the first holders. (They count texts, so that a
    further spelling of a level takes up one that is not used.)
    """

    __slots__ = (
        "_codes",
        "_given",
        "_pairs",
        "_space",
        "members",
        "sets",
        "uncategorised",
    )

    #: Number -> positions of all holders, ascending.
    members: list[list[int]]
    #: Numbers of the levels that have categories and are not among :attr:`pairs`.
    sets: dict[int, Level]
    #: Numbers of the levels that have none.
    uncategorised: dict[int, Level]

    def __init__(self, levels: Sequence[AnyLevel], space: LabelSpace) -> None:
        self._space = space
        self._pairs: Optional[dict[int, int]] = None
        self.sets = {}
        self.uncategorised = {}
        holders: defaultdict[AnyLevel, list[int]] = defaultdict(list)
        # holders[level].append(position) for each of them, without the interpreter's taking a
        # step for each: this one walk over the whole input takes most of the time.
        added = map(list.append, map(holders.__getitem__, levels), range(len(levels)))
        deque(added, maxlen=0)
        self.members = list(holders.values())
        #: Number -> a text of the level or, for all but pairs, the level.
        self._given = list(holders)
        for number, known in self._number():
            both = self.members[known] + self.members[number]
            self.members[known] = sorted(both)
            self.members[number] = []

    def _number(self) -> list[tuple[int, int]]:
        """Find the levels that the texts stand for, which all are different.

        Returns:
            For each further spelling of a level its number, and the number of the level.
        """
        factor = _factor(self._space)
        heads, tails = _halves(self._space)
        others: dict[Level, int] = {}
        respelled = []
        # Per number the key in *pairs*, or -1 if it is not there.
        codes: list[int] = []
        canonical = True
        for given in self._given:
            if isinstance(given, str):
                # Two single categories take a short cut past Level.
                head, _, tail = given.partition(",")
                try:
                    low, high = heads[head], tails[tail]
                except KeyError:
                    pass
                else:
                    if low < high:
                        codes.append(low * factor + high)
                        continue
                    if low > high:
                        codes.append(high * factor + low)
                        canonical = False
                        continue
            level = _parsed(given, self._space)
            mask = level.mask
            if level.sensitivity == 0 and popcount(mask) == 2:
                # The places of the lowest and of the highest bit.
                low, high = (mask & -mask).bit_length() - 1, mask.bit_length() - 1
                codes.append(low * factor + high)
                canonical = False
                continue
            number = len(codes)
            codes.append(-1)
            self._given[number] = level
            known = others.setdefault(level, number)
            if known != number:
                respelled.append((number, known))
            elif mask:
                self.sets[number] = level
            else:
                self.uncategorised[number] = level
        self._codes = codes
        if not canonical:
            pairs = self.pairs
            respelled += [
                (number, pairs[code])
                for number, code in enumerate(codes)
                if code >= 0 and pairs[code] != number
            ]
        return respelled

    @property
    def pairs(self) -> dict[int, int]:
        """Levels of two categories and the lowest sensitivity, the shape that libvirt draws.

        They map to their numbers, as ``low * factor + high``. No :class:`Level` is made of
        them until one is asked for; that would take most of the time and of the memory.
        """
        if self._pairs is None:
            # Backwards, so that of the spellings of a level the first one's number remains.
            numbers = range(len(self._codes) - 1, -1, -1)
            self._pairs = dict(zip(reversed(self._codes), numbers))
            self._pairs.pop(-1, None)
        return self._pairs

    def level(self, number: int) -> Level:
        """Return the level of this number."""
        given = self._given[number]
        return Level.parse(given, self._space) if isinstance(given, str) else given

    def group(self, number: int) -> Group:
        """Return the level of this number with its holders."""
        return Group(self.level(number), tuple(self.members[number]))

    def sorted(self, numbers: Iterable[int]) -> list[tuple[int, Level]]:
        """Return each number with its level, in the order of the levels."""
        levels = [(number, self.level(number)) for number in numbers]
        # Level.sort_key would make a tuple of up to a thousand categories of each.
        levels.sort(key=lambda item: (item[1].sensitivity, item[1].mask))
        return levels

    def positions(self, numbers: Iterable[int]) -> list[int]:
        """Return the positions of all holders of some levels, ascending."""
        return sorted(chain.from_iterable(map(self.members.__getitem__, numbers)))


class _Census:
    """Counts the holders of some levels, and lists the first *cap* of them."""

    __slots__ = ("_bits", "_cap", "_first", "_more", "_shared")

    def __init__(self, distinct: _Distinct, cap: int) -> None:
        self._cap = cap
        members = distinct.members
        #: Number -> position of the first holder; ascending, but for numbers not used.
        self._first = [positions[0] if positions else -1 for positions in members]
        #: Number -> positions of the other holders, where there are any.
        self._more = {
            number: positions[1:] for number, positions in enumerate(members) if len(positions) > 1
        }
        #: The bitmap of the numbers in it.
        self._shared = bitmap(self._more, len(members))
        # Bit n of bitmap k tells whether bit k is set in the number of those other holders of
        # level n: so all holders are counted by a few operations on large integers.
        counts: dict[int, list[int]] = defaultdict(list)
        for number, positions in self._more.items():
            for bit in elements(len(positions)):
                counts[bit].append(number)
        self._bits = {bit: bitmap(numbers, len(members)) for bit, numbers in counts.items()}

    def of(self, numbers: Sequence[int]) -> Holders:
        """Return the holders of some levels."""
        positions = list(map(self._first.__getitem__, numbers))
        for number in filter(self._more.__contains__, numbers):
            positions += self._more[number]
        positions.sort()
        return Holders(len(positions), len(numbers), tuple(positions[: self._cap]))

    def in_bitmap(self, numbers: int) -> Holders:
        """Return the holders of the levels in a bitmap, of which there may be very many."""
        levels = popcount(numbers)
        count = levels + sum(popcount(numbers & set_) << bit for bit, set_ in self._bits.items())
        positions = list(islice(compress(self._first, flags(numbers)), self._cap))
        # Of levels whose first holder is not among these, no other is among the lowest.
        last = positions[-1] if positions else -1
        for number in elements(numbers & self._shared):
            if self._first[number] > last:
                break
            positions += self._more[number]
        positions.sort()
        return Holders(count, levels, tuple(positions[: self._cap]))


class _Groups(Sequence[Group]):
    """Groups that are made when they are looked at."""

    __slots__ = ("_distinct", "_numbers")

    def __init__(self, distinct: _Distinct, numbers: Sequence[int]) -> None:
        self._distinct = distinct
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Group: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Group]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[Group, Sequence[Group]]:
        if isinstance(index, slice):
            return _Groups(self._distinct, self._numbers[index])
        return self._distinct.group(self._numbers[index])


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
            _factor(space),
            distinct.pairs,
            {number: self.mask(level) for number, level in distinct.sets.items()},
            len(distinct.members),
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


def _factor(space: LabelSpace) -> int:
    """Return the number of elements that sets can have in an :class:`_Inclusion`."""
    return len(space.categories) + len(space.sensitivities)


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
