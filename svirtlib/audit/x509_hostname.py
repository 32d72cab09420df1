"""Certificates for another host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class X509Hostname(AuditRule):
    """A server's certificate names none of the names that clients know the host by.

    The names are those of ``--host-name``, else of the host's own files; without any, nothing
    is judged.
    """

    ident = "x509-hostname"
    severity = Severity.MEDIUM
    summary = "a server's certificate does not name the host"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each certificate."""
        if facts.host is None or not facts.host.names:
            return
        names = facts.host.names
        for store in facts.host.stores:
            one = store.certificate
            if one is None:
                continue
            if not one.names:
                fault = (
                    "has no subject alternative name, and clients of today pass over the common "
                    "name"
                )
            elif not any(_holds(pattern, name) for pattern in one.names for name in names):
                fault = f"is for {listed(one.names)}, and the host is called {listed(names)}"
            else:
                continue
            yield self.tell(
                f"the certificate {one.path} of {store.service} {fault}: clients refuse it, or "
                f"their users learn to pass over the warning",
                f"issue a new one with the subject alternative name DNS:{names[-1]}, and every "
                f"address that clients use (--host-name says which)",
                paths=[one.path],
                evidence=(
                    Evidence(one.path, f"{one.subject}: {', '.join(one.names) or 'no names'}"),
                ),
            )


def _holds(pattern: str, name: str) -> bool:
    """Tell whether a certificate's name is that of a host; a short name has any domain."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    try:
        return ipaddress.ip_address(pattern) == ipaddress.ip_address(name)
    except ValueError:
        pass
    first, _, domain = pattern.partition(".")
    own, _, own_domain = name.partition(".")
    if first == "*":
        return not own_domain or own_domain == domain
    return pattern == name or (not own_domain and first == own)
