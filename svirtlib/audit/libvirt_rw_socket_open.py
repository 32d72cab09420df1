"""libvirt's socket for everybody."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class LibvirtRwSocketOpen(AuditRule):
    """Every local user may open the read-write socket, and nothing asks who it is.

    A socket with mode 0666 is usual where polkit asks; without polkit the mode is all there is.
    """

    ident = "libvirt-rw-socket-open"
    severity = Severity.CRITICAL
    summary = "every local user may manage guests: the socket is open and asks for nothing"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        if facts.daemon_text("auth_unix_rw") != "none":
            return
        unit = facts.practices.socket_mode
        mode = unit.value if unit is not None else facts.daemon_text("unix_sock_rw_perms")
        origin = unit.origin if unit is not None else facts.daemon_where("unix_sock_rw_perms")
        try:
            # The socket unit that libvirt ships has 0666.
            bits = int(mode or "0666", 8)
        except ValueError:
            return
        if bits & 0o002:
            yield self.tell(
                "auth_unix_rw is none and every user may open libvirt's socket: every local user "
                "is root",
                "take auth_unix_rw out, so that polkit asks; or SocketMode=0660 and "
                "SocketGroup=libvirt with `systemctl edit libvirtd.socket virtqemud.socket`",
                evidence=(
                    Evidence(facts.daemon_where("auth_unix_rw") or "", "auth_unix_rw is none"),
                    Evidence(origin or "the unit's default", f"mode {mode or '0666'}"),
                ),
            )
