"""The file-context rules would give an image a label that guests cannot use."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator

from svirtlib.checks._check import Check, Need, command, listed, one_or_many
from svirtlib.checks._facts import Facts, Use
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import FileLabel, ImageMode, ImageUse, PathRule
from svirtlib.seclabel import SeclabelType
from svirtlib.standard_types import Access, access_of_guests
from svirtlib.storagepaths import system_path
from svirtlib.storagetypes import is_for_guests

#: What lies in storage that an administrator sets up; the rest has its place in the policy.
_STORAGE = frozenset({ImageUse.DISK, ImageUse.BACKING, ImageUse.MIRROR})


class StorageNoRule(Check):
    """The next relabel gives an image a type that is none for storage of guests.

    Images that are only read may also have a type that guests may read, or of which that is not
    known. A path that the rules
    leave alone (``<<none>>``, or none at all) is none of that: no relabel changes it.
    """

    ident = "storage-no-rule"
    severity = Severity.MEDIUM
    summary = "the file-context rules give images a type that guests cannot use"
    since = "0.1"
    needs = frozenset({Need.RULES})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each rule that decides on images and should not."""
        decided: dict[tuple[PathRule, str], list[tuple[FileLabel, list[Use]]]] = {}
        for label in facts.inventory.files:
            if label.rule is None or not label.labelable:
                continue
            uses = [use for use in facts.uses.get(label.identity, ()) if _counts(use)]
            context = facts.context(label.rule.context)
            # A rule without a context is label-invalid's to tell.
            if uses and context is not None and not _suits(context.type, uses):
                decided.setdefault((label.rule, context.type), []).append((label, uses))
        for (rule, type_), images in decided.items():
            yield self._finding(rule, type_, images)

    def _finding(
        self, rule: PathRule, type_: str, images: list[tuple[FileLabel, list[Use]]]
    ) -> Finding:
        paths = tuple(sorted({label.path for label, _ in images}))
        guests = tuple(sorted({use.guest.name for _, uses in images for use in uses}))
        losing = ""
        if rule.shadowed is not None:
            losing = f", although the rule {rule.shadowed} is for storage of guests: it is weaker"
        pattern = f"{rule.pattern} " if rule.pattern else ""
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=guests,
            paths=paths,
            labels=(rule.context,),
            message=(
                f"{listed(paths)} ({one_or_many(paths, 'a disk', 'disks')} of {listed(guests)}) "
                f"{one_or_many(paths, 'gets', 'get')} the type {type_} from the file-context "
                f"rules{losing}; the next restorecon, or relabel at boot, takes "
                f"{one_or_many(paths, 'it', 'them')} away from "
                f"{one_or_many(guests, 'the guest', 'the guests')}"
            ),
            remedy=_remedy(rule, paths),
            evidence=(Evidence(rule.place, f"{pattern}{rule.context}"),),
        )


def _counts(use: Use) -> bool:
    """Tell whether a guest's use of an image depends on the image's label."""
    seclabel = use.guest.seclabel
    if seclabel is not None and seclabel.type is SeclabelType.NONE:
        return False
    return use.image.use in _STORAGE


def _suits(type_: str, uses: list[Use]) -> bool:
    """Tell whether a rule that gives this type leaves the guests their image."""
    if is_for_guests(type_):
        return True
    only_read = all(use.image.mode is ImageMode.READONLY for use in uses)
    return only_read and access_of_guests(type_) is not Access.NONE


def _remedy(rule: PathRule, paths: tuple[str, ...]) -> str:
    folders = sorted({posixpath.dirname(path) for path in paths})
    # A folder that is not for guests alone must not get their label.
    if any(system_path(os.fsencode(folder)) for folder in folders):
        folders = list(paths)
    named = folders[:4]
    more = " (and likewise for the others)" if len(folders) > len(named) else ""
    text = (
        f"see what would change with {command('svirt-label', 'storage', 'plan', *named)}{more}, "
        f"then {command('svirt-label', 'storage', 'apply', *named)}"
    )
    if rule.shadowed is not None and rule.pattern:
        text += (
            f"; if the stronger rule is a local one that nobody needs: "
            f"{command('semanage', 'fcontext', '-d', rule.pattern)}"
        )
    return text
