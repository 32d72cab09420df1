"""iSCSI without a login."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, seen_on
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed


class StorageIscsiNoChap(AuditRule):
    """QEMU takes a disk from an iSCSI target without any login."""

    ident = "storage-iscsi-no-chap"
    severity = Severity.MEDIUM
    summary = "a disk comes over iSCSI without a login (CHAP)"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all disks."""
        found = [
            (guest, link)
            for guest, link in facts.disks
            if link.protocol == "iscsi" and not link.authenticated
        ]
        if found:
            names = [guest.name for guest, _ in found]
            yield self.tell(
                f"{listed(set(names))} takes disks from iSCSI targets without a login: any host "
                f"that reaches the target may do so too",
                "CHAP at the target, `virsh secret-define`, and "
                "`<auth username='…'><secret type='iscsi' usage='…'/></auth>`; iSCSI encrypts "
                "nothing, so keep it on a network of its own, or use IPsec",
                guests=names,
                evidence=seen_on(found),
            )
