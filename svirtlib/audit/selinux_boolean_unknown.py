"""SELinux booleans that a guest needs and that the policy does not have."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.booleans import is_missing
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class SelinuxBooleanUnknown(AuditRule):
    """A guest has what other policies allow with a boolean, and this one has none of that name.

    Told only of booleans without a substitute: some policies lack others because they allow
    the same anyway.
    """

    ident = "selinux-boolean-unknown"
    severity = Severity.INFO
    summary = "a guest's storage or device needs an SELinux boolean that the policy does not have"
    since = "0.1"
    needs = frozenset({Need.BOOLEANS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each boolean."""
        for name, uses in facts.boolean_needs.items():
            if is_missing(name, facts.booleans):
                names = sorted({guest for guest, _ in uses})
                whats = listed({what for _, what in uses})
                yield self.tell(
                    f"{listed(names)} ({whats}) would need the SELinux boolean "
                    f"{name}, which this policy does not have: `setsebool` cannot allow it",
                    "ask the policy with `svirt-label access` whether a rule allows it; if none "
                    "does, use storage or a device that it knows, or add a module of your own",
                    guests=names,
                    evidence=[Evidence("the policy", f"has no {name}")],
                )
