"""SPICE that asks for TLS while the host has switched it off."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many


class SpiceSecureWithoutTls(AuditRule):
    """A TLS port or a secure mode in the XML, and ``spice_tls`` off: the guest does not start.

    libvirt converts ``autoport`` with ``defaultMode='secure'`` into QEMU arguments all the same
    (``domxml-to-native``), and refuses at start to allocate the port.
    """

    ident = "spice-secure-without-tls"
    severity = Severity.MEDIUM
    summary = "the XML asks SPICE for TLS that qemu.conf switches off: the guest does not start"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all guests."""
        found = [seat for seat in facts.seats if seat.console.secure_without_tls]
        if found:
            names = names_of(found)
            yield self.tell(
                f"the XML of {listed(names)} asks for SPICE with TLS, and spice_tls is off or "
                f"there is no port with TLS: the {one_or_many(names, 'guest does', 'guests do')} "
                f"not start",
                "set spice_tls = 1 in /etc/libvirt/qemu.conf and restart libvirt's daemon; with "
                "a fixed port set tlsPort too",
                guests=names,
                evidence=seen_at(found, "TLS is asked for"),
            )
