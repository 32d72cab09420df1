"""An image that libvirt does not relabel and that its guest may not use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.checks._check import Check, Need, command, listed, one_or_many
from svirtlib.checks._facts import Facts
from svirtlib.context import Context
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import FileLabel, Guest, Image, ImageMode
from svirtlib.labelling import labelling
from svirtlib.seclabel import SeclabelType
from svirtlib.standard_types import Access, access_of_guests

_SHOWN = 10


class RelabelOffMismatch(Check):
    """With relabel='no' the administrator labels the image; here the label does not fit.

    The guest's type may not use the image's type, or the image has categories that the guest
    has not. Judged by the policy; without one, or for a guest whose type is not known, by the
    types on which Debian's and Fedora's policies agree.
    """

    ident = "relabel-off-mismatch"
    severity = Severity.MEDIUM
    summary = "relabel='no' and an image that the guest may not use: it will not start"
    since = "0.1"
    needs = frozenset({Need.FILES})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each guest with such images."""
        for guest in facts.inventory.guests:
            seclabel = guest.seclabel
            if seclabel is not None and seclabel.type is SeclabelType.NONE:
                continue
            refused: list[tuple[Image, FileLabel, str]] = []
            for image in guest.images:
                label = facts.file(image)
                if label is None or not label.labelable:
                    continue
                if labelling(guest, image, facts.inventory.host).relabelled:
                    continue
                reason = _refusal(facts, guest, image, label)
                if reason:
                    refused.append((image, label, reason))
            if refused:
                yield self._finding(facts, guest, refused)

    def _finding(
        self, facts: Facts, guest: Guest, refused: list[tuple[Image, FileLabel, str]]
    ) -> Finding:
        paths = tuple(sorted({label.path for _, label, _ in refused}))
        image, label, reason = refused[0]
        them = one_or_many(paths, "it", "them")
        so = "it will not start"
        if guest.running:
            so = f"it may lose {them}, and will not start again"
        remedy = command("chcon", _fitting(facts.process(guest), image), label.path)
        if len(paths) > 1:
            remedy += ", likewise for the others"
        if _switched_off(guest, image):
            why = "relabel='no'"
            edit = command("virsh", "edit", guest.name)
            remedy += f"; or {edit}, and have libvirt label {them}: relabel='yes'"
        else:
            why = f"it labels no storage of the type {image.kind.value}"
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=(guest.name,),
            paths=paths,
            labels=tuple(sorted({label.context or "" for _, label, _ in refused} - {""})),
            message=(
                f"{guest.name} may not use {listed(paths)}, and libvirt does not relabel {them} "
                f"({why}): {reason}; so {so}"
            ),
            remedy=remedy,
            evidence=tuple(
                Evidence(label.path, f"{label.path}: {label.context or 'no label'}")
                for _, label, _ in refused[:_SHOWN]
            ),
        )


def _switched_off(guest: Guest, image: Image) -> bool:
    """Tell whether a seclabel, the guest's or the image's, turns relabelling off."""
    seclabels = (guest.seclabel, image.seclabel)
    return any(seclabel is not None and not seclabel.relabel for seclabel in seclabels)


def _refusal(facts: Facts, guest: Guest, image: Image, label: FileLabel) -> str:
    """Return why the guest may not use the image, or an empty text if it may."""
    process = facts.process(guest)
    context = facts.context(label.context)
    reason = None if context is None else _asked_refusal(facts, process, image, context)
    if reason is not None:
        return reason
    if process is not None and facts.bound(process) is False:
        return ""
    if label.context is None:
        return "it has no label"
    if context is None:
        return f"its label {label.context} is no context"
    return _known_refusal(process, image, context)


def _asked_refusal(
    facts: Facts, process: Optional[Context], image: Image, context: Context
) -> Optional[str]:
    """Return why the policy refuses the image to the guest, or None where it was not asked."""
    lets = None if process is None else facts.policy_lets(process, image, context)
    if process is None or lets is None:
        return None
    if lets:
        return ""
    if facts.policy_lets(process, image, context, at_best=True):
        return f"the image has the level {facts.level(context)}, the guest {facts.level(process)}"
    verb = "write" if _writes(image) else "read"
    return f"the policy does not let {process.type} {verb} files of the type {context.type}"


def _writes(image: Image) -> bool:
    return image.mode is not ImageMode.READONLY


def _known_refusal(process: Optional[Context], image: Image, context: Context) -> str:
    """Judge by what Debian's and Fedora's policies have in common."""
    write = _writes(image)
    access = access_of_guests(context.type, write=write)
    if access is Access.NONE or (write and access is Access.READ):
        return f"guests may not {'write' if write else 'read'} files of the type {context.type}"
    if context.level is None or not context.level.mask:
        return ""
    # A dynamic guest that is off has no level yet; it will have two fresh categories.
    dominates = (
        process is not None and process.level is not None and process.level.dominates(context.level)
    )
    if dominates:
        return ""
    if process is None or process.level is None:
        return f"the image has the level {context.level}, and the guest draws another at each start"
    return f"the image has the level {context.level}, the guest {process.level}"


def _fitting(process: Optional[Context], image: Image) -> str:
    """Return a context for the image that the guest may use."""
    type_ = "virt_content_t" if image.mode is ImageMode.READONLY else "svirt_image_t"
    private = image.mode is ImageMode.PRIVATE and process is not None and process.range is not None
    level = str(process.range) if private and process is not None else "s0"
    return f"system_u:object_r:{type_}:{level}"
