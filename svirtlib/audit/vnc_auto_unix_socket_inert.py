"""A setting that the guests' own XML overrides."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need, names_of
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed, one_or_many


class VncAutoUnixSocketInert(AuditRule):
    """``vnc_auto_unix_socket`` is on, and guests name an address, so that it does nothing."""

    ident = "vnc-auto-unix-socket-inert"
    severity = Severity.LOW
    summary = "vnc_auto_unix_socket is on and without effect on guests that name an address"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all guests."""
        conf = facts.conf
        if conf is None or not conf.flag("vnc_auto_unix_socket"):
            return
        found = [
            seat
            for seat in facts.seats_of("vnc")
            if seat.console.reachable
            # Live XML states the address that was chosen, whoever chose it.
            and not seat.guest.running
        ]
        if found:
            names = names_of(found)
            yield self.tell(
                f"vnc_auto_unix_socket is on, and {listed(names)} "
                f"{one_or_many(names, 'listens', 'listen')} on TCP all the same: the XML names an "
                f"address",
                "take listen= and address= out of `<graphics type='vnc'>` "
                f"(`virsh edit {names[0]}`)",
                guests=names,
                evidence=(Evidence(conf.where("vnc_auto_unix_socket"), "it is 1"),),
            )
