"""Certificates that are used for what they are not meant for."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class X509KeyUsage(AuditRule):
    """A server's certificate may not serve, may issue others, or an authority may not issue."""

    ident = "x509-key-usage"
    severity = Severity.MEDIUM
    summary = "a certificate is used for what it is not meant for"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each certificate."""
        for store in () if facts.host is None else facts.host.stores:
            one = store.certificate
            if one is not None and not one.server:
                yield self._finding(
                    store.service, one.path, "is not meant for servers (extended key usage)"
                )
            if one is not None and one.authority and not one.self_signed:
                yield self._finding(
                    store.service, one.path, "may issue certificates itself (CA:TRUE)"
                )
            for authority in store.authorities:
                if authority.authority is not True:
                    yield self._finding(
                        store.service, authority.path, "may issue no certificates (no CA:TRUE)"
                    )
                    break

    def _finding(self, service: str, path: str, fault: str) -> Finding:
        return self.tell(
            f"the certificate {path} of {service} {fault}",
            "issue it anew: for servers with the extended key usage serverAuth and CA:FALSE, for "
            "authorities with CA:TRUE",
            paths=[path],
            evidence=(Evidence(path, fault),),
        )
