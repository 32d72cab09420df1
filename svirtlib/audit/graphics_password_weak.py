"""Console passwords that are easily guessed."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, grouped
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.settings import Secret
from svirtlib.wording import listed

#: What libvirt's own qemu.conf shows as an example, and what everybody tries first.
_KNOWN = ("XYZ12345", "password", "passw0rd", "123456", "12345678", "secret", "changeme", "admin")
#: The fewest bytes of a password: VNC has room for eight, SPICE for many.
_SHORTEST = {"vnc": 8, "spice": 12}


class GraphicsPasswordWeak(AuditRule):
    """A short or well-known password, or one that is the guest's name. It is never shown."""

    ident = "graphics-password-weak"
    severity = Severity.MEDIUM
    summary = "a console's password is short, well known, or the guest's name"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each weakness."""
        found = []
        for seat in facts.seats:
            graphics = seat.graphics
            # An empty password locks everybody out.
            if graphics is None or graphics.password is None or not graphics.password.size:
                continue
            if not seat.console.reachable:
                continue
            weakness = _weakness(graphics.password, graphics.type, seat.guest.name)
            if weakness is not None:
                found.append((seat, weakness))
        for weakness, pairs in grouped(found, lambda pair: pair[1]).items():
            names = sorted({seat.guest.name for seat, _ in pairs})
            yield self._finding(
                f"the console password of {listed(names)} {weakness}",
                names,
                [Evidence(seat.source, f"{seat.guest.name}: {weakness}") for seat, _ in pairs],
            )
        if facts.conf is None:
            return
        for kind in ("vnc", "spice"):
            key = f"{kind}_password"
            secret = facts.conf.secret(key)
            weakness = None if secret is None else _weakness(secret, kind, "")
            if weakness is not None:
                where = facts.conf.where(key)
                yield self._finding(
                    f"{key} in {facts.conf.source} {weakness}", [], [Evidence(where, weakness)]
                )

    def _finding(self, message: str, names: list[str], evidence: list[Evidence]) -> Finding:
        return self.tell(
            message,
            "draw one at random, for example with `openssl rand -base64 18` (VNC: the first 8 "
            "characters), and let it end with passwdValidTo; better, use SASL",
            guests=names,
            evidence=evidence,
        )


def _weakness(secret: Secret, kind: str, name: str) -> str | None:
    if not secret.size:
        return None
    if secret.is_one_of(*_KNOWN):
        return "is a well-known one"
    if name and secret.is_one_of(name):
        return "is the guest's name"
    if secret.size < _SHORTEST[kind]:
        return f"is shorter than {_SHORTEST[kind]} bytes"
    return None
