"""A host that keeps no audit log."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class AuditdNotRunning(AuditRule):
    """auditd is not started at boot, or the kernel is told not to audit."""

    ident = "auditd-not-running"
    severity = Severity.MEDIUM
    summary = "the host keeps no audit log, in which SELinux's denials and libvirt's records stand"
    since = "0.1"
    needs = frozenset({Need.UNITS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        off = next((one for one in facts.practices.kernel if "audit=0" in one.value.split()), None)
        if off is not None:
            evidence = Evidence(off.origin, "audit=0")
            fault = "the kernel is told not to audit"
        elif "auditd.service" not in (facts.practices.units or ()):
            evidence = Evidence("/etc/systemd/system", "auditd.service is not enabled")
            fault = "auditd is not started at boot"
        else:
            return
        yield self.tell(
            f"{fault}: SELinux's denials, and libvirt's records of who was given what, are lost",
            "install auditd, `systemctl enable --now auditd`, and take audit=0 from the kernel's "
            "command line",
            evidence=(evidence,),
        )
