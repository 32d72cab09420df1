"""Whole disks that a guest may write."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed

_KINDS = {
    "disk": "whole disk",
    "multipath": "whole multipath disk",
    "array": "whole array",
}


class GuestWholeDiskRw(AuditRule):
    """A disk, LUN or array as a whole, or a SCSI device or adapter, that the guest may write."""

    ident = "guest-whole-disk-rw"
    severity = Severity.HIGH
    summary = "a guest may write a whole disk, whose labels and partitions the host reads too"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each device."""
        uses = [
            (guest, link.source, facts.block(link.source))
            for guest, link in facts.disks
            if link.writable and link.type in ("block", "volume")
        ]
        for path, found in grouped(uses, lambda use: use[1]).items():
            kind = found[0][2].kind
            if kind not in _KINDS:
                continue
            names = sorted({guest.name for guest, _, _ in found})
            by_name = " (by its name)" if found[0][2].by_name else ""
            yield self.tell(
                f"{listed(names)} may write the {_KINDS[kind]} {path}{by_name}: partition tables "
                f"and labels of file systems that the guest writes are read by the host",
                "give the guest a partition or a logical volume "
                "(`lvcreate -n NAME -L SIZE GROUP` and `<source dev='/dev/GROUP/NAME'/>`), or "
                "`<readonly/>`",
                guests=names,
                paths=[path],
                evidence=[Evidence(guest.source, f"{guest.name}: {path}") for guest, _, _ in found],
            )
        scsi = [
            (guest, device)
            for guest in facts.inventory.guests
            for device in facts.devices(guest).host_devices
            if device.kind in ("scsi", "scsi_host")
        ]
        if scsi and facts.profile != "public-cloud":
            names = [guest.name for guest, _ in scsi]
            yield self.tell(
                f"{listed(set(names))} may write whole SCSI devices of the host: "
                f"{listed({device.name or device.kind for _, device in scsi})}",
                "give the guest a partition or a logical volume as a disk instead of the device",
                guests=names,
                evidence=[
                    Evidence(guest.source, f"{guest.name}: <hostdev type='{device.kind}'>")
                    for guest, device in scsi
                ],
            )
