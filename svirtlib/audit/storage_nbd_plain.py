"""NBD without TLS."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, seen_on
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed


class StorageNbdPlain(AuditRule):
    """A disk comes over NBD from another host, unencrypted."""

    ident = "storage-nbd-plain"
    severity = Severity.HIGH
    summary = "a disk crosses the network over NBD without TLS"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all disks."""
        default = facts.conf is not None and facts.conf.flag("nbd_tls")
        found = [
            (guest, link)
            for guest, link in facts.disks
            if link.protocol == "nbd"
            and link.remote
            and not (default if link.tls is None else link.tls)
        ]
        for uses in grouped(found, lambda use: use[1].tls).values():
            names = [guest.name for guest, _ in uses]
            yield self.tell(
                f"disks of {listed(set(names))} cross the network over NBD in clear text: "
                f"{listed({link.source for _, link in uses})}",
                "`tls='yes'` in `<source protocol='nbd'>`, or nbd_tls = 1 in "
                "/etc/libvirt/qemu.conf, with certificates on both sides",
                guests=names,
                evidence=seen_on(uses),
            )
