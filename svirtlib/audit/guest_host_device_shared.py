"""Devices that a guest writes while the host uses them."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, grouped
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class GuestHostDeviceShared(AuditRule):
    """The host mounts, or swaps to, a device that a guest may write, or a part of it."""

    ident = "guest-host-device-shared"
    severity = Severity.CRITICAL
    summary = "a guest may write a device that the host itself has mounted"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each device."""
        uses = [
            (guest, link.source, facts.block(link.source))
            for guest, link in facts.disks
            if link.writable and link.type in ("block", "volume")
        ]
        for path, found in grouped(uses, lambda use: use[1]).items():
            used = found[0][2].used
            if used is None:
                continue
            names = sorted({guest.name for guest, _, _ in found})
            yield self.tell(
                f"{listed(names)} may write {path} while the host uses it: {used}",
                f"take the disk out ({'`virsh edit ' + names[0] + '`'}), or unmount it on the host "
                f"and take it out of /etc/fstab; check the file system before either uses it again",
                guests=names,
                paths=[path],
                evidence=(Evidence("the host", used),),
            )
