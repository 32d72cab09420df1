"""Ports of consoles that the firewall opens to everybody."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts, port_texts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class FwConsoleRange(AuditRule):
    """A firewall that drops what it does not know lets everybody reach consoles.

    Told of ports that guests' consoles on the network have, and of two or more ports in a row in
    the range for consoles; one other open port there belongs to another service.
    """

    ident = "fw-console-range"
    severity = Severity.MEDIUM
    summary = "the firewall lets everybody reach the ports of consoles, whatever address he has"
    since = "0.1"
    needs = frozenset({Need.RULESET})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all ports."""
        let_in = facts.let_in
        found = [] if let_in is None else facts.for_consoles(let_in.opened)
        if let_in is None or not found:
            return
        ports = port_texts(found)
        names = sorted(
            {
                name
                for port, guests in facts.exposed_ports.items()
                for name in guests
                if any(low <= port <= high for low, high in found)
            }
        )
        whose = f", the consoles of {listed(names)} among them" if names else ""
        yield self.tell(
            f"the firewall opens TCP ports {listed(ports)} for consoles to every address and over "
            f"every interface{whose}",
            "name who may come: `ip saddr NETWORK tcp dport PORTS accept`, or an interface "
            "(`iifname`); or keep consoles to sockets and reach them over ssh",
            guests=names,
            evidence=[Evidence(let_in.origin, f"tcp {port} is accepted") for port in ports],
        )
