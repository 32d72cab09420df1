"""Devices of the host for guests of strangers."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class CloudNoPassthrough(AuditRule):
    """In a public cloud no guest has any device of the host, virtual functions included."""

    ident = "cloud-no-passthrough"
    severity = Severity.HIGH
    summary = "a guest of a public cloud drives a device of the host (profile public-cloud)"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all guests."""
        if facts.profile != "public-cloud":
            return
        found = []
        for guest in facts.inventory.guests:
            devices = facts.devices(guest)
            found += [(guest, f"{one.kind} {one.name}".strip()) for one in devices.host_devices]
            found += [(guest, "USB redirection") for _ in devices.redirections]
            found += [(guest, path) for path in devices.inputs]
        if found:
            names = [guest.name for guest, _ in found]
            yield self.tell(
                f"{listed(set(names))} {'has' if len(set(names)) == 1 else 'have'} devices of the "
                f"host: {listed({what for _, what in found})}; in a public cloud a guest is a "
                f"stranger's, and what it leaves in a device meets the next one",
                "take `<hostdev>`, `<redirdev>`, `<interface type='hostdev'>` and inputs of the "
                "host out",
                guests=names,
                evidence=[Evidence(guest.source, f"{guest.name}: {what}") for guest, what in found],
            )
