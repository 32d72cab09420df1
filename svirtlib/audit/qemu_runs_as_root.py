"""QEMU as root."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class QemuRunsAsRoot(AuditRule):
    """QEMU is started as root, by configuration or in fact."""

    ident = "qemu-runs-as-root"
    severity = Severity.CRITICAL
    summary = "QEMU runs as root: only SELinux stands between a guest and the host"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for the configuration, or one for guests that run so."""
        if facts.host is None:
            return
        remedy = "take `user` and `group` out of /etc/libvirt/qemu.conf, and start the guests anew"
        user = facts.host.qemu_user
        if user is not None and user.uid == 0:
            where = "" if facts.conf is None else facts.conf.where("user")
            yield self.tell(
                "QEMU runs as root: a guest that takes it over is root, and only SELinux is left "
                "to hold it",
                remedy,
                paths=["/etc/libvirt/qemu.conf"],
                evidence=(Evidence(where, "user is root"),),
            )
            return
        roots = [
            (guest.name, one)
            for guest in facts.inventory.guests
            for one in [facts.arguments.get(guest.uuid or "")]
            if guest.running and one is not None and one.uid == 0
        ]
        if roots:
            names = [name for name, _ in roots]
            yield self.tell(
                f"QEMU of {listed(names)} runs as root",
                remedy,
                guests=names,
                evidence=[Evidence(one.source, f"{name}: uid 0") for name, one in roots],
            )
