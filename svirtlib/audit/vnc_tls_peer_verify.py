"""TLS that encrypts for anybody."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed, one_or_many


class VncTlsPeerVerify(AuditRule):
    """TLS is on and asks clients for no certificate, and nothing stronger asks for more."""

    ident = "vnc-tls-peer-verify"
    severity = Severity.MEDIUM
    summary = "VNC with TLS on the network asks clients for no certificate, nor for SASL"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for consoles with a password, and one for those without."""
        seats = [
            seat
            for seat in facts.seats_of("vnc")
            if seat.console.exposed
            and seat.console.tls
            and not seat.console.verify_peer
            and not seat.console.sasl
        ]
        for password, found in grouped(seats, lambda seat: seat.console.password).items():
            names = names_of(found)
            consoles = one_or_many(names, "the VNC console", "the VNC consoles")
            rest = (
                "a password of 8 characters is all that keeps others out"
                if password
                else "whoever reaches the port is let in"
            )
            evidence = list(seen_at(found, "VNC with TLS, without peer verification"))
            if facts.conf is not None and facts.host is not None:
                where = facts.conf.where("vnc_tls_x509_verify")
                evidence.append(Evidence(where, "vnc_tls_x509_verify is not 1"))
            yield self.tell(
                f"TLS encrypts {consoles} of {listed(names)}, and clients need no certificate: "
                f"{rest}",
                "set vnc_tls_x509_verify = 1 in /etc/libvirt/qemu.conf and give each client a "
                "certificate of the authority in ca-cert.pem, or set vnc_sasl = 1; then start "
                "the guests anew",
                guests=names,
                severity=Severity.LOW if password else Severity.HIGH,
                evidence=evidence,
            )
