"""Consoles that listen on every address of the host."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many


class GraphicsListenWildcard(AuditRule):
    """An encrypted console with authentication that listens on all addresses.

    Of consoles that lack one of these, the rules about that tell.
    """

    ident = "graphics-listen-wildcard"
    severity = Severity.MEDIUM
    summary = "a console listens on every address of the host, the guests' networks included"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each kind of console."""
        seats = [
            seat
            for seat in facts.seats
            if seat.console.exposed
            and seat.console.wildcard
            and seat.console.authenticated
            and (seat.console.sasl or not seat.console.plain)
        ]
        for (kind, where), found in grouped(
            seats, lambda seat: (seat.console.type, seat.console.where)
        ).items():
            names = names_of(found)
            consoles = one_or_many(names, "console", "consoles")
            yield self.tell(
                f"the {kind.upper()} {consoles} of {listed(names)} "
                f"{one_or_many(names, 'listens', 'listen')} on every address ({where}): other "
                f"guests and other networks of the host reach the port too",
                f"name the address of the management network: {kind}_listen in "
                f"/etc/libvirt/qemu.conf, or `<listen type='address' address='…'/>`",
                guests=names,
                evidence=seen_at(found, f"{kind.upper()} at {where}"),
            )
