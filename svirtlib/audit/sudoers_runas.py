"""Lines of sudoers that start a viewer as somebody else."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class SudoersRunas(AuditRule):
    """A viewer runs as root or as another user than the one who calls sudo."""

    ident = "sudoers-runas"
    severity = Severity.HIGH
    summary = "sudo starts a viewer as root, or as another user than the one who calls it"
    since = "0.1"
    needs = frozenset({Need.SUDOERS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each command."""
        for one in facts.practices.sudo or ():
            others = [name for name in one.runas if one.users != (name,)]
            if not one.starts_viewer or not others or one.users == ("root",):
                continue
            root = {"root", "#0", "ALL"} & {*others}
            yield self.tell(
                f"{one.origin} has {listed(one.users)} start {one.program} as {listed(others)}: "
                + (
                    "it opens and saves files as root"
                    if root
                    else "its connection is that user's, and the firewall's rules take it for his"
                ),
                "let each user start it as himself, with the group of the viewer alone: "
                "`USER ALL=(USER:GROUP) …`, as `svirt-label console-rules` does",
                paths=[one.origin],
                evidence=(Evidence(one.origin, f"as {listed(one.runas)}"),),
            )
