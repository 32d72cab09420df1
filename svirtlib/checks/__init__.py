"""The rules of ``svirt-label check``: an inventory in, a report out, no look at the system.

A rule is one module with one class, listed in :data:`ALL_CHECKS`. An exception inside a rule
is not caught: a check that crashed has judged nothing, and must not look as if it had.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from svirtlib._collection import no_collection
from svirtlib.checks._check import Check, Need, command
from svirtlib.checks._facts import SUBJECTS, Facts
from svirtlib.checks.guest_permissive import GuestPermissive
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
from svirtlib.checks.storage_boolean import StorageBoolean
from svirtlib.checks.storage_no_rule import StorageNoRule
from svirtlib.engine import Selection, cut, find_guests, select_rules
from svirtlib.findings import Finding, NotRun, Report
from svirtlib.guests import Inventory

__all__ = [
    "ALL_CHECKS",
    "Check",
    "Need",
    "command",
    "cut",
    "find_guests",
    "run_checks",
    "select_checks",
]

#: Every rule, the worst first; within a severity as the documents list them.
ALL_CHECKS: tuple[Check, ...] = (
    LabelCollision(),
    LabelExposure(),
    GuestUnconfined(),
    GuestPermissive(),
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
    StorageNoRule(),
    StorageBoolean(),
    LabelNotCanonical(),
    SeclabelIgnored(),
)


def select_checks(only: Collection[str] = ()) -> tuple[Check, ...]:
    """Return the rules with these identifiers, or all of them if none is given.

    Raises:
        SelectionError: an identifier is of no rule.
    """
    return select_rules(ALL_CHECKS, only, "check")


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
    with no_collection():
        return _run_checks(inventory, checks, guests, ignore, subjects)


def _run_checks(
    inventory: Inventory,
    checks: Sequence[Check],
    guests: Collection[str],
    ignore: Iterable[tuple[str, str]],
    subjects: int,
) -> Report:
    selection = Selection.make(inventory, ALL_CHECKS, guests=guests, ignore=ignore, verb="check")
    # One of the guests that were asked for may be anywhere among those that a finding names.
    cap = len(inventory.guests) if selection.wanted else subjects
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
    return selection.report(findings, (*inventory.unreadable, *facts.undecided), not_run)


def _missing(inventory: Inventory) -> set[Need]:
    known = {
        Need.HOST: inventory.host_known,
        Need.FILES: inventory.files_known,
        Need.RULES: inventory.files_known or any(label.rule for label in inventory.files),
        Need.PROCESSES: inventory.processes_known,
        Need.POLICY: inventory.policy is not None,
    }
    return {need for need, is_known in known.items() if not is_known}
