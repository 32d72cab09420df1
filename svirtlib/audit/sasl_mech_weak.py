"""SASL mechanisms that prove little."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, grouped
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed, one_or_many

_WEAK = {
    "anonymous": Severity.CRITICAL,
    "digest-md5": Severity.HIGH,
    "cram-md5": Severity.HIGH,
    "ntlm": Severity.HIGH,
    "plain": Severity.HIGH,
    "login": Severity.HIGH,
    "otp": Severity.MEDIUM,
    "srp": Severity.MEDIUM,
    "scram-sha-1": Severity.INFO,
    "scram-sha-1-plus": Severity.INFO,
}
#: Passwords in clear text, which TLS covers.
_CLEAR = frozenset({"plain", "login"})


class SaslMechWeak(AuditRule):
    """The mechanisms that SASL offers are not limited, or weak ones are among them."""

    ident = "sasl-mech-weak"
    severity = Severity.HIGH
    summary = "SASL offers a mechanism that is broken, or does not limit what it offers"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        if facts.host is None:
            return
        present = [one for one in facts.host.sasl if one.present]
        for path, configs in grouped(present, lambda one: one.path).items():
            mechanisms = configs[0].mechanisms
            services = listed([one.service.upper() for one in configs])
            if not mechanisms:
                yield self.tell(
                    f"{path} has no mech_list: clients of {services} may choose any mechanism that "
                    f"is installed, anonymous and DIGEST-MD5 among them",
                    f"write `mech_list: gssapi` or `mech_list: scram-sha-256` into {path}",
                    paths=[path],
                    evidence=(Evidence(path, "no mech_list"),),
                )
                continue
            encrypted = all(facts.service_encrypted(one.service) for one in configs)
            weak = {
                name: Severity.LOW if name in _CLEAR and encrypted else _WEAK[name]
                for name in mechanisms
                if name in _WEAK
            }
            if weak:
                names = [name.upper() for name in weak]
                yield self.tell(
                    f"{path} offers clients of {services} the "
                    f"{one_or_many(names, 'mechanism', 'mechanisms')} {listed(names)}: a client, "
                    f"or who sits between, takes the weakest",
                    f"write `mech_list: gssapi` or `mech_list: scram-sha-256` into {path}",
                    severity=max(weak.values()),
                    paths=[path],
                    evidence=(Evidence(path, f"mech_list: {' '.join(mechanisms)}"),),
                )
