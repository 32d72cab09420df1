"""Consoles at other ports than the map says."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class ConsolePortMismatch(AuditRule):
    """A guest's console has another port with TLS than the map: its user reaches another guest."""

    ident = "console-port-mismatch"
    severity = Severity.HIGH
    summary = "a guest's console is at another port than the map says"
    since = "0.1"
    needs = frozenset({Need.MAP})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each guest."""
        for guest, graphics, user in facts.mapped_consoles:
            # Of a guest that does not run, libvirt chooses the port at its start.
            if graphics.autoport and not guest.running:
                continue
            if graphics.tls_port != user.port:
                found = graphics.tls_port if graphics.tls_port > 0 else "no port"
                yield self.tell(
                    f"the map has the console of {guest.name} at port {user.port}, and it has "
                    f"{found} with TLS: {user.user} may reach another guest's, and not this one",
                    f"`<graphics type='spice' autoport='no' tlsPort='{user.port}' …>` "
                    f"(`virsh edit {guest.name}`), or correct the map",
                    guests=[guest.name],
                    evidence=(Evidence(guest.source, f"tlsPort {found}"),),
                )
