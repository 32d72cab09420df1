"""SELinux booleans that a guest needs and that are off."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import command, listed


class SelinuxBooleanMissing(AuditRule):
    """A guest has storage or a device that the policy allows with a boolean, which is off."""

    ident = "selinux-boolean-missing"
    severity = Severity.MEDIUM
    summary = "a guest's storage or device needs an SELinux boolean that is off"
    since = "0.1"
    needs = frozenset({Need.BOOLEANS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each boolean."""
        for name, uses in facts.boolean_needs.items():
            state = facts.booleans.get(name)
            if state is not None and not state.on:
                names = sorted({guest for guest, _ in uses})
                yield self.tell(
                    f"{listed(names)} needs the SELinux boolean {name} "
                    f"({listed({what for _, what in uses})}), and it is off: SELinux denies the "
                    f"access",
                    command("setsebool", "-P", name, "on"),
                    guests=names,
                    evidence=[Evidence("the policy", f"{name} is off")],
                )
