"""One running guest's level strictly dominates another's."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, listed, several
from svirtlib.checks._facts import Facts
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.relations import Cause, Exposure

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
        cause = exposure.reaching if wide else exposure.reached
        who = listed(reaching) if exposure.reaching.count == len(reaching) else (
            several(exposure.reaching.count, "guest")
        )
        whom = listed(reached) if exposure.reached.count == len(reached) else (
            several(exposure.reached.count, "guest")
        )
        if wide:
            message = (
                f"{who} run{'s' if exposure.reaching.count == 1 else ''} with {exposure.level}, "
                f"which includes the categories of {whom}: it can read and write their disks"
                if exposure.reached.count != 1
                else f"{who} run{'s' if exposure.reaching.count == 1 else ''} with "
                f"{exposure.level}, which includes the categories of {whom}: it can read and "
                f"write its disks"
            )
        else:
            message = (
                f"{whom} run{'s' if exposure.reached.count == 1 else ''} with {exposure.level}, "
                f"which the levels of {who} include: they can read and write its disks"
                if exposure.reaching.count != 1
                else f"{whom} run{'s' if exposure.reached.count == 1 else ''} with "
                f"{exposure.level}, which the level of {who} includes: it can read and write "
                f"their disks"
            )
        fixed = reaching if wide else reached
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=reaching,
            reaches=reached,
            reaches_count=exposure.reached.count,
            labels=tuple(
                sorted(
                    {
                        str(facts.confined[position].context)
                        for position in cause.members[:_SHOWN]
                    }
                )
            ),
            message=message,
            remedy=(
                f"give {listed(fixed)} exactly two categories that no other guest has, or make it "
                f"dynamic (virsh edit {fixed[0]}, <seclabel type='dynamic' model='selinux' "
                f"relabel='yes'/>); then stop and start it"
            ),
            evidence=tuple(
                Evidence(
                    facts.confined[position].guest.name, str(facts.confined[position].context)
                )
                for holders in (exposure.reaching, exposure.reached)
                for position in holders.members[: _SHOWN // 2]
            ),
        )
