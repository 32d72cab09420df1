"""Static levels that will collide, whether or not their guests run now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Optional

from attr import frozen

from svirtlib.checks._check import DYNAMIC, Check, command, listed, new_level, one_or_many
from svirtlib.checks._facts import Facts
from svirtlib.context import Context
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Guest
from svirtlib.mls import Level
from svirtlib.relations import Cause, relate
from svirtlib.seclabel import SeclabelType

_SHOWN = 10
_TOGETHER = "whenever they run together,"


@frozen
class _Static:
    guest: Guest
    context: Context
    level: Level
    text: str


@frozen
class Pool:
    """The categories from which libvirt draws the two of a dynamic level.

    Attributes:
        sensitivity: name of the sensitivity.
        first: number of the lowest category.
        last: number of the highest category.
    """

    sensitivity: str
    first: int
    last: int

    @classmethod
    def of_range(cls, text: str) -> Optional[Pool]:
        """Return the pool of a daemon with this range; None where libvirt refuses the range.

        libvirt ``virSecuritySELinuxMCSGetProcessRange``: the sensitivity is the low one, the
        categories are those after the first colon, all 1024 where there are none.
        """
        head, colon, categories = text.partition(":")
        sensitivity = head.partition("-")[0]
        if not colon:
            return cls(sensitivity, 0, 1023)
        match = re.match(r"c(\d{1,9})\.c(\d{1,9})", categories, re.ASCII)
        if match is None:
            return None
        return cls(sensitivity, int(match[1]), int(match[2]))

    def may_meet(self, level: Level) -> bool:
        """Tell whether a pair of this pool can be comparable with a level."""
        sensitivity, _, _ = str(level).partition(":")
        inside = [number for number in level.categories if self.first <= number <= self.last]
        if sensitivity != self.sensitivity:
            return False
        return len(inside) >= 2 or len(inside) == len(level.categories)


class StaticLabelReuse(Check):
    """Definitions have static levels that are equal or comparable, or that libvirt may draw.

    libvirt reserves no static level: neither for another definition nor against its own
    drawing of dynamic ones. The latter is judged on a host with dynamic guests whose daemon
    could be asked for its range.
    """

    ident = "static-label-reuse"
    severity = Severity.MEDIUM
    summary = "static levels of definitions are comparable, or libvirt may draw them: they collide"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each level that is the cause."""
        statics = list(_statics(facts))
        relations = relate([static.level for static in statics], cap=facts.cap)
        for group in relations.collisions:
            holders = _at(statics, group.members)
            yield self._finding(
                holders,
                f"the definitions of {_names_text(holders)} have the same static level, "
                f"{group.level}: {_TOGETHER} each can read and write the disks of the "
                f"{one_or_many(holders[1:], 'other', 'others')}",
                holders[1:],
            )
        for exposure in relations.exposures:
            reaching = _at(statics, exposure.reaching.members)
            reached = _at(statics, exposure.reached.members)
            wide = exposure.by is Cause.DOMINATING
            yield self._finding(
                reaching,
                (_wide if wide else _narrow)(exposure.level, reaching, reached),
                reaching if wide else reached,
                reached,
                count=exposure.reached.count,
            )
        for group in relations.uncategorised:
            bare = _at(statics, group.members)
            above = (n for n, static in enumerate(statics) if static.level.dominates(group.level))
            others = _at(statics, set(above).difference(group.members))
            if others:
                yield self._finding(
                    others,
                    f"the static {one_or_many(bare, 'level', 'levels')} of {_names_text(bare)} "
                    f"{one_or_many(bare, 'has', 'have')} no categories: {_TOGETHER} "
                    f"{_names_text(others)} can read and write "
                    f"{one_or_many(bare, 'its', 'their')} disks",
                    bare,
                    bare,
                )
        yield from self._drawn(facts, statics)

    def _drawn(self, facts: Facts, statics: list[_Static]) -> Iterator[Finding]:
        text = facts.inventory.host.dynamic_range
        pool = None if text is None else Pool.of_range(text)
        if pool is None or not any(_is_dynamic(guest) for guest in facts.inventory.guests):
            return
        met = [static for static in statics if pool.may_meet(static.level)]
        if met:
            yield self._finding(
                met,
                f"the static {one_or_many(met, 'level', 'levels')} of {_names_text(met)} "
                f"{one_or_many(met, 'lies', 'lie')} where libvirt draws dynamic ones "
                f"(c{pool.first}.c{pool.last}), and libvirt reserves no static level: a dynamic "
                f"guest may be given the same level, or a comparable one",
                met,
                remedy=(
                    f"make {one_or_many(met, 'the guest', 'the guests')} dynamic "
                    f"({command('virsh', 'edit', met[0].guest.name)}, {DYNAMIC}); or run libvirt's "
                    f"daemon with a narrower range (SELinuxContext= in its unit, ending in "
                    f"s0-s0:c0.c511, say) and take static levels from outside it"
                ),
            )

    def _finding(
        self,
        guests: list[_Static],
        message: str,
        mended: list[_Static],
        reached: Sequence[_Static] = (),
        *,
        count: Optional[int] = None,
        remedy: str = "",
    ) -> Finding:
        reaches = sorted({static.guest.name for static in reached})
        # The cause first: the one level, then what it meets.
        involved = [*mended, *guests, *reached]
        involved = list({id(static): static for static in involved}.values())
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=tuple(sorted({static.guest.name for static in guests})),
            reaches=tuple(reaches),
            reaches_count=len(reaches) if count is None else count,
            labels=tuple(sorted({str(static.context) for static in involved})[:_SHOWN]),
            message=message,
            remedy=remedy or new_level([static.guest for static in mended]),
            evidence=tuple(
                Evidence(static.guest.source, f"{static.guest.name}: {static.text}")
                for static in involved[:_SHOWN]
            ),
        )


def _at(statics: list[_Static], positions: Iterable[int]) -> list[_Static]:
    return sorted((statics[position] for position in positions), key=lambda s: s.guest.name)


def _wide(level: Level, reaching: list[_Static], reached: list[_Static]) -> str:
    return (
        f"the static {one_or_many(reaching, 'level', 'levels')} of {_names_text(reaching)}, "
        f"{level}, {one_or_many(reaching, 'includes', 'include')} "
        f"{one_or_many(reached, 'that', 'those')} of {_names_text(reached)}: {_TOGETHER} "
        f"{one_or_many(reaching, 'it', 'each')} can read and write "
        f"{one_or_many(reached, 'its', 'their')} disks"
    )


def _narrow(level: Level, reaching: list[_Static], reached: list[_Static]) -> str:
    return (
        f"the static {one_or_many(reached, 'level', 'levels')} of {_names_text(reached)}, "
        f"{level}, {one_or_many(reached, 'is', 'are')} included in "
        f"{one_or_many(reaching, 'that', 'those')} of {_names_text(reaching)}: {_TOGETHER} "
        f"{one_or_many(reaching, 'it', 'they')} can read and write "
        f"{one_or_many(reached, 'its', 'their')} disks"
    )


def _statics(facts: Facts) -> Iterator[_Static]:
    for guest in facts.inventory.guests:
        seclabel = guest.seclabel
        if seclabel is None or seclabel.type is not SeclabelType.STATIC or not seclabel.label:
            continue
        context = facts.context(seclabel.label)
        if context is not None and context.level is not None and facts.bound(context) is not False:
            yield _Static(guest, context, context.level, seclabel.label)


def _is_dynamic(guest: Guest) -> bool:
    seclabel = guest.seclabel
    return seclabel is None or seclabel.type in (SeclabelType.DYNAMIC, SeclabelType.DEFAULT)


def _names_text(statics: list[_Static]) -> str:
    return listed({static.guest.name for static in statics})
