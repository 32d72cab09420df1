"""A VNC password as the only lock of a console on the network."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many


class VncPasswordExposed(AuditRule):
    """VNC's own password without TLS: eight characters, DES, all else in clear text."""

    ident = "vnc-password-exposed"
    severity = Severity.HIGH
    summary = "a VNC console on the network is protected by its short password alone"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each address."""
        seats = [
            seat
            for seat in facts.seats_of("vnc")
            if seat.console.exposed
            and seat.console.password
            and not seat.console.sasl
            and not seat.console.tls
        ]
        for where, found in grouped(seats, lambda seat: seat.console.where).items():
            names = names_of(found)
            yield self.tell(
                f"only a VNC password protects {one_or_many(names, 'the console', 'the consoles')} "
                f"of {listed(names)} at {where}: it has 8 characters at most and can be guessed, "
                f"and the session crosses the network in clear text",
                "have the console listen on 127.0.0.1 or a UNIX socket and reach it through ssh, "
                "or set vnc_tls = 1 with vnc_tls_x509_verify = 1 in /etc/libvirt/qemu.conf; then "
                "start the guests anew",
                guests=names,
                evidence=seen_at(found, f"VNC at {where} with a password, without TLS and SASL"),
            )
