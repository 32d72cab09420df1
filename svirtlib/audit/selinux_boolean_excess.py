"""SELinux booleans that no guest needs and that are on."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.booleans import excess
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import command, listed


class SelinuxBooleanExcess(AuditRule):
    """A boolean that the policy has off is on, and nothing that guests have needs it."""

    ident = "selinux-boolean-excess"
    severity = Severity.LOW
    summary = "an SELinux boolean that opens something to all guests is on, and none needs it"
    since = "0.1"
    needs = frozenset({Need.BOOLEANS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all booleans."""
        found = excess(facts.booleans, facts.boolean_needs)
        if found:
            yield self.tell(
                f"{listed(found, shown=12)} {'is' if len(found) == 1 else 'are'} on, which no "
                f"defined guest needs: every guest that is taken over may use it",
                command("setsebool", "-P", *(f"{name}=off" for name in found)),
                evidence=[Evidence("the policy", f"{name} is on") for name in found],
            )
