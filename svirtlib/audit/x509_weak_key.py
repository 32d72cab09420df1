"""Certificates that can be forged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.hostconfig import Certificate

_SHORTEST = {"RSA": 2048, "DSA": 2048, "EC": 256}


class X509WeakKey(AuditRule):
    """A short key, or a signature with a hash for which collisions can be made."""

    ident = "x509-weak-key"
    severity = Severity.HIGH
    summary = "a certificate has a short key, or is signed with MD5 or SHA-1"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each certificate."""
        for store, one in facts.certificates:
            fault = _fault(one)
            if fault is not None:
                yield self.tell(
                    f"the certificate {one.path} of {store.service} {fault}",
                    "issue a new one with RSA of 3072 bits or ECDSA P-256, signed with SHA-256",
                    paths=[one.path],
                    evidence=(
                        Evidence(one.path, f"{one.subject}: {one.key} {one.bits}, {one.digest}"),
                    ),
                )


def _fault(one: Certificate) -> Optional[str]:
    if one.bits < _SHORTEST.get(one.key, 0):
        return f"has a key of {one.bits} bits ({one.key}), which is too short"
    # Nobody checks the signature of a root on itself.
    if one.digest in ("md2", "md5", "sha1") and not (one.self_signed and one.authority):
        return f"is signed with {one.digest.upper()}, for which collisions can be made"
    return None
