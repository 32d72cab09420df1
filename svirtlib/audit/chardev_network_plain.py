"""Serial consoles and channels over the network."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule
from svirtlib.consoles import Exposure, exposure_of
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class ChardevNetworkPlain(AuditRule):
    """A serial port, console or channel is at a TCP or UDP address without TLS."""

    ident = "chardev-network-plain"
    severity = Severity.HIGH
    summary = "a serial console or channel of a guest crosses the network without TLS"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all devices."""
        default = facts.conf is not None and facts.conf.flag("chardev_tls")
        found = [
            (guest, one)
            for guest in facts.inventory.guests
            for one in facts.devices(guest).characters
            if one.type in ("tcp", "udp")
            and one.host is not None
            and exposure_of(one.host) is Exposure.NETWORK
            and (one.type == "udp" or not (default if one.tls is None else one.tls))
        ]
        if found:
            names = [guest.name for guest, _ in found]
            places = {f"{one.element} at {one.host}" for _, one in found}
            yield self.tell(
                f"{listed(places)} of {listed(set(names))} crosses the network in clear text, and "
                f"asks for nothing",
                "have it at 127.0.0.1 or at a UNIX socket; or chardev_tls = 1 in "
                "/etc/libvirt/qemu.conf and type tcp",
                guests=names,
                evidence=[
                    Evidence(guest.source, f"{guest.name}: {one.element} {one.type}")
                    for guest, one in found
                ],
            )
