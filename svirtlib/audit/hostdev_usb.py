"""USB devices of the host that a guest drives."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class HostdevUsb(AuditRule):
    """A USB device of the host is given to a guest."""

    ident = "hostdev-usb"
    severity = Severity.MEDIUM
    summary = "a guest drives a USB device of the host, and may write its firmware"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all guests."""
        if facts.profile == "public-cloud":
            return
        found = [
            (guest, device)
            for guest in facts.inventory.guests
            for device in facts.devices(guest).host_devices
            if device.kind == "usb"
        ]
        if found:
            names = [guest.name for guest, _ in found]
            yield self.tell(
                f"{listed(set(names))} {'drives' if len(set(names)) == 1 else 'drive'} USB devices "
                f"of the host ({listed({device.name for _, device in found})}): their firmware can "
                f"be written, and what is plugged in next there may be the guest's",
                "take `<hostdev type='usb'>` out where the guest can do without; name devices by "
                "vendor and product, not by the place where they are plugged in",
                guests=names,
                evidence=[
                    Evidence(guest.source, f"{guest.name}: {device.name}")
                    for guest, device in found
                ],
            )
