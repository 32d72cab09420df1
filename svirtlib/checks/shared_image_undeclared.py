"""Two guests write to one image that is not declared shareable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from svirtlib.checks._check import MODE_WORDS, Check, command, listed, one_or_many
from svirtlib.checks._facts import Facts, Use
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Image, ImageMode


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
            if len(uses) < 2:
                continue
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
        them = one_or_many(names, "it", "them")
        use = (
            f"{listed(writers)} {one_or_many(writers, 'writes', 'write')} {listed(names)} without "
            f"<shareable/>"
        )
        rest = [user for user in users if user not in writers]
        if rest:
            use += f", and {listed(rest)} {one_or_many(rest, 'uses', 'use')} {them} too"
        if severity is self.severity:
            message = (
                f"{use}: libvirt labels {them} for the guest that starts last; "
                f"{one_or_many(users[1:], 'the other loses', 'the others lose')} access, or the "
                f"content is damaged"
            )
        else:
            message = (
                f"by their definitions, {use}: once they run together, they lose access or damage "
                f"the content"
            )
        return Finding(
            rule=self.ident,
            severity=severity,
            guests=users,
            paths=tuple(sorted({use.image.name for uses in images for use in uses})),
            message=message,
            remedy=(
                f"{command('virsh', 'edit', users[0])}, and give each guest a disk of its own; "
                f"only if a cluster file system coordinates them, add <shareable/> to that disk of "
                f"{listed(users)}"
            ),
            evidence=tuple(
                Evidence(
                    use.guest.source,
                    f"{use.guest.name}: {_device(use.image)} is {MODE_WORDS[use.image.mode]}",
                )
                for uses in images[:3]
                for use in uses[:4]
            ),
        )


def _device(image: Image) -> str:
    return f"{image.target} ({image.name})" if image.target else image.name
