"""libvirt over TCP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class LibvirtTcpCleartext(AuditRule):
    """libvirt's daemon listens on TCP without TLS."""

    ident = "libvirt-tcp-cleartext"
    severity = Severity.HIGH
    summary = "libvirt can be managed over TCP without encryption"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it listens."""
        found = facts.remote("tcp")
        if found is None:
            return
        authentication = facts.daemon_text("auth_tcp") or "sasl"
        nobody = authentication == "none"
        rest = (
            "and asks for nothing: who reaches the port is root on this host"
            if nobody
            else f"with {authentication}; what follows the login is encrypted with Kerberos alone"
        )
        yield self.tell(
            f"libvirt's daemon listens on TCP without TLS, {rest}",
            "`systemctl disable --now libvirtd-tcp.socket virtproxyd-tcp.socket`, listen_tcp = 0, "
            "and use qemu+ssh:// or TLS",
            severity=Severity.CRITICAL if nobody else Severity.HIGH,
            evidence=(found, *_where(facts)),
        )


def _where(facts: AuditFacts) -> tuple[Evidence, ...]:
    where: Optional[str] = facts.daemon_where("auth_tcp")
    return () if where is None else (Evidence(where, "auth_tcp"),)
