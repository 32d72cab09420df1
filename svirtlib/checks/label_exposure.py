"""One running guest's level strictly dominates another's."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, listed, new_level, one_or_many, several
from svirtlib.checks._facts import Confined, Facts
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.relations import Cause, Exposure, Holders

_SHOWN = 10


class LabelExposure(Check):
    """A guest's categories include all of another's, and more: it reaches that guest's images.

    The reverse does not hold. Dominance over a guest without categories is not told here:
    every guest dominates it (see image-exposure).
    """

    ident = "label-exposure"
    severity = Severity.CRITICAL
    summary = "a running guest's level dominates another's, so that it reaches its images"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each wide or narrow level that is the cause."""
        for exposure in facts.relations.exposures:
            yield self._finding(facts, exposure)

    def _finding(self, facts: Facts, exposure: Exposure) -> Finding:
        reaching = facts.names(exposure.reaching.members)
        reached = facts.names(exposure.reached.members)
        wide = exposure.by is Cause.DOMINATING
        cause, far = exposure.reaching, exposure.reached
        if not wide:
            cause, far = far, cause
        holders = _confined(facts, cause)
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=reaching,
            reaches=reached,
            reaches_count=exposure.reached.count,
            labels=tuple(sorted({str(confined.context) for confined in holders[:_SHOWN]})),
            message=_wide(facts, exposure) if wide else _narrow(facts, exposure),
            remedy=new_level([confined.guest for confined in holders]),
            evidence=tuple(
                Evidence(confined.source, f"{confined.guest.name}: {confined.text}")
                for confined in (*holders[: _SHOWN // 2], *_confined(facts, far)[: _SHOWN // 2])
            ),
        )


def _confined(facts: Facts, holders: Holders) -> list[Confined]:
    guests = [facts.confined[position] for position in holders.members]
    return sorted(guests, key=lambda confined: confined.guest.name)


def _names(facts: Facts, holders: Holders) -> str:
    """Return the holders for a sentence; the number of more than a finding lists."""
    if holders.count > len(holders.members):
        return several(holders.count, "guest")
    return listed(facts.names(holders.members))


def _wide(facts: Facts, exposure: Exposure) -> str:
    """Tell of guests whose level includes those of others."""
    who = facts.names(exposure.reaching.members)
    whom = _names(facts, exposure.reached)
    of_whom = "their" if exposure.reached.count > 1 else f"{whom}'s"
    return (
        f"{listed(who)} {one_or_many(who, 'runs', 'run')} with the level {exposure.level}, which "
        f"includes the categories of {whom}: {one_or_many(who, 'it', 'each')} can read and write "
        f"{of_whom} disks (not the other way round)"
    )


def _narrow(facts: Facts, exposure: Exposure) -> str:
    """Tell of guests whose level is included in those of others."""
    whom = facts.names(exposure.reached.members)
    who = _names(facts, exposure.reaching)
    others = exposure.reaching.count > 1
    return (
        f"{listed(whom)} {one_or_many(whom, 'runs', 'run')} with the level {exposure.level}, which "
        f"the {'levels' if others else 'level'} of {who} {'include' if others else 'includes'}: "
        f"{'they' if others else 'it'} can read and write {one_or_many(whom, 'its', 'their')} "
        f"disks (not the other way round)"
    )
