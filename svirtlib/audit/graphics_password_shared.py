"""One console password for several guests."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts, Seat
from svirtlib.audit._rule import AuditRule, grouped, names_of
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.settings import Secret
from svirtlib.wording import listed


class GraphicsPasswordShared(AuditRule):
    """Several guests have one password: who may use one console may use them all."""

    ident = "graphics-password-shared"
    severity = Severity.HIGH
    summary = "several guests' consoles have the same password"
    since = "0.1"

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each password that is used more than once."""
        seats = [seat for seat in facts.seats if seat.console.reachable]
        own = [(seat, _own(seat)) for seat in seats]
        shared = grouped(
            ((seat, secret) for seat, secret in own if secret is not None and secret.size),
            lambda pair: pair[1],
        )
        for pairs in shared.values():
            names = names_of(seat for seat, _ in pairs)
            if len(names) > 1:
                yield self._finding(names, "its XML", [])
        conf = facts.conf
        if conf is None:
            return
        for kind in ("vnc", "spice"):
            key = f"{kind}_password"
            if conf.secret(key) is None:
                continue
            names = names_of(
                seat for seat, secret in own if secret is None and seat.console.type == kind
            )
            if len(names) > 1:
                evidence = [Evidence(conf.where(key), f"{key} is set for all guests")]
                yield self._finding(names, f"{key} in {conf.source}", evidence)

    def _finding(self, names: list[str], where: str, evidence: list[Evidence]) -> Finding:
        return self.tell(
            f"{listed(names)} have one console password, from "
            f"{'their XML' if where == 'its XML' else where}: who may use one of these consoles "
            f"may use all",
            "give each guest a password of its own, with an end "
            "(`passwd` and `passwdValidTo` in `<graphics>`), or use SASL",
            guests=names,
            evidence=evidence,
        )


def _own(seat: Seat) -> Secret | None:
    return None if seat.graphics is None else seat.graphics.password
