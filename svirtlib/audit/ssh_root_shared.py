"""Administrators who are all root."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class SshRootShared(AuditRule):
    """root may log in by ssh with a password."""

    ident = "ssh-root-shared"
    severity = Severity.MEDIUM
    summary = "root may log in over ssh with a password"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        setting = facts.practices.root_login
        if setting is not None and setting.value == "yes":
            yield self.tell(
                "root may log in over ssh with a password: who shares it cannot be told apart, and "
                "it can be guessed",
                "PermitRootLogin no in /etc/ssh/sshd_config; administrators log in as themselves, "
                "and use sudo or the group libvirt",
                paths=[setting.origin.rpartition(":")[0] or setting.origin],
                evidence=(Evidence(setting.origin, "PermitRootLogin yes"),),
            )
