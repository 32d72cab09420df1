"""Keys that libvirt passes over in silence."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.settings import DAEMON_KEYS, OBSOLETE_KEYS, QEMU_KEYS
from svirtlib.wording import one_or_many


class ConfUnknownKey(AuditRule):
    """A key that no libvirt that we know asks for: what it was to switch stays as it was."""

    ident = "conf-unknown-key"
    severity = Severity.MEDIUM
    summary = "a configuration file sets a key that libvirt does not know, and passes over"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        for settings in facts.settings:
            kinds = QEMU_KEYS if settings.source.endswith("/qemu.conf") else DAEMON_KEYS
            # Of that one spice-tls-verify-noop tells.
            unknown = [
                (key, line) for key, line in settings.unknown if key != "spice_tls_x509_verify"
            ]
            if not unknown:
                continue
            keys = [key for key, _ in unknown]
            near = {key: get_close_matches(key, kinds, 1, 0.8) for key in keys}
            hints = "; ".join(f"{key}: {found[0]}?" for key, found in near.items() if found)
            obsolete = all(key in OBSOLETE_KEYS for key in keys)
            yield self.tell(
                f"{settings.source} sets {', '.join(keys[:8])}, which libvirt up to version 11 "
                f"does not know: {one_or_many(keys, 'it does', 'they do')} nothing",
                f"correct the spelling or take {one_or_many(keys, 'it', 'them')} out"
                + (f" ({hints})" if hints else ""),
                severity=Severity.INFO if obsolete else Severity.MEDIUM,
                paths=[settings.source],
                evidence=[Evidence(f"{settings.source}:{line}", key) for key, line in unknown],
            )
