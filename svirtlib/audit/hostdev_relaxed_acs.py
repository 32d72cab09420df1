"""PCI devices that may talk to each other."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class HostdevRelaxedAcs(AuditRule):
    """``relaxed_acs_check`` has libvirt pass devices on that can reach others past the IOMMU."""

    ident = "hostdev-relaxed-acs"
    severity = Severity.HIGH
    summary = "libvirt hands out PCI devices that can reach others past the IOMMU"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is on."""
        if facts.conf is None or not facts.conf.flag("relaxed_acs_check"):
            return
        yield self.tell(
            "relaxed_acs_check is on: libvirt hands out PCI devices behind a switch without access "
            "control, where a guest's device reads and writes those of others",
            "set relaxed_acs_check = 0 in /etc/libvirt/qemu.conf, and put the devices into slots "
            "whose switch has access control services",
            paths=[facts.conf.source],
            evidence=(Evidence(facts.conf.where("relaxed_acs_check"), "it is 1"),),
        )
