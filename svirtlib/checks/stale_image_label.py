"""An image keeps the label of a guest that does not run any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.checks._check import Check, Need, command, listed, several
from svirtlib.checks._facts import Facts, Use
from svirtlib.context import Context
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import FileLabel
from svirtlib.seclabel import SeclabelType

#: What libvirt writes to a file that it has relabelled, besides the same for DAC.
_ATTRIBUTES = ("selinux", "ref_selinux", "timestamp_selinux")


class StaleImageLabel(Check):
    """An image that no running guest uses has categories, or libvirt's owner attributes.

    A crash, or a daemon that lost its guest, leaves them. The categories are free for the next
    guest that draws them, which then reaches the image; owner attributes keep the next start
    from setting another label. A level that a static definition of the image asks for is none
    of that.
    """

    ident = "stale-image-label"
    severity = Severity.MEDIUM
    summary = "an image carries categories, or libvirt's owner attributes, of no running guest"
    since = "0.1"
    needs = frozenset({Need.FILES})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each such image."""
        in_use = {facts.identity(image) for guest in facts.running for image in guest.images}
        levels = {confined.level for confined in facts.confined}
        seen: set[str] = set()
        for label in facts.inventory.files:
            if label.identity in in_use or label.identity in seen:
                continue
            seen.add(label.identity)
            uses = facts.uses.get(label.identity, [])
            context = facts.context(label.context)
            level = None if context is None else context.level
            stale_level = (
                context is not None
                and level is not None
                and bool(level.mask)
                and level not in levels
                and not any(_asks_for(facts, use, context) for use in uses)
            )
            if stale_level or label.references:
                yield self._finding(label, uses, context if stale_level else None)

    def _finding(
        self, label: FileLabel, uses: list[Use], stale_context: Optional[Context]
    ) -> Finding:
        guests = tuple(sorted({use.guest.name for use in uses}))
        stale, remedies = [], []
        if stale_context is not None:
            stale.append(f"the label {stale_context}")
            remedies.append(command("restorecon", "-F", label.path))
        if label.references:
            stale.append(
                f"libvirt's owner attributes (in use by {several(label.references, 'guest')}, "
                f"label to put back: {label.remembered or 'none'})"
            )
            remedies += [
                command("setfattr", "-x", f"trusted.libvirt.security.{name}", label.path)
                for name in _ATTRIBUTES
            ]
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=guests,
            paths=(label.path,),
            labels=(label.context,) if label.context else (),
            message=(
                f"no running guest uses {label.path}{_of(guests)}, but it still has "
                f"{' and '.join(stale)}"
            ),
            remedy=f"while nothing uses it: {', '.join(remedies)}",
            evidence=(Evidence(label.path, f"{label.path}: {'; '.join(stale)}"),),
        )


def _of(guests: tuple[str, ...]) -> str:
    return f" (a disk of {listed(guests)})" if guests else ""


def _asks_for(facts: Facts, use: Use, context: Context) -> bool:
    """Tell whether a definition gives the image this level on purpose."""
    wanted = []
    if use.image.seclabel is not None and use.image.seclabel.label is not None:
        wanted.append(use.image.seclabel.label)
    seclabel = use.guest.seclabel
    if seclabel is not None and seclabel.type is SeclabelType.STATIC and seclabel.label:
        wanted.append(seclabel.label)
    stated = [facts.context(text) for text in wanted]
    return any(one is not None and one.level == context.level for one in stated)
