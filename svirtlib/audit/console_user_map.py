"""A map that is not that of the host's guests."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class ConsoleUserMap(AuditRule):
    """The map names guests that do not exist, or a console on the network has no user."""

    ident = "console-user-map"
    severity = Severity.MEDIUM
    summary = "the map of consoles to users does not fit the guests that are defined"
    since = "0.1"
    needs = frozenset({Need.MAP})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each direction."""
        mapped = {one.guest for one in facts.console_users}
        defined = {guest.name for guest in facts.inventory.guests}
        lost = sorted(mapped - defined)
        if lost and defined:
            yield self.tell(
                f"the map has {listed(lost)}, and there is no such guest: its rules hold for a "
                f"port that another guest may get",
                "take the lines out, or correct the names, and `svirt-label console-rules` anew",
                evidence=[Evidence("the map", name) for name in lost],
            )
        open_ones = sorted(
            {
                seat.guest.name
                for seat in facts.seats_of("spice")
                if seat.console.exposed and seat.guest.name not in mapped
            }
        )
        if open_ones:
            yield self.tell(
                f"the SPICE consoles of {listed(open_ones)} are on the network, and the map gives "
                f"them to nobody: no rule keeps others from them",
                "add a line for each, or take the consoles from the network",
                guests=open_ones,
                evidence=[Evidence("the map", f"no line for {name}") for name in open_ones],
            )
