"""Images lie where labels cannot be set, and the boolean that lets guests use them is off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.checks._check import Check, Need, command, listed, one_or_many
from svirtlib.checks._facts import Facts, Use
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.filesystems import boolean_for
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import BooleanState, FileLabel
from svirtlib.seclabel import SeclabelType
from svirtlib.storagetypes import is_for_guests


class StorageBoolean(Check):
    """A guest's image lies on NFS, CIFS or FUSE without labels, and the policy does not allow it.

    A mount with ``context=`` and a type for storage of guests needs no boolean.
    """

    ident = "storage-boolean"
    severity = Severity.MEDIUM
    summary = "images on NFS, CIFS or FUSE, and the boolean for it is off or does not exist"
    since = "0.1"
    needs = frozenset({Need.FILES})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each boolean that is missed."""
        states = {boolean.name: boolean for boolean in facts.inventory.booleans}
        missed: dict[str, list[tuple[FileLabel, list[Use]]]] = {}
        for label in facts.inventory.files:
            name = None if label.filesystem is None else boolean_for(label.filesystem)
            # Of one whose state is not known the inventory says so.
            if label.labelable or name is None or name not in states or states[name].active:
                continue
            uses = [use for use in facts.uses.get(label.identity, ()) if _labelled(use)]
            if uses and not _has_type_for_guests(label.context):
                missed.setdefault(name, []).append((label, uses))
        for name in sorted(missed):
            yield self._finding(states[name], missed[name])

    def _finding(self, boolean: BooleanState, images: list[tuple[FileLabel, list[Use]]]) -> Finding:
        paths = tuple(sorted({label.path for label, _ in images}))
        guests = tuple(sorted({use.guest.name for _, uses in images for use in uses}))
        kinds = listed({str(label.filesystem) for label, _ in images})
        state = "is off" if boolean.active is False else "does not exist in this policy"
        mount = "mount it with `-o context=system_u:object_r:virt_image_t:s0`"
        remedy = f"{command('setsebool', '-P', boolean.name, 'on')}, or {mount}"
        if boolean.active is None:
            remedy = mount
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=guests,
            paths=paths,
            labels=tuple(sorted({label.context for label, _ in images if label.context})),
            message=(
                f"{listed(paths)} ({one_or_many(paths, 'an image', 'images')} of {listed(guests)}) "
                f"{one_or_many(paths, 'lies', 'lie')} on {kinds} without labels of files, and the "
                f"boolean {boolean.name} {state}: SELinux keeps "
                f"{one_or_many(guests, 'the guest', 'the guests')} from "
                f"{one_or_many(paths, 'it', 'them')}"
            ),
            remedy=f"{remedy}; either way all guests reach all images there",
            evidence=(Evidence("SELinux", f"{boolean.name} {state}"),),
        )


def _labelled(use: Use) -> bool:
    seclabel = use.guest.seclabel
    return seclabel is None or seclabel.type is not SeclabelType.NONE


def _has_type_for_guests(context: Optional[str]) -> bool:
    try:
        return context is not None and is_for_guests(Context.parse(context).type)
    except InvalidContextError:
        return False
