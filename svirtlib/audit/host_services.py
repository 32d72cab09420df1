"""Services that a host of guests does not need."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed

#: ssh, libvirt with TLS, and the range of migration.
_EXPECTED = frozenset({22, 16514, *range(49152, 49217)})


class HostServices(AuditRule):
    """TCP ports are open to other hosts that belong to no part of virtualization."""

    ident = "host-services"
    severity = Severity.LOW
    summary = "services listen on the network that a host of guests does not need"
    since = "0.1"
    needs = frozenset({Need.SOCKETS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all ports."""
        consoles = facts.conf
        low = 5900 if consoles is None else consoles.number("remote_display_port_min", 5900)
        high = 65535 if consoles is None else consoles.number("remote_display_port_max", 65535)
        used = facts.console_ports
        odd = sorted(
            {
                port
                for _, port in facts.practices.listening or ()
                if port not in _EXPECTED
                and port not in used
                and not (low <= port <= min(high, 6923))
            }
        )
        if odd:
            yield self.tell(
                f"services listen on TCP ports {listed([str(port) for port in odd], shown=8)} for "
                f"other hosts: each is one more way into a host that all guests depend on",
                "`ss -ltnp` tells whose they are; stop what guests do not need, or have it listen "
                "on 127.0.0.1",
                evidence=[Evidence("/proc/net/tcp", f"port {port}") for port in odd],
            )
