"""QEMU as a user that is also somebody else."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity

_NO_LOGIN = ("nologin", "false", "true", "sync", "halt", "shutdown")
_SERVICES = frozenset({"nobody", "www-data", "apache", "nginx", "mysql", "postgres", "daemon"})
#: Groups that are as good as root, and why.
_POWERFUL = {
    "root": "whose files are the system's",
    "disk": "which reads and writes every disk of the host",
    "docker": "whose members are root by way of containers",
    "libvirt": "whose members manage all guests",
    "sudo": "whose members may become root",
    "wheel": "whose members may become root",
}


class QemuUserShared(AuditRule):
    """QEMU runs as a user who can log in or is another service's, or with a powerful group."""

    ident = "qemu-user-shared"
    severity = Severity.MEDIUM
    summary = "QEMU runs as a user that can log in, or as that of another service"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding about the user and one about the group."""
        group = None if facts.conf is None else facts.conf.text("group")
        if facts.conf is not None and group in _POWERFUL:
            yield self.tell(
                f"QEMU runs with the group {group}, {_POWERFUL[group]}",
                "take `group` out of /etc/libvirt/qemu.conf: libvirt gives guests what they need",
                paths=[facts.conf.source],
                evidence=(Evidence(facts.conf.where("group"), f"group is {group}"),),
            )
        user = None if facts.host is None else facts.host.qemu_user
        if user is None or user.uid == 0 or facts.conf is None or not facts.conf.has("user"):
            return
        shell = user.shell.rpartition("/")[2]
        if user.name in _SERVICES:
            fault = "which is the user of another service"
        elif shell and shell not in _NO_LOGIN:
            fault = f"who can log in (shell {user.shell})"
        else:
            return
        yield self.tell(
            f"QEMU runs as {user.name}, {fault}: each may send the other signals and use its files",
            "have QEMU run as a user of its own that cannot log in: take `user` out of "
            "/etc/libvirt/qemu.conf",
            paths=[facts.conf.source],
            evidence=(Evidence(facts.conf.where("user"), f"user is {user.name}"),),
        )
