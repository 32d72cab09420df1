"""The memory of guests in core dumps."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class QemuCoreDumpRam(AuditRule):
    """A QEMU that crashes leaves the guest's memory in a file."""

    ident = "qemu-core-dump-ram"
    severity = Severity.MEDIUM
    summary = "a core dump of QEMU holds the guest's memory"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        conf = facts.conf
        if conf is None or not conf.flag("dump_guest_core"):
            return
        limit = conf.text("max_core") or conf.number("max_core", 0)
        if limit != 0:
            yield self.tell(
                f"dump_guest_core is 1 and max_core {limit}: a QEMU that crashes writes the "
                f"memory of its guest, with its keys and passwords, to a file",
                "set dump_guest_core = 0 in /etc/libvirt/qemu.conf",
                paths=[conf.source],
                evidence=(Evidence(conf.where("dump_guest_core"), "it is 1"),),
            )
