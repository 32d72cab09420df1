"""Console passwords in files that others may read."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import command, listed


class GraphicsSecretInFile(AuditRule):
    """A definition or ``qemu.conf`` holds a password, and others than root may read it."""

    ident = "graphics-secret-in-file"
    severity = Severity.HIGH
    summary = "a file with passwords of consoles can be read by others than root"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all files."""
        if facts.host is None:
            return
        found = [
            one
            for one in facts.host.secrets
            if one.holds == "passwords of consoles"
            and (one.mode & 0o004 or (one.mode & 0o040 and one.gid != 0))
        ]
        if found:
            paths = [one.path for one in found]
            yield self.tell(
                f"passwords of consoles stand in {listed(paths)}, which others than root may read",
                command("chmod", "600", *sorted(paths)[:4]),
                paths=paths,
                evidence=[Evidence(one.path, f"mode {one.mode:04o}") for one in found],
            )
