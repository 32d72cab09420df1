"""A guest's process has another context than libvirt states."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, Need, restart
from svirtlib.checks._facts import Facts
from svirtlib.findings import Evidence, Finding, Severity


class ProcessLabelDrift(Check):
    """The context in the live XML and the kernel's differ; the kernel's is what counts.

    libvirt takes the text of its status file for granted when it restarts, and starts a guest
    without a label if a permissive kernel refused one.
    """

    ident = "process-label-drift"
    severity = Severity.HIGH
    summary = "a guest's process has another context than libvirt states"
    since = "0.1"
    needs = frozenset({Need.PROCESSES})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each such guest."""
        for guest in facts.running:
            if guest.process is None or guest.seclabel is None or guest.seclabel.label is None:
                continue
            stated, actual = guest.seclabel.label, guest.process.context
            if facts.same(stated, actual):
                continue
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=(guest.name,),
                labels=(stated, actual),
                message=(
                    f"{guest.name} runs as {actual}, but libvirt states {stated}: its disks are "
                    f"labelled for another process than the one that runs"
                ),
                remedy=(
                    f"{restart(guest.name)}; if the two differ again, find out what starts the "
                    f"guest outside libvirt, and whether the kernel refused the label "
                    f"(`ausearch -m AVC,SELINUX_ERR`)"
                ),
                evidence=(
                    Evidence(guest.process.source, actual),
                    Evidence(guest.source, stated),
                ),
            )
