"""What all families of rules share: their metadata, choosing among them, and the report.

``check`` and ``audit`` apply rules of different families to different facts; which rules run,
which findings are kept and what a report says of the rest is the same for both.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar, TypeVar

from attr import evolve, frozen

from svirtlib.errors import SelectionError
from svirtlib.findings import Finding, NotRun, Report, Severity
from svirtlib.guests import Guest, Inventory, Unreadable

__all__ = ["Rule", "Selection", "cut", "find_guests", "select_rules"]


class Rule(abc.ABC):
    """One rule. The metadata is its only place: lists, documents and SARIF are made of it.

    Attributes:
        ident: the rule's identifier.
        severity: of its findings, unless one says otherwise.
        summary: when it is true, in one line.
        since: version that brought it.
    """

    ident: ClassVar[str]
    severity: ClassVar[Severity]
    summary: ClassVar[str]
    since: ClassVar[str]


_R = TypeVar("_R", bound=Rule)


def select_rules(rules: Sequence[_R], only: Collection[str], verb: str) -> tuple[_R, ...]:
    """Return those of the rules with these identifiers, or all of them if none is given.

    Args:
        rules: the family.
        only: identifiers.
        verb: the verb that lists the family, for messages.

    Raises:
        SelectionError: an identifier is of no rule of the family.
    """
    known = {rule.ident for rule in rules}
    for ident in only:
        if ident not in known:
            near = get_close_matches(ident, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SelectionError(
                f"no rule is called {ident!r}{hint} ('svirt-label {verb} --list-rules' lists them)"
            )
    return tuple(rule for rule in rules if not only or rule.ident in only)


def find_guests(inventory: Inventory, text: str) -> tuple[Guest, ...]:
    """Return the guests with a name or UUID; several may share a name in documents.

    Raises:
        SelectionError: there is no such guest.
    """
    matches = tuple(guest for guest in inventory.guests if text in (guest.name, guest.uuid))
    if not matches:
        near = get_close_matches(text, [guest.name for guest in inventory.guests], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SelectionError(f"no guest is called {text!r}{hint}")
    return matches


def cut(report: Report, subjects: int) -> Report:
    """Return the report with at most *subjects* names in each finding's ``reaches``."""
    return evolve(
        report,
        findings=tuple(
            evolve(finding, reaches=finding.reaches[:subjects]) for finding in report.findings
        ),
    )


@frozen
class Selection:
    """What of the findings on an inventory a user wants to see.

    Attributes:
        inventory: what was found.
        wanted: names of guests; only findings that touch one of them are kept. Empty: all.
        ignored: for each ignored rule the names of guests, or ``""`` for all.
    """

    inventory: Inventory
    wanted: frozenset[str]
    ignored: tuple[tuple[str, frozenset[str]], ...]

    @classmethod
    def make(
        cls,
        inventory: Inventory,
        rules: Sequence[Rule],
        *,
        guests: Collection[str],
        ignore: Iterable[tuple[str, str]],
        verb: str,
    ) -> Selection:
        """Return the selection for what a user asks for.

        Raises:
            SelectionError: a rule or a guest does not exist.
        """
        ignored: dict[str, set[str]] = {}
        for rule, guest in ignore:
            select_rules(rules, [rule], verb)
            if guest:
                find_guests(inventory, guest)
            ignored.setdefault(rule, set()).add(guest)
        names = {guest.name for text in guests for guest in find_guests(inventory, text)}
        kept = tuple((rule, frozenset(subjects)) for rule, subjects in sorted(ignored.items()))
        return cls(inventory, frozenset(names), kept)

    def report(
        self,
        findings: Sequence[Finding],
        gaps: Iterable[Unreadable],
        not_run: Sequence[NotRun],
    ) -> Report:
        """Return the report on what rules found, and on what could not be looked at."""
        wanted = self.wanted
        if wanted:
            findings = [one for one in findings if wanted & {*one.guests, *one.reaches}]
        ignored = dict(self.ignored)
        kept = [one for one in findings if not _is_ignored(one, ignored)]
        entries = sorted(
            (entry for entry in gaps if not wanted or entry.guest is None or entry.guest in wanted),
            key=lambda entry: (entry.what, entry.reason, entry.guest or ""),
        )
        return Report(
            host=self.inventory.host,
            guests=len(wanted) if wanted else len(self.inventory.guests),
            findings=tuple(sorted(kept, key=lambda finding: finding.sort_key)),
            # What several guests stay unjudged for is one gap.
            unreadable=tuple({(gap.what, gap.reason): gap for gap in entries}.values()),
            not_run=tuple(not_run),
            notes=self.inventory.notes,
            ignored=len(findings) - len(kept),
        )


def _is_ignored(finding: Finding, ignored: dict[str, frozenset[str]]) -> bool:
    guests = ignored.get(finding.rule)
    if guests is None:
        return False
    return "" in guests or (bool(finding.guests) and set(finding.guests) <= guests)
