"""Static levels that will collide, whether or not their guests run now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Optional

from attr import frozen

from svirtlib.checks._check import Check, listed
from svirtlib.checks._facts import Facts
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Guest
from svirtlib.mls import Level
from svirtlib.relations import Cause, relate
from svirtlib.seclabel import SeclabelType
from svirtlib.standard_types import bound_by_categories

_SHOWN = 10


@frozen
class _Static:
    guest: Guest
    context: Context
    level: Level


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
        relations = relate([static.level for static in statics])
        for group in relations.collisions:
            holders = [statics[position] for position in group.members]
            yield self._finding(
                holders,
                f"the definitions of {_names_text(holders)} have one static level, {group.level}: "
                f"run together, each reaches the other's disks",
                holders[1:],
            )
        for exposure in relations.exposures:
            reaching = [statics[position] for position in exposure.reaching.members]
            reached = [statics[position] for position in exposure.reached.members]
            wide = exposure.by is Cause.DOMINATING
            yield self._finding(
                reaching,
                f"the static level of {_names_text(reaching)} includes that of "
                f"{_names_text(reached)}: run together, it reaches the other's disks",
                reaching if wide else reached,
                reached,
            )
        for group in relations.uncategorised:
            bare = [statics[position] for position in group.members]
            others = [static for static in statics if static not in bare]
            if others:
                yield self._finding(
                    others,
                    f"the static level of {_names_text(bare)} has no categories: run together, "
                    f"{_names_text(others)} reach its disks",
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
                f"the static level of {_names_text(met)} lies where libvirt draws dynamic ones "
                f"(c{pool.first}.c{pool.last}), and libvirt reserves no static level: sooner or "
                f"later a dynamic guest gets one that is equal or comparable",
                met,
                remedy=(
                    "keep the two apart: run the libvirt daemon with a narrower range "
                    "(SELinuxContext= in its unit, for example ...:s0-s0:c0.c511) and take "
                    "static levels above it; or make the guests dynamic"
                ),
            )

    def _finding(
        self,
        guests: list[_Static],
        message: str,
        mended: list[_Static],
        reached: Optional[list[_Static]] = None,
        remedy: str = "",
    ) -> Finding:
        reaches = sorted({static.guest.name for static in (reached or [])})
        involved = [*guests, *(reached or [])]
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=tuple(sorted({static.guest.name for static in guests})),
            reaches=tuple(reaches),
            reaches_count=len(reaches),
            labels=tuple(sorted({str(static.context) for static in involved})[:_SHOWN]),
            message=message,
            remedy=remedy
            or (
                f"give {_names_text(mended)} two categories that no other definition has "
                f"(virsh edit {mended[0].guest.name}, <label>), or make it dynamic"
            ),
            evidence=tuple(
                Evidence(static.guest.source, f"{static.guest.name}: {static.context}")
                for static in involved[:_SHOWN]
            ),
        )


def _statics(facts: Facts) -> Iterator[_Static]:
    for guest in facts.inventory.guests:
        seclabel = guest.seclabel
        if seclabel is None or seclabel.type is not SeclabelType.STATIC or not seclabel.label:
            continue
        try:
            context = Context.parse(seclabel.label)
        except InvalidContextError:
            continue
        if context.level is not None and bound_by_categories(context.type) is not False:
            yield _Static(guest, context, context.level)


def _is_dynamic(guest: Guest) -> bool:
    seclabel = guest.seclabel
    return seclabel is None or seclabel.type in (SeclabelType.DYNAMIC, SeclabelType.DEFAULT)


def _names_text(statics: list[_Static]) -> str:
    return listed({static.guest.name for static in statics})
