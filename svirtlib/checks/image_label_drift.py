"""An image in use has another context than libvirt gave it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.checks._check import MODE_WORDS, Check, Need, command, listed, several
from svirtlib.checks._facts import Facts, Use
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import ImageMode
from svirtlib.labelling import labelling

_SHOWN = 10


class ImageLabelDrift(Check):
    """The file's label is not what the seclabel, the disk's mode and its place in the chain ask.

    The usual cause is restorecon over the folder of a running guest: the guest loses access at
    its next open, or the image becomes open to others. File systems that carry no labels of
    files are left out, and so is what libvirt was told not to relabel.
    """

    ident = "image-label-drift"
    severity = Severity.HIGH
    summary = "an image in use has another context than its seclabel and mode call for"
    since = "0.1"
    needs = frozenset({Need.FILES})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each way in which labels differ."""
        drifted: dict[tuple[str, ...], list[tuple[Use, str, str]]] = {}
        for uses in facts.uses.values():
            # While a block job writes to an image of its own chain, a guest uses it twice.
            writing = {id(use.guest) for use in uses if use.image.mode is not ImageMode.READONLY}
            for use in uses:
                if use.image.mode is ImageMode.READONLY and id(use.guest) in writing:
                    continue
                wanted = self._wanted(facts, use)
                label = facts.file(use.image)
                if wanted is None or label is None or not label.labelable:
                    continue
                actual = label.context or ""
                if not facts.same(actual, wanted):
                    key = _kind_of_drift(facts, actual, wanted)
                    drifted.setdefault(key, []).append((use, actual, wanted))
        for cases in drifted.values():
            yield self._finding(cases)

    def _wanted(self, facts: Facts, use: Use) -> Optional[str]:
        """Return the context that a running guest's image should have, if libvirt set one."""
        if not use.guest.running or use.guest.seclabel is None:
            return None
        return labelling(use.guest, use.image, facts.inventory.host).context

    def _finding(self, cases: list[tuple[Use, str, str]]) -> Finding:
        guests = tuple(sorted({use.guest.name for use, _, _ in cases}))
        paths = tuple(sorted({use.image.name for use, _, _ in cases}))
        use, actual, wanted = cases[0]
        has = f"is labelled {actual}" if actual else "has no label"
        drift = f"{has}; as {MODE_WORDS[use.image.mode]} it should have {wanted}"
        if len(paths) == 1:
            message = f"{use.image.name} of {listed(guests)} {drift}"
        else:
            message = (
                f"{several(len(paths), 'image')} of {listed(guests)} have other labels than they "
                f"should: {use.image.name}, for one, {drift}"
            )
        more = "; likewise for the others" if len(paths) > 1 else ""
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=guests,
            paths=paths,
            labels=tuple(sorted({text for _, a, w in cases for text in (a, w)} - {""})),
            message=message,
            remedy=(
                f"{command('chcon', wanted, use.image.name)} while the guest runs{more}; then find "
                f"out what changed the label, such as a restorecon over a folder in use"
            ),
            evidence=tuple(
                Evidence(
                    use.image.name,
                    f"{use.image.name}: {actual or 'no label'}, {use.guest.name} needs {wanted}",
                )
                for use, actual, wanted in cases[:_SHOWN]
            ),
        )


def _kind_of_drift(facts: Facts, actual: str, wanted: str) -> tuple[str, ...]:
    """Return a key that drifts of one cause share: one restorecon is one finding."""
    has, should = facts.context(actual), facts.context(wanted)
    if has is None or should is None:
        return (actual, "")
    if has.range == should.range:
        return (has.type, should.type, has.user, should.user)
    categories = has.level is not None and bool(has.level.mask)
    return (has.type, should.type, str(has.range) if categories else "no categories")
