"""Ways between the desktop of the client and the guest."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many


class SpiceClipboard(AuditRule):
    """Clipboard or file transfer of SPICE is on, which is libvirt's default."""

    ident = "spice-clipboard"
    severity = Severity.INFO
    summary = "SPICE shares the clipboard, or files, between the client's desktop and the guest"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each set of what is shared."""
        seats = [
            seat
            for seat in facts.seats
            if seat.graphics is not None
            and seat.graphics.type == "spice"
            and (seat.graphics.clipboard or seat.graphics.file_transfer)
        ]
        for shared, found in grouped(
            seats,
            lambda seat: tuple(
                name
                for name, shares in (
                    ("the clipboard", seat.graphics is not None and seat.graphics.clipboard),
                    ("files", seat.graphics is not None and seat.graphics.file_transfer),
                )
                if shares
            ),
        ).items():
            names = names_of(found)
            yield self.tell(
                f"SPICE shares {' and '.join(shared)} between the client and {listed(names)}",
                f"where {one_or_many(names, 'the guest does', 'the guests do')} not need it: "
                "`<clipboard copypaste='no'/>` and `<filetransfer enable='no'/>` in "
                "`<graphics type='spice'>`",
                guests=names,
                severity=Severity.HIGH if facts.profile == "confidential" else Severity.INFO,
                evidence=seen_at(found, f"{' and '.join(shared)} shared"),
            )
