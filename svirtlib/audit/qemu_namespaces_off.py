"""QEMU with the host's whole /dev."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class QemuNamespacesOff(AuditRule):
    """``namespaces`` is empty: QEMU sees all device nodes of the host."""

    ident = "qemu-namespaces-off"
    severity = Severity.MEDIUM
    summary = "QEMU sees all device nodes of the host instead of its guest's own"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        conf = facts.conf
        if conf is not None and conf.texts("namespaces") == ():
            yield self.tell(
                "namespaces is empty: each QEMU sees the host's whole /dev, not just the devices "
                "of its guest",
                "take namespaces out of /etc/libvirt/qemu.conf, and start the guests anew",
                paths=[conf.source],
                evidence=(Evidence(conf.where("namespaces"), "[ ]"),),
            )
