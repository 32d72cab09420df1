"""libvirt without SELinux."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class QemuSecurityDriverNone(AuditRule):
    """``security_driver`` is none: guests get no labels."""

    ident = "qemu-security-driver-none"
    severity = Severity.CRITICAL
    summary = "libvirt's security driver is off: no guest gets a label"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is off."""
        drivers = None if facts.conf is None else facts.conf.texts("security_driver")
        if facts.conf is not None and drivers is not None and "none" in drivers:
            yield self.tell(
                "security_driver is none: guests start without labels, and nothing but file modes "
                "keeps them from each other",
                'take security_driver out of /etc/libvirt/qemu.conf, or set it to "selinux", and '
                "start the guests anew",
                paths=[facts.conf.source],
                evidence=(Evidence(facts.conf.where("security_driver"), "none"),),
            )
