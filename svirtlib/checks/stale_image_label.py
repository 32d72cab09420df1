"""An image keeps the label of a guest that does not run any more."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, Need, command, listed
from svirtlib.checks._facts import Facts, Use
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import FileLabel
from svirtlib.seclabel import SeclabelType

_SHOWN = 10


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
        in_use = {
            facts.identity(image) for guest in facts.running for image in guest.images
        }
        levels = {confined.level for confined in facts.confined}
        seen: set[str] = set()
        for label in facts.inventory.files:
            if label.identity in in_use or label.identity in seen:
                continue
            seen.add(label.identity)
            uses = facts.uses.get(label.identity, [])
            stale = []
            context = _parsed(label)
            level = None if context is None else context.level
            if level is not None and level.mask and level not in levels:
                if not any(_asks_for(use, context) for use in uses):
                    stale.append(f"the label {context}")
            if label.references:
                stale.append(
                    f"libvirt's owner attributes (count {label.references}, remembered label "
                    f"{label.remembered or 'none'})"
                )
            if stale:
                yield self._finding(label, uses, stale)

    def _finding(self, label: FileLabel, uses: list[Use], stale: list[str]) -> Finding:
        guests = tuple(sorted({use.guest.name for use in uses}))
        remedy = f"when nothing uses it: {command('restorecon', '-F', label.path)}"
        if label.references:
            attributes = " ".join(
                f"-x trusted.libvirt.security.{name}"
                for name in ("selinux", "ref_selinux", "timestamp_selinux")
            )
            remedy += "".join(
                f"; {command('setfattr', *option.split(), label.path)}"
                for option in attributes.split(" -x ")
                for option in [option if option.startswith("-x") else f"-x {option}"]
            )
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=guests,
            paths=(label.path,),
            labels=(label.context,) if label.context else (),
            message=(
                f"{label.path}{' of ' + listed(guests) if guests else ''} is used by no running "
                f"guest, but still has {' and '.join(stale)}"
            ),
            remedy=remedy,
            evidence=(Evidence(label.path, "; ".join(stale)),),
        )


def _parsed(label: FileLabel) -> Context | None:
    try:
        return None if label.context is None else Context.parse(label.context)
    except InvalidContextError:
        return None


def _asks_for(use: Use, context: Context | None) -> bool:
    """Tell whether a definition gives the image this level on purpose."""
    wanted = []
    if use.image.seclabel is not None and use.image.seclabel.label is not None:
        wanted.append(use.image.seclabel.label)
    seclabel = use.guest.seclabel
    if seclabel is not None and seclabel.type is SeclabelType.STATIC and seclabel.label:
        wanted.append(seclabel.label)
    for text in wanted:
        try:
            if context is not None and Context.parse(text).level == context.level:
                return True
        except InvalidContextError:
            continue
    return False
