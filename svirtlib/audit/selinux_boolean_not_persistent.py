"""SELinux booleans that the next boot changes."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.booleans import BOOLEANS, FOR_USERS, excess
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import command, listed, one_or_many


class SelinuxBooleanNotPersistent(AuditRule):
    """A boolean that concerns guests was set for the running system alone."""

    ident = "selinux-boolean-not-persistent"
    severity = Severity.LOW
    summary = "an SELinux boolean for guests has another state now than after the next boot"
    since = "0.1"
    needs = frozenset({Need.BOOLEANS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all booleans."""
        needs = facts.boolean_needs
        # Of these, other rules tell.
        told = {*excess(facts.booleans, needs), *(n for n in needs if not _is_on(facts, n))}
        found = [
            facts.booleans[name]
            for name in (*BOOLEANS, *FOR_USERS)
            if name in facts.booleans and facts.booleans[name].drifts and name not in told
        ]
        if not found:
            return
        guests = sorted({guest for one in found for guest, _ in needs.get(one.name, ())})
        # What a guest needs stays on; of the rest, what was written down is what was meant.
        words = [f"{one.name}={_word(one.name in needs or one.stored)}" for one in found]
        yield self.tell(
            f"{listed([one.name for one in found], shown=12)} "
            f"{'has' if len(found) == 1 else 'have'} another state now than after the next boot"
            + (
                f", and {listed(guests)} {one_or_many(guests, 'needs', 'need')} it"
                if guests
                else ""
            ),
            command("setsebool", "-P", *words),
            guests=guests,
            evidence=[
                Evidence(
                    "the policy", f"{one.name} is {_word(one.live)}, stored {_word(one.stored)}"
                )
                for one in found
            ],
        )


def _is_on(facts: AuditFacts, name: str) -> bool:
    return name in facts.booleans and facts.booleans[name].on


def _word(state: object) -> str:
    return "on" if state else "off"
