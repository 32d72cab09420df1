"""Keys that are set twice."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class ConfDuplicateKey(AuditRule):
    """A key is set more than once. libvirt takes the first line, and most readers the last."""

    ident = "conf-duplicate-key"
    severity = Severity.MEDIUM
    summary = "a configuration file sets a key twice; libvirt takes the first line"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        for settings in facts.settings:
            if not settings.repeated:
                continue
            first = dict(settings.lines)
            keys = sorted({key for key, _ in settings.repeated})
            yield self.tell(
                f"{settings.source} sets {', '.join(keys[:8])} more than once: the first line "
                f"counts, whatever stands further down",
                "leave one line for each key",
                paths=[settings.source],
                evidence=[
                    Evidence(
                        f"{settings.source}:{line}",
                        f"{key} without effect, as line {first.get(key, '?')} sets it",
                    )
                    for key, line in settings.repeated
                ],
            )
