"""VNC passwords on a host whose cryptography knows no DES."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed


class VncPasswordFips(AuditRule):
    """VNC's password is checked with DES, which FIPS 140 forbids."""

    ident = "vnc-password-fips"
    severity = Severity.HIGH
    summary = "a VNC password on a host in FIPS mode, which has no DES to check it with"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if the host is in FIPS mode."""
        if facts.host is None or facts.host.fips is not True:
            return
        found = [
            seat for seat in facts.seats if seat.console.type == "vnc" and seat.console.password
        ]
        if found:
            names = names_of(found)
            yield self.tell(
                f"the host is in FIPS mode, and the VNC password of {listed(names)} needs DES: "
                f"the guest does not start, or nobody can log in",
                "use SASL instead (vnc_sasl = 1 in /etc/libvirt/qemu.conf with the mechanism "
                "gssapi or scram-sha-256) or client certificates, and take the password away",
                guests=names,
                evidence=seen_at(found, "VNC with a password"),
            )
