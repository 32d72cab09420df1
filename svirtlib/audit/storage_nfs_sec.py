"""Images on NFS that anybody on the way may read."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class StorageNfsSec(AuditRule):
    """Guests have images on NFS without Kerberos' encryption."""

    ident = "storage-nfs-sec"
    severity = Severity.LOW
    summary = "images lie on NFS that is neither encrypted nor authenticated"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each mount."""
        for mount, uses in facts.remote_mounts.items():
            if not mount.kind.startswith("nfs"):
                continue
            options = mount.options.split(",")
            if {"sec=krb5p", "xprtsec=tls", "xprtsec=mtls"} & {*options}:
                continue
            names = sorted({guest.name for guest, _ in uses})
            yield self.tell(
                f"images of {listed(names)} lie on {mount.source} at {mount.target}, over NFS "
                f"without encryption: who sits on the way reads and changes them",
                "mount it with sec=krb5p (or xprtsec=tls), or keep it on a network of its own",
                guests=names,
                paths=[mount.target],
                evidence=(Evidence(mount.origin, f"{mount.kind} {mount.options}"),),
            )
