"""SPICE without TLS on the network."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many

_REMEDY = (
    "set spice_tls = 1 in /etc/libvirt/qemu.conf, put a certificate into its "
    "spice_tls_x509_cert_dir, and use `<graphics type='spice' autoport='yes' "
    "defaultMode='secure'>`: then there is no port without TLS, and every channel is encrypted"
)


class SpiceCleartextExposed(AuditRule):
    """A port without TLS on the network, through which a client may open all channels.

    Channels that are set to be insecure are told by spice-channel-insecure, consoles without
    any authentication by spice-no-ticket, and SASL without TLS by sasl-needs-tls.
    """

    ident = "spice-cleartext-exposed"
    severity = Severity.HIGH
    summary = "a SPICE console on the network has a port without TLS"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for consoles without TLS, and for those that offer both."""
        seats = [
            seat
            for seat in facts.seats_of("spice")
            if seat.console.exposed
            and seat.console.plain
            and seat.console.password
            and not seat.console.sasl
        ]
        for (tls, where, modes), found in grouped(
            seats,
            lambda seat: (seat.console.tls, seat.console.where, seat.console.modes),
        ).items():
            names = names_of(found)
            open_channels = [name for name, mode in modes if mode != "secure"]
            insecure = any(mode == "insecure" for _, mode in modes)
            # Where TLS is off anyhow, this rule tells of all channels.
            if tls and (insecure or not open_channels):
                continue
            consoles = one_or_many(names, "the SPICE console", "the SPICE consoles")
            if tls:
                message = (
                    f"{consoles} of {listed(names)} at {where} "
                    f"{one_or_many(names, 'has', 'have')} a port without TLS beside the one with "
                    f"it: clients may open {listed(open_channels, shown=8)} in clear text"
                )
            else:
                message = (
                    f"{consoles} of {listed(names)} at {where} "
                    f"{one_or_many(names, 'is', 'are')} not encrypted: ticket, screen and keys "
                    f"cross the network in clear text"
                )
            yield self.tell(
                message,
                _REMEDY,
                guests=names,
                severity=Severity.MEDIUM if tls else Severity.HIGH,
                evidence=seen_at(found, f"SPICE at {where} with a port without TLS"),
            )
