"""Disks over HTTP or FTP."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, seen_on
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed


class StorageHttpPlain(AuditRule):
    """A disk is read over a protocol that anybody on the way may change."""

    ident = "storage-http-plain"
    severity = Severity.MEDIUM
    summary = "a disk is read over HTTP or FTP, which anybody on the way may change"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all disks."""
        found = [
            (guest, link)
            for guest, link in facts.disks
            if link.protocol in ("http", "ftp", "tftp") and link.remote
        ]
        if found:
            names = [guest.name for guest, _ in found]
            yield self.tell(
                f"{listed(set(names))} reads disks over "
                f"{listed({(link.protocol or '').upper() for _, link in found})}: who sits on the "
                f"way decides what the guest boots",
                "use https, or copy the image to the host and check its signature",
                guests=names,
                evidence=seen_on(found),
            )
