"""A VNC password of which only the first eight bytes count."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed

#: What the protocol has room for, in bytes.
_LONGEST = 8


class VncPasswordTruncated(AuditRule):
    """A VNC password has more than eight bytes; the rest is cut off, or libvirt refuses it."""

    ident = "vnc-password-truncated"
    severity = Severity.LOW
    summary = "a VNC password is longer than the eight bytes that count"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for qemu.conf, and one for documents."""
        remedy = (
            "take a password of 8 bytes that is not the start of a known one, or better SASL "
            "(vnc_sasl = 1) or client certificates"
        )
        secret = None if facts.conf is None else facts.conf.secret("vnc_password")
        if facts.conf is not None and secret is not None and secret.size > _LONGEST:
            where = facts.conf.where("vnc_password")
            yield self.tell(
                f"vnc_password in {facts.conf.source} is longer than 8 bytes, and only the first "
                f"8 count",
                remedy,
                paths=[facts.conf.source],
                evidence=(Evidence(where, "vnc_password is longer than 8 bytes"),),
            )
        names = [
            guest.name
            for guest in facts.inventory.guests
            for graphics in facts.devices(guest).graphics
            if graphics.type == "vnc"
            and graphics.password is not None
            and graphics.password.size > _LONGEST
        ]
        if names:
            yield self.tell(
                f"the VNC password in the XML of {listed(set(names))} is longer than 8 bytes: "
                f"libvirt refuses to define it",
                remedy,
                guests=names,
            )
