"""Ports of consoles and migration that the policy keeps from QEMU."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class SelinuxPortType(AuditRule):
    """QEMU is to listen on a port whose type its domain may not bind.

    Only what the host's own policy denies is told: some let guests bind any port.
    """

    ident = "selinux-port-type"
    severity = Severity.MEDIUM
    summary = "SELinux keeps a port from QEMU that a console or migration of guests needs"
    since = "0.1"
    needs = frozenset({Need.PORTS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each use."""
        for one in facts.practices.ports_denied or ():
            use = one.use
            whose = f" of {listed(use.guests)}" if use.guests else ""
            label = "virt_migration_port_t" if use.what == "incoming migration" else "vnc_port_t"
            yield self.tell(
                f"{use.what}{whose} is to listen on port {one.port}, which has the type {one.type} "
                f"and which {use.domain} may not bind: SELinux denies it",
                f"take another port, or give it a type that guests may bind "
                f"(`semanage port -m -t {label} -p tcp {one.port}`; -a where the policy has no "
                f"line for just this port)",
                guests=use.guests,
                evidence=[Evidence("the policy", f"tcp {one.port} is {one.type}")],
            )
