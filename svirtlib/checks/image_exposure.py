"""An image of one guest that others may use, for another cause than their levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from attr import field, frozen, mutable

from svirtlib.checks._check import Check, command, listed, several
from svirtlib.checks._facts import Facts, Use
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import ImageMode
from svirtlib.labelling import labelling
from svirtlib.standard_types import Access, access_of_guests

_SHOWN = 10


@frozen
class _Bearer:
    """An unshared image with the context that it has, or will get."""

    context: Context
    access: Access
    owners: frozenset[str]
    path: str
    source: str


@mutable
class _Exposed:
    access: Access
    reaching: set[str] = field(factory=set)
    owners: set[str] = field(factory=set)
    paths: set[str] = field(factory=set)
    evidence: list[Evidence] = field(factory=list)


class ImageExposure(Check):
    """A guest may use another guest's own image, though its level does not dominate that guest's.

    The image has no categories, or a level that is not its guest's; or its guest itself runs
    without categories, so that its level lies below every other's. The real label of the file
    is judged where files are looked at, else the one that libvirt's XML states. Which types
    guests may use is taken from what Debian's and Fedora's policies have in common.
    """

    ident = "image-exposure"
    severity = Severity.HIGH
    summary = "a guest may read or write another guest's own image, because of the image's label"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for the guests without categories, and one for each image label."""
        for group in facts.relations.uncategorised:
            yield self._without_categories(facts, group.members)
        exposed: dict[Context, _Exposed] = {}
        for bearer in self._bearers(facts):
            reaching = self._reaching(facts, bearer)
            if reaching is None:
                continue
            entry = exposed.setdefault(bearer.context, _Exposed(bearer.access))
            entry.reaching |= reaching
            entry.owners |= bearer.owners
            entry.paths.add(bearer.path)
            entry.evidence.append(Evidence(bearer.source, f"{bearer.path}: {bearer.context}"))
        for context, entry in exposed.items():
            yield self._exposed(context, entry)

    def _without_categories(self, facts: Facts, members: tuple[int, ...]) -> Finding:
        owners = facts.names(members)
        contexts = sorted({str(facts.confined[position].context) for position in members})
        others = len(facts.confined) - len(owners)
        reach = f"{several(others, 'other running guest')} can" if others else "any guest can"
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=owners,
            reaches=owners,
            reaches_count=len(owners),
            paths=tuple(
                sorted(
                    {
                        image.path
                        for position in members
                        for image in facts.confined[position].guest.images
                        if image.path and image.mode is ImageMode.PRIVATE
                    }
                )
            ),
            labels=tuple(contexts),
            message=(
                f"{listed(owners)} run{'s' if len(owners) == 1 else ''} without categories: its "
                f"level lies below every other's, and {reach} read and write its disks"
            ),
            remedy=(
                f"give {listed(owners)} two categories that no other guest has, or make it "
                f"dynamic (virsh edit {owners[0]}, <seclabel type='dynamic' model='selinux' "
                f"relabel='yes'/>); then stop and start it"
            ),
            evidence=tuple(
                Evidence(
                    facts.confined[position].guest.name, str(facts.confined[position].context)
                )
                for position in members[:_SHOWN]
            ),
        )

    def _bearers(self, facts: Facts) -> Iterator[_Bearer]:
        for uses in facts.uses.values():
            if facts.shared(uses):
                continue
            text, source = self._context(facts, uses)
            if text is None:
                continue
            try:
                context = Context.parse(text)
            except InvalidContextError:
                # The kernel takes it for unlabeled, which no guest may use; see label-invalid.
                continue
            access = access_of_guests(context.type)
            if context.range is None or access not in (Access.READ, Access.WRITE):
                continue
            yield _Bearer(
                context=context,
                access=access,
                owners=frozenset(use.guest.name for use in uses),
                path=uses[0].image.name,
                source=source,
            )

    def _context(self, facts: Facts, uses: list[Use]) -> tuple[Optional[str], str]:
        """Return the text of an image's context, and where it was seen."""
        label = facts.file(uses[0].image)
        if label is not None:
            return label.context, label.path
        for use in uses:
            if use.guest.running:
                planned = labelling(use.guest, use.image, facts.inventory.host)
                if planned.context is not None:
                    return planned.context, use.guest.source
        return None, ""

    def _reaching(self, facts: Facts, bearer: _Bearer) -> Optional[set[str]]:
        """Return the running guests that reach the image, or None if there is nothing to tell.

        An image without categories is a cause of its own, and open to whichever guest starts
        next; unless its guest has no categories either, which is told of that guest. With
        another level, only those count whose own level does not tell that they reach it.
        """
        level = bearer.context.level
        if level is None:
            return None
        owners = [
            confined.level
            for confined in facts.confined
            if confined.guest.name in bearer.owners
        ]
        if not level.mask and owners and not any(owner.mask for owner in owners):
            return None
        reaching: set[str] = set()
        for position in facts.index.dominating(level):
            confined = facts.confined[position]
            if confined.guest.name in bearer.owners:
                continue
            if level.mask and any(confined.level.dominates(owner) for owner in owners):
                continue
            reaching.add(confined.guest.name)
        return reaching if reaching or (owners and not level.mask) else None

    def _exposed(self, context: Context, entry: _Exposed) -> Finding:
        everybody = context.level is not None and not context.level.mask
        reaching = tuple(sorted(entry.reaching))
        owners = tuple(sorted(entry.owners))
        paths = tuple(sorted(entry.paths))
        if everybody:
            cause = "without categories"
            who = f"every guest ({several(len(reaching), 'other')} running)"
        else:
            cause = f"with the level {context.level}, which {listed(reaching)} dominates"
            who = "it" if len(reaching) == 1 else "each"
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=owners if everybody else reaching,
            reaches=owners,
            reaches_count=len(owners),
            paths=paths,
            labels=(str(context),),
            message=(
                f"{listed(paths)} of {listed(owners)} is labelled {context.type} {cause}: {who} "
                f"can {entry.access.verb} it"
            ),
            remedy=(
                f"stop {listed(owners)}, restore the label ({command('restorecon', '-F', paths[0])}"
                f"), and let libvirt label the image again at the start; remove a <label> of the "
                f"disk's own seclabel if it has one (virsh edit {owners[0]})"
            ),
            evidence=tuple(entry.evidence[:_SHOWN]),
        )
