"""The rules of ``svirt-label check``: an inventory in, a report out, no look at the system.

A rule is one module with one class, listed in :data:`ALL_CHECKS`. An exception inside a rule
is not caught: a check that crashed has judged nothing, and must not look as if it had.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

from attr import evolve

from svirtlib.checks._check import Check, Need
from svirtlib.checks._facts import SUBJECTS, Facts
from svirtlib.checks.guest_unconfined import GuestUnconfined
from svirtlib.checks.host_not_enforcing import HostNotEnforcing
from svirtlib.checks.image_exposure import ImageExposure
from svirtlib.checks.image_label_drift import ImageLabelDrift
from svirtlib.checks.label_collision import LabelCollision
from svirtlib.checks.label_exposure import LabelExposure
from svirtlib.checks.label_invalid import LabelInvalid
from svirtlib.checks.label_not_canonical import LabelNotCanonical
from svirtlib.checks.process_label_drift import ProcessLabelDrift
from svirtlib.checks.relabel_off_mismatch import RelabelOffMismatch
from svirtlib.checks.seclabel_ignored import SeclabelIgnored
from svirtlib.checks.seclabel_rejected import SeclabelRejected
from svirtlib.checks.shared_image_undeclared import SharedImageUndeclared
from svirtlib.checks.stale_image_label import StaleImageLabel
from svirtlib.checks.static_label_reuse import StaticLabelReuse
from svirtlib.errors import SelectionError
from svirtlib.findings import Finding, NotRun, Report
from svirtlib.guests import Guest, Inventory

__all__ = ["ALL_CHECKS", "Check", "Need", "cut", "find_guests", "run_checks", "select_checks"]

#: Every rule, the worst first; within a severity as the documents list them.
ALL_CHECKS: tuple[Check, ...] = (
    LabelCollision(),
    LabelExposure(),
    GuestUnconfined(),
    HostNotEnforcing(),
    ImageExposure(),
    ProcessLabelDrift(),
    ImageLabelDrift(),
    SharedImageUndeclared(),
    LabelInvalid(),
    SeclabelRejected(),
    StaticLabelReuse(),
    StaleImageLabel(),
    RelabelOffMismatch(),
    LabelNotCanonical(),
    SeclabelIgnored(),
)


def select_checks(only: Collection[str] = ()) -> tuple[Check, ...]:
    """Return the rules with these identifiers, or all of them if none is given.

    Raises:
        SelectionError: an identifier is of no rule.
    """
    known = {check.ident for check in ALL_CHECKS}
    for ident in only:
        if ident not in known:
            near = get_close_matches(ident, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SelectionError(
                f"no rule is called {ident!r}{hint} ('svirt-label check --list-rules' lists them)"
            )
    return tuple(check for check in ALL_CHECKS if not only or check.ident in only)


def run_checks(
    inventory: Inventory,
    checks: Sequence[Check] = ALL_CHECKS,
    *,
    guests: Collection[str] = (),
    ignore: Iterable[tuple[str, str]] = (),
    subjects: int = SUBJECTS,
) -> Report:
    """Judge an inventory.

    Args:
        inventory: what was found.
        checks: the rules to run.
        guests: names or UUIDs; only findings that touch one of these guests are kept (all
            guests take part in the comparison). Empty: all.
        ignore: pairs of a rule and a guest's name (empty: any guest) whose findings are
            counted but not listed. A finding about several guests is left out only if each of
            them is ignored.
        subjects: how many reached guests a finding is to name, if that is more than it names
            anyhow; :func:`cut` takes some away.

    Raises:
        SelectionError: a rule or a guest does not exist.
    """
    wanted = _wanted(inventory, guests)
    ignored_rules = _ignored(inventory, ignore)
    # One of the guests that were asked for may be anywhere among those that a finding names.
    cap = len(inventory.guests) if wanted else subjects
    facts = Facts(inventory, cap=max(cap, SUBJECTS))
    missing = _missing(inventory)
    findings: list[Finding] = []
    not_run: list[NotRun] = []
    for check in checks:
        lacking = [need for need in Need if need in check.needs and need in missing]
        if lacking:
            not_run.append(NotRun(check.ident, lacking[0].value))
        else:
            findings.extend(check.run(facts))
    if wanted:
        findings = [finding for finding in findings if wanted & {*finding.guests, *finding.reaches}]
    kept = [finding for finding in findings if not _is_ignored(finding, ignored_rules)]
    gaps = sorted(
        (
            entry
            for entry in (*inventory.unreadable, *facts.undecided)
            if not wanted or entry.guest is None or entry.guest in wanted
        ),
        key=lambda entry: (entry.what, entry.reason, entry.guest or ""),
    )
    return Report(
        host=inventory.host,
        guests=len(wanted) if wanted else len(inventory.guests),
        findings=tuple(sorted(kept, key=lambda finding: finding.sort_key)),
        # What several guests stay unjudged for is one gap.
        unreadable=tuple({(gap.what, gap.reason): gap for gap in gaps}.values()),
        not_run=tuple(not_run),
        notes=inventory.notes,
        ignored=len(findings) - len(kept),
    )


def cut(report: Report, subjects: int) -> Report:
    """Return the report with at most *subjects* names in each finding's ``reaches``."""
    return evolve(
        report,
        findings=tuple(
            evolve(finding, reaches=finding.reaches[:subjects]) for finding in report.findings
        ),
    )


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


def _wanted(inventory: Inventory, guests: Collection[str]) -> set[str]:
    return {guest.name for text in guests for guest in find_guests(inventory, text)}


def _ignored(inventory: Inventory, ignore: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    ignored: dict[str, set[str]] = {}
    for rule, guest in ignore:
        select_checks([rule])
        if guest:
            _wanted(inventory, [guest])
        ignored.setdefault(rule, set()).add(guest)
    return ignored


def _is_ignored(finding: Finding, ignored: dict[str, set[str]]) -> bool:
    guests = ignored.get(finding.rule)
    if guests is None:
        return False
    return "" in guests or (bool(finding.guests) and set(finding.guests) <= guests)


def _missing(inventory: Inventory) -> set[Need]:
    known = {
        Need.HOST: inventory.host_known,
        Need.FILES: inventory.files_known,
        Need.PROCESSES: inventory.processes_known,
    }
    return {need for need, is_known in known.items() if not is_known}
