"""Mapped consoles whose port libvirt chooses anew each time."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class ConsolePortAutoport(AuditRule):
    """A mapped guest has ``autoport``: the next start may give it another guest's port."""

    ident = "console-port-autoport"
    severity = Severity.MEDIUM
    summary = "a mapped guest gets its console's port from libvirt, another one at each start"
    since = "0.1"
    needs = frozenset({Need.MAP})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all guests."""
        found = [guest for guest, graphics, _ in facts.mapped_consoles if graphics.autoport]
        if found:
            names = [guest.name for guest in found]
            yield self.tell(
                f"libvirt chooses the port of the console of {listed(set(names))} at each start, "
                f"while the map has one port for it",
                "autoport='no' and tlsPort='PORT' in `<graphics type='spice'>`",
                guests=names,
                evidence=[Evidence(guest.source, f"{guest.name}: autoport") for guest in found],
            )
