"""Images lie where labels cannot be set, and the boolean that lets guests use them is off."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, Need, command, listed, one_or_many
from svirtlib.checks._facts import Facts, Use
from svirtlib.filesystems import boolean_for
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import BooleanState, FileLabel
from svirtlib.seclabel import SeclabelType
from svirtlib.storagetypes import is_for_guests


class StorageBoolean(Check):
    """A guest's image lies on NFS, CIFS or FUSE without labels, and the policy does not allow it.

    The policy says whether a guest may use the context that all files there have. Where it was
    not asked, the state of the boolean does, and a mount with ``context=`` and a type for storage
    of guests needs none.
    """

    ident = "storage-boolean"
    severity = Severity.MEDIUM
    summary = "images on NFS, CIFS or FUSE, and the boolean for it is off or does not exist"
    since = "0.1"
    needs = frozenset({Need.FILES})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each boolean that is missed, and each type that is not let in."""
        states = {boolean.name: boolean for boolean in facts.inventory.booleans}
        missed: dict[tuple[str, str], list[tuple[FileLabel, list[Use]]]] = {}
        for label in facts.inventory.files:
            name = None if label.filesystem is None else boolean_for(label.filesystem)
            # Of one whose state is not known the inventory says so.
            if label.labelable or name is None or name not in states:
                continue
            refused: dict[str, list[Use]] = {}
            for use in facts.uses.get(label.identity, ()):
                reason = _refusal(facts, use, label, states[name])
                if reason:
                    refused.setdefault(reason, []).append(use)
            for reason, uses in refused.items():
                missed.setdefault((name, reason), []).append((label, uses))
        for name, reason in sorted(missed):
            yield self._finding(states[name], reason, missed[name, reason])

    def _finding(
        self, boolean: BooleanState, reason: str, images: list[tuple[FileLabel, list[Use]]]
    ) -> Finding:
        paths = tuple(sorted({label.path for label, _ in images}))
        guests = tuple(sorted({use.guest.name for _, uses in images for use in uses}))
        kinds = listed({str(label.filesystem) for label, _ in images})
        mount = "mount it with `-o context=system_u:object_r:svirt_image_t:s0`"
        remedy = f"{command('setsebool', '-P', boolean.name, 'on')}, or {mount}"
        if reason != _state(boolean) or boolean.active is None:
            remedy = mount
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=guests,
            paths=paths,
            labels=tuple(sorted({label.context for label, _ in images if label.context})),
            message=(
                f"{listed(paths)} ({one_or_many(paths, 'an image', 'images')} of {listed(guests)}) "
                f"{one_or_many(paths, 'lies', 'lie')} on {kinds} without labels of files, and "
                f"{reason}: SELinux keeps {one_or_many(guests, 'the guest', 'the guests')} from "
                f"{one_or_many(paths, 'it', 'them')}"
            ),
            remedy=f"{remedy}; either way all guests reach all images there",
            evidence=(Evidence("SELinux", reason.removeprefix("the boolean ")),),
        )


def _refusal(facts: Facts, use: Use, label: FileLabel, boolean: BooleanState) -> str:
    """Return why a guest may not use an image there, or an empty text if it may."""
    seclabel = use.guest.seclabel
    if seclabel is not None and seclabel.type is SeclabelType.NONE:
        return ""
    context = facts.context(label.context)
    process = facts.process(use.guest)
    lets = None
    if context is not None and process is not None:
        lets = facts.policy_lets(process, use.image, context)
        if lets is False and (boolean.active or is_for_guests(context.type)):
            return f"the policy does not let {process.type} use the type {context.type}"
    if lets is None:
        lets = boolean.active or (context is not None and is_for_guests(context.type))
    return "" if lets else _state(boolean)


def _state(boolean: BooleanState) -> str:
    state = "is off" if boolean.active is False else "does not exist in this policy"
    return f"the boolean {boolean.name} {state}"
