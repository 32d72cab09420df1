"""Console passwords without an end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed


class GraphicsPasswordNoExpiry(AuditRule):
    """A password in the XML that ends never, or has ended already."""

    ident = "graphics-password-no-expiry"
    severity = Severity.LOW
    summary = "a console's password in the XML never expires"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for passwords without an end, and one for those that ended."""
        seats = [
            seat
            for seat in facts.seats
            if seat.console.reachable
            and not seat.console.sasl
            and seat.graphics is not None
            and seat.graphics.password is not None
            and seat.graphics.password.size
        ]
        endless = [seat for seat in seats if seat.graphics and seat.graphics.valid_to is None]
        if endless:
            names = names_of(endless)
            yield self.tell(
                f"the console password of {listed(names)} never expires",
                "passwdValidTo='YYYY-MM-DDThh:mm:ss' (UTC) beside passwd in `<graphics>`, and a "
                "new password with `virsh update-device` when it is needed",
                guests=names,
                evidence=seen_at(endless, "passwd without passwdValidTo"),
            )
        if facts.host is None:
            return
        now = facts.host.now
        ended = [seat for seat in seats if seat.graphics and _ended(seat.graphics.valid_to, now)]
        if ended:
            names = names_of(ended)
            yield self.tell(
                f"the console password of {listed(names)} has expired: nobody can log in",
                "set a new one with `virsh update-device`",
                guests=names,
                severity=Severity.INFO,
                evidence=seen_at(ended, "passwdValidTo is in the past"),
            )


def _ended(text: str | None, now: dt.datetime) -> bool:
    try:
        # libvirt counts in UTC and writes no zone.
        return dt.datetime.strptime(f"{text}+0000", "%Y-%m-%dT%H:%M:%S%z") < now
    except ValueError:
        return False
