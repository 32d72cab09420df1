"""Two guests write to one image that is not declared shareable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.checks._check import MODE_WORDS, Check, listed
from svirtlib.checks._facts import Facts, Use
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import ImageMode


class SharedImageUndeclared(Check):
    """Several guests use one image, and at least one of them as a disk of its own.

    libvirt gives such an image the label of the guest that starts last: the first one loses
    access, or both write and destroy it. A template that does not run may well be the base of
    guests that do; two definitions that both write are told at a lower severity while they do
    not run together.
    """

    ident = "shared-image-undeclared"
    severity = Severity.HIGH
    summary = "guests use one image, at least one of them writing, without <shareable/>"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each set of guests that share images so."""
        shared: dict[tuple[Severity, tuple[str, ...], tuple[str, ...]], list[list[Use]]] = {}
        for uses in facts.uses.values():
            writers = {
                use.guest.name
                for use in uses
                if use.image.mode is ImageMode.PRIVATE and not use.image.shared_on_purpose
            }
            users = {use.guest.name for use in uses}
            if not writers or len(users) < 2:
                continue
            severity = self._severity(uses, writers)
            if severity is not None:
                key = (severity, tuple(sorted(writers)), tuple(sorted(users)))
                shared.setdefault(key, []).append(uses)
        for (severity, writers_key, users_key), images in shared.items():
            yield self._finding(severity, writers_key, users_key, images)

    def _severity(self, uses: list[Use], writers: set[str]) -> Optional[Severity]:
        running = {use.guest.name for use in uses if use.guest.running}
        if len(running) >= 2 and running & writers:
            return self.severity
        return Severity.MEDIUM if len(writers) >= 2 else None

    def _finding(
        self,
        severity: Severity,
        writers: tuple[str, ...],
        users: tuple[str, ...],
        images: list[list[Use]],
    ) -> Finding:
        names = sorted({uses[0].image.name for uses in images})
        if severity is self.severity:
            does = "writes" if len(writers) == 1 else "write"
            message = (
                f"{listed(users)} use {listed(names)}, which {listed(writers)} {does} without "
                f"<shareable/>: libvirt relabels it for one of them and cuts off the other"
            )
        else:
            message = (
                f"the definitions of {listed(users)} both write {listed(names)} without "
                f"<shareable/>: started together they cut off or corrupt each other"
            )
        return Finding(
            rule=self.ident,
            severity=severity,
            guests=users,
            paths=tuple(
                sorted(
                    {use.image.path for uses in images for use in uses if use.image.path}
                )
            ),
            message=message,
            remedy=(
                "give each guest a disk of its own (virt-clone, or an overlay: qemu-img create "
                "-b BASE); only for a cluster file system add <shareable/> to the disk in every "
                "guest that uses it (virsh edit NAME)"
            ),
            evidence=tuple(
                Evidence(
                    use.guest.source,
                    f"{use.guest.name} has {use.image.name} as {use.image.target or 'disk'}: "
                    f"{MODE_WORDS[use.image.mode]}",
                )
                for uses in images[:3]
                for use in uses[:4]
            ),
        )
