"""Interrupts that a guest's device may send to the host."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class VfioUnsafeInterrupts(AuditRule):
    """VFIO may hand out devices without interrupt remapping."""

    ident = "vfio-unsafe-interrupts"
    severity = Severity.HIGH
    summary = "guests may drive PCI devices without interrupt remapping"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is on."""
        setting = facts.practices.unsafe_interrupts
        if setting is not None:
            yield self.tell(
                "vfio_iommu_type1 allows unsafe interrupts: a guest with a PCI device can send "
                "the host any interrupt, and take it over",
                "take allow_unsafe_interrupts out; where the machine has no interrupt remapping, "
                "give guests no PCI devices",
                paths=[setting.origin.partition(":")[0]],
                evidence=(Evidence(setting.origin, setting.value[:200]),),
            )
