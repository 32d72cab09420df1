"""USB devices that any client may plug into a guest."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class SpiceUsbRedir(AuditRule):
    """USB redirection without a filter, or with one that lets everything pass.

    The profile public-cloud allows no redirection at all (cloud-no-passthrough).
    """

    ident = "spice-usb-redir"
    severity = Severity.LOW
    summary = "clients may plug any USB device of theirs into a guest"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all guests."""
        if facts.profile == "public-cloud":
            return
        found = [
            guest
            for guest in facts.inventory.guests
            if any(not one.filtered for one in facts.devices(guest).redirections)
        ]
        if found:
            names = [guest.name for guest in found]
            yield self.tell(
                f"clients of {listed(set(names))} may plug in any USB device: nothing filters "
                f"what `<redirdev>` lets through",
                "name what is needed and deny the rest: `<redirfilter>` with "
                "`<usbdev class='0x08' … allow='yes'/>` and `<usbdev allow='no'/>` as its end, or "
                "take `<redirdev>` out",
                guests=names,
                evidence=[Evidence(guest.source, f"{guest.name}: <redirdev>") for guest in found],
            )
