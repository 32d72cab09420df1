"""Two running guests with one label."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, listed, new_level, one_or_many
from svirtlib.checks._facts import Facts
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Guest
from svirtlib.seclabel import SeclabelType

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
            guests = [member.guest for member in members]
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=names,
                reaches=names,
                reaches_count=len(names),
                labels=tuple(sorted({str(member.context) for member in members})),
                message=(
                    f"{listed(names)} run with the same level, {group.level}: each can read and "
                    f"write the disks of the {one_or_many(names[1:], 'other', 'others')}"
                ),
                remedy=new_level(sorted(guests, key=_to_be_kept)[:0:-1]),
                evidence=tuple(
                    Evidence(member.source, f"{member.guest.name}: {member.text}")
                    for member in members[:_SHOWN]
                ),
            )


def _to_be_kept(guest: Guest) -> tuple[bool, str]:
    """Return a key by which the guest comes first that may best keep the common level.

    A dynamic guest's level is one that libvirt gives to no other dynamic guest; it is the
    static ones that are in its way.
    """
    seclabel = guest.seclabel
    return (seclabel is not None and seclabel.type is SeclabelType.STATIC, guest.name)
