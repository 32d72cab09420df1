"""polkit rules that let everybody manage guests."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class LibvirtPolkitOpen(AuditRule):
    """A rule of polkit grants ``org.libvirt.unix.manage`` without looking at who asks."""

    ident = "libvirt-polkit-open"
    severity = Severity.HIGH
    summary = "a polkit rule lets every local user manage guests"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all files."""
        paths = facts.practices.polkit_open
        if paths:
            yield self.tell(
                f"{listed(paths)} grants the management of guests to whoever asks: every local "
                f"user is root",
                'ask for a group in the rule: `subject.isInGroup("libvirt")`',
                paths=paths,
                evidence=[
                    Evidence(path, "polkit.Result.YES for org.libvirt.unix.manage")
                    for path in paths
                ],
            )
