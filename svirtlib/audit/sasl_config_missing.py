"""SASL without a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, grouped
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class SaslConfigMissing(AuditRule):
    """SASL is on, and there is no ``qemu.conf`` of SASL's: every installed mechanism is offered."""

    ident = "sasl-config-missing"
    severity = Severity.HIGH
    summary = "SASL is on without a configuration, so that every installed mechanism is offered"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file that is missing."""
        if facts.host is None:
            return
        missing = [one for one in facts.host.sasl if not one.present]
        for path, configs in grouped(missing, lambda one: one.path).items():
            services = [one.service.upper() for one in configs]
            yield self.tell(
                f"SASL is on for {listed(services)}, and there is no {path}: clients may choose "
                f"any mechanism that is installed, anonymous and DIGEST-MD5 among them",
                f"write {path} with one line `mech_list: gssapi` (and `keytab:`), or "
                f"`mech_list: scram-sha-256` (and `sasldb_path:`) where TLS is on",
                paths=[path],
                evidence=(Evidence(path, "there is no such file"),),
            )
