"""SPICE channels that are kept off TLS on purpose."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts, Seat
from svirtlib.audit._rule import AuditRule, grouped, names_of, seen_at
from svirtlib.findings import Finding, Severity
from svirtlib.wording import listed, one_or_many


class SpiceChannelInsecure(AuditRule):
    """Channels with ``mode='insecure'`` on a console that has TLS and is on the network."""

    ident = "spice-channel-insecure"
    severity = Severity.HIGH
    summary = "SPICE channels on the network are set to bypass the TLS that the console has"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each set of channels."""
        seats = [
            seat
            for seat in facts.seats_of("spice")
            if seat.console.exposed and seat.console.tls and seat.console.plain
        ]
        for channels, found in grouped(seats, _insecure).items():
            if not channels:
                continue
            names = names_of(found)
            yield self.tell(
                f"{one_or_many(channels, 'the SPICE channel', 'the SPICE channels')} "
                f"{listed(channels, shown=8)} of {listed(names)} "
                f"{one_or_many(channels, 'is', 'are')} sent in clear text: the mode is insecure",
                "take `<channel … mode='insecure'/>` out, or set it to secure; "
                "defaultMode='secure' covers the channels that cannot be named too, such as "
                "shared folders",
                guests=names,
                evidence=seen_at(found, f"insecure: {', '.join(channels)}"),
            )


def _insecure(seat: Seat) -> tuple[str, ...]:
    named = tuple(name for name, mode in seat.console.modes if mode == "insecure")
    default = None if seat.graphics is None else seat.graphics.default_mode
    # Those that no XML can name follow the default.
    return named or (("port",) if default == "insecure" else ())
