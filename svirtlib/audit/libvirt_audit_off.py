"""libvirt without audit records."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class LibvirtAuditOff(AuditRule):
    """``audit_level = 0``: which guest had which label and device, no log tells."""

    ident = "libvirt-audit-off"
    severity = Severity.HIGH
    summary = "libvirt writes no audit records of what guests were given"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each daemon that starts guests."""
        for conf in () if facts.host is None else facts.host.daemons:
            # The proxy starts no guests.
            if "virtproxyd" in conf.source or not conf.has("audit_level"):
                continue
            if conf.number("audit_level", 1) == 0:
                yield self.tell(
                    f"audit_level in {conf.source} is 0: no record tells which guest started with "
                    f"which label, disk and device",
                    "take audit_level out, or set it to 1, and to 2 where no guest may start "
                    "without records",
                    paths=[conf.source],
                    evidence=(Evidence(conf.where("audit_level"), "it is 0"),),
                )
