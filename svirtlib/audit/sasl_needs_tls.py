"""SASL over a connection that nobody encrypts."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, grouped, names_of, seen_at
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed, one_or_many

#: Mechanisms that encrypt what follows them.
_ENCRYPTING = frozenset({"gssapi", "gs2-krb5", "gss-spnego"})


class SaslNeedsTls(AuditRule):
    """SASL with a mechanism that gives no encryption, on the network and without TLS."""

    ident = "sasl-needs-tls"
    severity = Severity.HIGH
    summary = "SASL on the network without TLS, with a mechanism that does not encrypt"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each service."""
        if facts.host is None:
            return
        configs = {one.service: one for one in facts.host.sasl}
        seats = [
            seat
            for seat in facts.seats
            if seat.console.exposed and seat.console.sasl and seat.console.plain
        ]
        for service, found in grouped(seats, lambda seat: seat.console.type).items():
            config = configs.get(service)
            # Where mechanisms are not limited, other rules tell of that already.
            if config is None or not config.present or not config.mechanisms:
                continue
            open_ones = [name for name in config.mechanisms if name not in _ENCRYPTING]
            if not open_ones:
                continue
            names = names_of(found)
            yield self.tell(
                f"{service.upper()} of {listed(names)} logs in by SASL with "
                f"{listed([name.upper() for name in open_ones])} and without TLS: "
                f"{one_or_many(open_ones, 'that mechanism encrypts', 'these encrypt')} nothing, "
                f"and the session can be read and taken over on the way",
                f"set {service}_tls = 1 in /etc/libvirt/qemu.conf"
                + (" and defaultMode='secure' in the XML" if service == "spice" else "")
                + f", or offer gssapi alone in {config.path}",
                guests=names,
                paths=[config.path],
                evidence=[
                    Evidence(config.path, f"mech_list: {' '.join(config.mechanisms)}"),
                    *seen_at(found, "SASL without TLS"),
                ],
            )
