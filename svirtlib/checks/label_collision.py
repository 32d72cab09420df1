"""Two running guests with one label."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, listed
from svirtlib.checks._facts import Facts
from svirtlib.findings import Evidence, Finding, Severity

_SHOWN = 10


class LabelCollision(Check):
    """The processes of several running guests have equal sets of categories.

    Categories are compared as sets, as the kernel does: ``s0:c2,c1`` and ``s0:c1.c2`` are one
    label. libvirt compares texts, and reserves no static label.
    """

    ident = "label-collision"
    severity = Severity.CRITICAL
    summary = "running guests have one label, so that each reaches the other's images"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each label that several guests hold."""
        for group in facts.relations.collisions:
            members = [facts.confined[position] for position in group.members]
            names = facts.names(group.members)
            both = "both" if len(names) == 2 else f"all {len(names)}"
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=names,
                reaches=names,
                reaches_count=len(names),
                labels=tuple(sorted({str(member.context) for member in members})),
                message=(
                    f"{listed(names)} {both} run with the level {group.level}: each can read and "
                    f"write the disks of the other{'s' if len(names) > 2 else ''}"
                ),
                remedy=(
                    f"give each but one another label: make them dynamic (virsh edit NAME, "
                    f"<seclabel type='dynamic' model='selinux' relabel='yes'/>), or choose a "
                    f"static level of two categories that no other guest has; then stop and "
                    f"start {listed(names[1:])}"
                ),
                evidence=tuple(
                    Evidence(member.guest.name, str(member.context))
                    for member in members[:_SHOWN]
                ),
            )
