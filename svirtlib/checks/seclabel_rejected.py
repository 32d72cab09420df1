"""A seclabel that libvirt refuses."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check
from svirtlib.checks._facts import Facts
from svirtlib.checks._problems import findings_of
from svirtlib.findings import Finding, Severity
from svirtlib.problems import REJECTED


class SeclabelRejected(Check):
    """libvirt refuses a guest's seclabel when it reads, defines or starts the guest.

    Only what every libvirt refuses, whatever security models its host has: ``svirt-label
    validate`` judges for one version and one host. Labels that are none are left to
    label-invalid.
    """

    ident = REJECTED
    severity = Severity.HIGH
    summary = "a seclabel that libvirt refuses to read, to define or to start"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each reason."""
        return findings_of(facts, self.ident, self.severity)
