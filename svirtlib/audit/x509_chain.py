"""A certificate that no authority vouches for."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class X509Chain(AuditRule):
    """The server's certificate was not issued by an authority of the file beside it."""

    ident = "x509-chain"
    severity = Severity.HIGH
    summary = "a server's certificate was not issued by the authority that lies beside it"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each service."""
        for store in () if facts.host is None else facts.host.stores:
            one = store.certificate
            if one is None or store.issued is not False:
                continue
            signed = "signed by itself" if one.self_signed else "not issued by it"
            yield self.tell(
                f"the certificate {one.path} of {store.service} is {signed}: no certificate in "
                f"{store.authorities[0].path} vouches for it, and clients refuse it",
                "have it issued by the authority in that file, or put the file of the authority "
                "that did issue it, with all between, in its place",
                paths=[one.path, store.authorities[0].path],
                evidence=(Evidence(one.path, one.subject),),
            )
