"""Kerberos without keys."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, grouped
from svirtlib.findings import Evidence, Finding, Severity


class SaslKeytab(AuditRule):
    """GSSAPI is offered, and its keytab is missing or not named."""

    ident = "sasl-keytab"
    severity = Severity.MEDIUM
    summary = "SASL offers GSSAPI without a keytab of its own"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        if facts.host is None:
            return
        kerberos = [one for one in facts.host.sasl if "gssapi" in (one.mechanisms or ())]
        for path, configs in grouped(kerberos, lambda one: one.path).items():
            config = configs[0]
            if config.keytab is None:
                yield self.tell(
                    f"{path} offers GSSAPI and names no keytab: QEMU falls back to the host's own, "
                    f"which it may not read, or which then is the key to more than consoles",
                    f"`keytab: /etc/qemu/krb5.tab` in {path}, with the key of qemu/HOST alone, "
                    f"mode 0640, group that of QEMU",
                    severity=Severity.LOW,
                    paths=[path],
                    evidence=(Evidence(path, "gssapi in mech_list, no keytab"),),
                )
            elif config.keytab_exists is False:
                yield self.tell(
                    f"{path} names the keytab {config.keytab}, which does not exist: nobody can "
                    f"log in by GSSAPI",
                    f"export the key of qemu/HOST to {config.keytab}",
                    paths=[path, config.keytab],
                    evidence=(Evidence(path, f"keytab: {config.keytab}"),),
                )
