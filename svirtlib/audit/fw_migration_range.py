"""Ports of migration that the firewall opens to everybody."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts, port_texts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class FwMigrationRange(AuditRule):
    """A firewall that drops what it does not know lets everybody send guests' memory here.

    With ``migrate_tls_force`` only hosts with a certificate can, which makes it a lesser fault.
    """

    ident = "fw-migration-range"
    severity = Severity.MEDIUM
    summary = "the firewall lets everybody reach the ports of migration, whatever address he has"
    since = "0.1"
    needs = frozenset({Need.RULESET})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all ports."""
        let_in = facts.let_in
        found = [] if let_in is None else facts.for_migration(let_in.opened)
        if let_in is None or not found:
            return
        ports = port_texts(found)
        forced = facts.conf is not None and facts.conf.flag("migrate_tls_force")
        yield self.tell(
            f"the firewall opens TCP ports {listed(ports)}, at which QEMU takes guests that "
            f"migrate here, to every address and over every interface",
            "name the other hosts: `ip saddr { HOST, HOST } tcp dport PORTS accept`",
            severity=Severity.LOW if forced else self.severity,
            evidence=[Evidence(let_in.origin, f"tcp {port} is accepted") for port in ports],
        )
