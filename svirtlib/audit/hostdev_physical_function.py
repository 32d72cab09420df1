"""PCI devices that a guest drives itself."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class HostdevPhysicalFunction(AuditRule):
    """A guest drives a PCI device as a whole; a virtual function of SR-IOV is meant for that."""

    ident = "hostdev-physical-function"
    severity = Severity.HIGH
    summary = "a guest drives a whole PCI device, and may write its firmware"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each device."""
        if facts.profile == "public-cloud":
            return
        known = {one.address: one for one in facts.practices.pci or ()}
        for address, guests in facts.pci_users.items():
            device = known.get(address)
            if device is None or device.kind not in ("physical", "plain"):
                continue
            names = [guest.name for guest in guests]
            physical = device.kind == "physical"
            rest = (
                f"it is a physical function, of which the host can make {device.functions} "
                f"virtual ones"
                if physical
                else "it has no virtual functions"
            )
            yield self.tell(
                f"{listed(names)} {'drives' if len(names) == 1 else 'drive'} the PCI device "
                f"{address}, and may write its firmware, which outlives the guest: {rest}",
                f"`echo 4 > /sys/bus/pci/devices/{address}/sriov_numvfs`, and a virtual function "
                f"with `<interface type='hostdev' managed='yes'>`"
                if physical
                else "use an emulated or virtio device, or one with virtual functions; where "
                "nothing else does, give it to no other guest afterwards",
                guests=names,
                severity=Severity.HIGH if physical else Severity.MEDIUM,
                evidence=[Evidence(guest.source, f"{guest.name}: {address}") for guest in guests],
            )
