"""Passwords of consoles among those of other services."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, grouped
from svirtlib.findings import Evidence, Finding, Severity


class SaslSasldb(AuditRule):
    """A mechanism with stored passwords, and no database of its own for them."""

    ident = "sasl-sasldb"
    severity = Severity.LOW
    summary = "SASL keeps the passwords of consoles in the database of all services"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        if facts.host is None:
            return
        stored = [
            one
            for one in facts.host.sasl
            if one.sasldb is None
            and any(name.startswith("scram-") for name in one.mechanisms or ())
        ]
        for path in grouped(stored, lambda one: one.path):
            yield self.tell(
                f"{path} offers SCRAM and names no sasldb_path: the passwords of consoles lie in "
                f"/etc/sasldb2, with those of other services",
                f"`sasldb_path: /etc/qemu/passwd.db` in {path}, and "
                f"`saslpasswd2 -f /etc/qemu/passwd.db -a qemu USER`",
                paths=[path],
                evidence=(Evidence(path, "no sasldb_path"),),
            )
