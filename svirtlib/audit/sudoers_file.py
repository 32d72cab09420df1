"""Files of sudoers that others than root may write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.hostconfig import FileFacts


class SudoersFile(AuditRule):
    """Somebody else than root may change whom sudo lets do what.

    sudo itself refuses most such files, and with them everybody; not a folder of them.
    """

    ident = "sudoers-file"
    severity = Severity.HIGH
    summary = "others than root may write a file of sudoers, or the folder of such files"
    since = "0.1"
    needs = frozenset({Need.SUDOERS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        for one in () if facts.host is None else facts.host.sudoers:
            fault = _fault(one)
            if fault is not None:
                mode = "0750" if one.path.endswith(".d") else "0440"
                yield self.tell(
                    f"{one.path} {fault}: who does makes himself root, or sudo refuses the file "
                    f"and with it everybody",
                    f"`chown root:root {one.path}; chmod {mode} {one.path}`, after a look at what "
                    f"it says (`visudo -c`)",
                    paths=[one.path],
                    evidence=(Evidence(one.path, f"mode {one.mode:04o}, {one.uid}:{one.gid}"),),
                )


def _fault(one: FileFacts) -> Optional[str]:
    if one.uid != 0:
        return f"belongs to user {one.uid}, who may write it"
    if one.mode & 0o002:
        return f"may be written by everybody (mode {one.mode:04o})"
    if one.mode & 0o020 and one.gid != 0:
        return f"may be written by group {one.gid} (mode {one.mode:04o})"
    if one.open_parent is not None:
        return f"may be replaced by everybody, who may write {one.open_parent} above it"
    return None
