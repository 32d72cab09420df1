"""Ceph without a user."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, seen_on
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed


class StorageCephNoAuth(AuditRule):
    """A disk comes from Ceph without ``<auth>``: QEMU uses whatever key lies on the host."""

    ident = "storage-ceph-no-auth"
    severity = Severity.MEDIUM
    summary = "a disk comes from Ceph without a user of its own"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all disks."""
        found = [
            (guest, link)
            for guest, link in facts.disks
            if link.protocol == "rbd" and not link.authenticated
        ]
        if found:
            names = [guest.name for guest, _ in found]
            yield self.tell(
                f"{listed(set(names))} takes disks from Ceph without `<auth>`: as whatever user "
                f"the host's keyring has, or as anybody where cephx is off",
                "a Ceph user for each guest or pool, `virsh secret-define`, and "
                "`<auth username='…'><secret type='ceph' uuid='…'/></auth>`",
                guests=names,
                evidence=seen_on(found),
            )
