"""Disks that are not encrypted, or badly so."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, seen_on
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed


class GuestDiskNotEncrypted(AuditRule):
    """A disk has qcow's old, broken encryption; or none, in the profile confidential."""

    ident = "guest-disk-not-encrypted"
    severity = Severity.HIGH
    summary = "a disk has broken encryption, or none at all (profile confidential)"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for broken encryption, and one for none."""
        disks = [(guest, link) for guest, link in facts.disks if link.writable and link.source]
        broken = [use for use in disks if use[1].encryption in ("qcow", "default")]
        if broken:
            names = [guest.name for guest, _ in broken]
            yield self.tell(
                f"disks of {listed(set(names))} have the encryption of qcow, which is broken",
                "convert them: `qemu-img convert` to qcow2 with encrypt.format=luks, and "
                "`<encryption format='luks'>`",
                guests=names,
                evidence=seen_on(broken),
            )
        if facts.profile != "confidential":
            return
        plain = [
            use
            for use in disks
            if use[1].encryption is None and facts.block(use[1].source).kind != "crypt"
        ]
        if plain:
            names = [guest.name for guest, _ in plain]
            yield self.tell(
                f"disks of {listed(set(names))} are not encrypted by the host; whether the guest "
                f"does so cannot be seen from here",
                "`<encryption format='luks'>` with a secret, or a device of dm-crypt",
                guests=names,
                evidence=seen_on(plain),
            )
