"""A VNC console that asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.consoles import Exposure
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many


class VncNoAuth(AuditRule):
    """No password, no SASL, no client certificate, and a TCP port.

    With TLS that verifies no client, vnc-tls-peer-verify tells of a console on the network.
    """

    ident = "vnc-no-auth"
    severity = Severity.CRITICAL
    summary = "a VNC console can be reached over TCP and asks for no proof of identity"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each address."""
        seats = [
            seat
            for seat in facts.seats_of("vnc")
            if seat.console.reachable
            and not seat.console.authenticated
            and not (seat.console.tls and seat.console.exposed)
        ]
        for (exposure, where), found in grouped(
            seats, lambda seat: (seat.console.exposure, seat.console.where)
        ).items():
            names = names_of(found)
            local = exposure is Exposure.LOOPBACK
            consoles = one_or_many(names, "the VNC console", "the VNC consoles")
            yield self.tell(
                f"{exposure.value} can use {consoles} of {listed(names)} at {where}: no password, "
                f"no SASL and no client certificate is asked for",
                "set vnc_auto_unix_socket = 1 in /etc/libvirt/qemu.conf and leave addresses out of "
                "the XML, or use `<listen type='socket'/>`; for clients on other hosts set "
                "vnc_tls = 1 with vnc_tls_x509_verify = 1, or vnc_sasl = 1; then start the "
                "guests anew",
                guests=names,
                severity=Severity.MEDIUM if local else Severity.CRITICAL,
                evidence=seen_at(found, f"VNC at {where} without authentication"),
            )
