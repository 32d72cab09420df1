"""A SPICE console that asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.consoles import Exposure
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many


class SpiceNoTicket(AuditRule):
    """No ticket (password) and no SASL, and a TCP port. SPICE checks no client certificates."""

    ident = "spice-no-ticket"
    severity = Severity.CRITICAL
    summary = "a SPICE console can be reached over TCP and asks for no ticket and no SASL"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each address."""
        seats = [
            seat
            for seat in facts.seats_of("spice")
            if seat.console.reachable and not seat.console.password and not seat.console.sasl
        ]
        for (exposure, where), found in grouped(
            seats, lambda seat: (seat.console.exposure, seat.console.where)
        ).items():
            names = names_of(found)
            local = exposure is Exposure.LOOPBACK
            yield self.tell(
                f"{exposure.value} can use "
                f"{one_or_many(names, 'the SPICE console', 'the SPICE consoles')} of "
                f"{listed(names)} at {where}: ticketing is off, and SASL is too",
                "give each guest a ticket of its own that expires (`passwd` and `passwdValidTo` in "
                "`<graphics type='spice'>`), or set spice_sasl = 1 in /etc/libvirt/qemu.conf; "
                "where only this host's administrators use it, "
                "`<listen type='socket'/>` or `<listen type='none'/>` will do",
                guests=names,
                severity=Severity.MEDIUM if local else Severity.CRITICAL,
                evidence=seen_at(found, f"SPICE at {where} without ticket and SASL"),
            )
