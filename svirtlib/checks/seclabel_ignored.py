"""A seclabel that libvirt accepts, and that does not do what it says."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check
from svirtlib.checks._facts import Facts
from svirtlib.checks._problems import findings_of
from svirtlib.findings import Finding, Severity
from svirtlib.problems import IGNORED


class SeclabelIgnored(Check):
    """libvirt takes a seclabel, or a part of one, and gives it no effect or another one."""

    ident = IGNORED
    severity = Severity.LOW
    summary = "a seclabel that libvirt accepts, in whole or in part without effect"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each part without effect."""
        return findings_of(facts, self.ident, self.severity)
