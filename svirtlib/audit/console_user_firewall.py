"""Firewall rules that do not keep each user to its own console."""

from __future__ import annotations

import json
from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.consolerules import allowed
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed

#: A user that no map has.
_NOBODY = 65534


class ConsoleUserFirewall(AuditRule):
    """On the machine with the viewers: a user reaches a port of another, or not its own."""

    ident = "console-user-firewall"
    severity = Severity.HIGH
    summary = "the firewall does not keep each user to the console that the map gives it"
    since = "0.1"
    needs = frozenset({Need.MAP, Need.OWNER_RULES})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for what is open, and one for what is shut."""
        entries = json.loads(facts.practices.owner_rules or "[]")
        users = facts.console_users
        owners: dict[tuple[str, int], set[int]] = {}
        for one in users:
            owners.setdefault((str(one.address), one.port), set()).add(one.uid)
        everybody = sorted({_NOBODY, *(one.uid for one in users)})[:200]
        open_ones = []
        shut = []
        for one in users:
            place = (str(one.address), one.port)
            if allowed(entries, one.uid, *place) is False:
                shut.append(f"{one.guest} to {one.user}")
            # What cannot be judged may be open.
            if any(
                uid not in owners[place] and allowed(entries, uid, *place) is not False
                for uid in everybody
            ):
                open_ones.append(one.guest)
        where = facts.practices.owner_rules_origin
        remedy = "`svirt-label console-rules MAP --install`, and load it with the unit"
        if open_ones:
            yield self.tell(
                f"other users than their own reach the consoles of {listed(set(open_ones))} from "
                f"this machine: no rule at the output hook denies it",
                remedy,
                guests=open_ones,
                evidence=(Evidence(where, "no deny for others"),),
            )
        if shut:
            yield self.tell(
                f"the firewall denies {listed(shut)}, which the map allows",
                remedy,
                severity=Severity.MEDIUM,
                evidence=(Evidence(where, "denied"),),
            )
