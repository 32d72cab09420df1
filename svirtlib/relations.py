"""Which of many levels are equal, and which dominate which.

Two guests whose levels are equal reach each other's images; a guest whose level strictly
dominates another's reaches that one's and not the reverse. This module finds both among any
number of levels. It knows nothing of guests: a level is told by its position in the input.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Sequence
from typing import Union

import attr

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
    members: dict[Level, list[int]] = defaultdict(list)
    for position, level in enumerate(levels):
        members[_parsed(level, space)].append(position)
    groups = {level: Group(level, tuple(positions)) for level, positions in members.items()}
    categorised = [level for level in groups if level.mask]
    above: dict[Level, list[Level]] = defaultdict(list)
    below: dict[Level, list[Level]] = defaultdict(list)
    for high in categorised:
        for low in categorised:
            if high.dominates(low) and high != low:
                below[high].append(low)
                above[low].append(high)

    def holders(among: list[Level]) -> Holders:
        positions = sorted(position for level in among for position in members[level])
        return Holders(len(positions), len(among), tuple(positions[:cap]))

    def centre(level: Level) -> Holders:
        return Holders(len(members[level]), 1, groups[level].members)

    wide, narrow = _cover(below)
    exposures = [
        Exposure(Cause.DOMINATING, level, centre(level), holders(below[level])) for level in wide
    ]
    exposures += [
        Exposure(Cause.DOMINATED, level, holders(above[level]), centre(level)) for level in narrow
    ]
    return Relations(
        tuple(group for group in groups.values() if len(group.members) > 1),
        tuple(exposures),
        tuple(groups[level] for level in _ordered([low for low in groups if not low.mask])),
    )


def _parsed(level: AnyLevel, space: LabelSpace) -> Level:
    if isinstance(level, str):
        return Level.parse(level, space)
    if level.space != space:
        raise LabelSpaceError(f"level {level} is of another policy than the one given")
    return level


def _ordered(levels: list[Level]) -> list[Level]:
    return sorted(levels, key=lambda level: level.sort_key)


def _cover(below: dict[Level, list[Level]]) -> tuple[list[Level], list[Level]]:
    """Return the fewest levels that touch all edges: dominating ones and dominated ones.

    Koenig: in a bipartite graph they are as many as the edges of a greatest matching. With
    Z all that an alternating path reaches from an unmatched dominating level, they are the
    dominating levels outside of Z and the dominated ones in it.
    """
    partner: dict[Level, Level] = {}

    def augment(high: Level, seen: set[Level]) -> bool:
        for low in below[high]:
            if low not in seen:
                seen.add(low)
                if low not in partner or augment(partner[low], seen):
                    partner[low] = high
                    return True
        return False

    unmatched = [high for high in list(below) if not augment(high, set())]
    reached_high = set(unmatched)
    reached_low: set[Level] = set()
    while unmatched:
        for low in below[unmatched.pop()]:
            if low not in reached_low:
                reached_low.add(low)
                if partner[low] not in reached_high:
                    reached_high.add(partner[low])
                    unmatched.append(partner[low])
    return _ordered([high for high in below if high not in reached_high]), _ordered(
        list(reached_low)
    )


class DominanceIndex:
    """Answers which of many levels dominate one level, or are dominated by it.

    The arguments are those of :func:`relate`. Both queries count equal levels in, and
    levels without categories.

    Raises:
        InvalidLevelError: a text is no level of *space*.
        LabelSpaceError: a level is of another policy than *space*.
    """

    def __init__(self, levels: Sequence[AnyLevel], *, space: LabelSpace = DEFAULT_SPACE) -> None:
        self._levels = [_parsed(level, space) for level in levels]

    def dominating(self, level: Level) -> Sequence[int]:
        """Return the positions of those whose levels dominate *level*, ascending.

        Raises:
            LabelSpaceError: *level* is of another policy.
        """
        return [place for place, other in enumerate(self._levels) if other.dominates(level)]

    def dominated_by(self, level: Level) -> Sequence[int]:
        """Return the positions of those whose levels *level* dominates, ascending.

        Raises:
            LabelSpaceError: *level* is of another policy.
        """
        return [place for place, other in enumerate(self._levels) if level.dominates(other)]
