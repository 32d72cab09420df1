"""Keys and passwords that others may read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.hostconfig import FileFacts, HostConfig
from svirtlib.wording import command


class SecretFileMode(AuditRule):
    """A private key, keytab or password database that others than root and QEMU may use."""

    ident = "secret-file-mode"
    severity = Severity.HIGH
    summary = "a private key, keytab or password database can be used by others than root and QEMU"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        if facts.host is None:
            return
        for one in facts.host.secrets:
            if one.holds == "passwords of consoles":
                continue
            fault = _fault(one, facts.host)
            if fault is None:
                continue
            everybody = bool(one.mode & 0o007) or one.open_parent is not None
            group = facts.host.qemu_group
            remedy = command("chmod", "0640", one.path)
            if group is not None:
                remedy = f"{command('chown', f'root:{group}', one.path)} and {remedy}"
            yield self.tell(
                f"{one.path} holds {one.holds}, and {fault}",
                f"{remedy}; whoever may have read it knows it: make a new one",
                severity=Severity.CRITICAL if everybody else Severity.HIGH,
                paths=[one.path],
                evidence=(
                    Evidence(one.path, f"mode {one.mode:04o}, owner {one.uid}, group {one.gid}"),
                ),
            )


def _fault(one: FileFacts, host: HostConfig) -> Optional[str]:
    owners = {0} if host.qemu_user is None else {0, host.qemu_user.uid}
    groups = {0} if host.qemu_group is None else {0, host.qemu_group}
    if one.open_parent is not None:
        return f"everybody may write to {one.open_parent} above it"
    if one.mode & 0o007:
        return f"everybody may use it (mode {one.mode:04o})"
    if one.uid not in owners:
        return f"its owner is user {one.uid}, neither root nor QEMU's"
    if one.mode & 0o070 and one.gid not in groups:
        return f"the group {one.gid} may use it (mode {one.mode:04o})"
    if one.mode & 0o020:
        return f"QEMU's group may write it (mode {one.mode:04o})"
    return None
