"""An image of one guest that others may use, for another cause than their levels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attr import field, frozen, mutable

from svirtlib.checks._check import Check, command, listed, new_level, one_or_many, restart, several
from svirtlib.checks._facts import Confined, Facts, Use
from svirtlib.context import Context
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Image, ImageMode
from svirtlib.labelling import labelling
from svirtlib.mls import Level, Relation
from svirtlib.relations import Group
from svirtlib.standard_types import Access

_SHOWN = 10


@frozen
class _Bearer:
    """An unshared image with the context that it has, or will get."""

    context: Context
    level: Level
    use: Use
    owners: frozenset[str]
    source: str

    @property
    def image(self) -> Image:
        return self.use.image

    @property
    def path(self) -> str:
        return self.use.image.name


@mutable
class _Exposed:
    #: The first image of those that are told of together.
    bearer: _Bearer
    access: Access
    #: The guests that own every one of the images.
    all_own: frozenset[str]
    reaching: set[str] = field(factory=set)
    owners: set[str] = field(factory=set)
    paths: set[str] = field(factory=set)
    evidence: list[Evidence] = field(factory=list)


class ImageExposure(Check):
    """A guest may use another guest's own image, though its level does not dominate that guest's.

    The image has no categories, or a level that is not its guest's; or its guest itself runs
    without categories, so that its level lies below every other's. The real label of the file
    is judged where files are looked at, else the one that libvirt's XML states. Which types
    guests may use is the policy's word; without one, what Debian's and Fedora's policies have in
    common.
    """

    ident = "image-exposure"
    severity = Severity.HIGH
    summary = "a guest may read or write another guest's own image, because of the image's label"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for the guests without categories, and one for each image label."""
        for group in facts.relations.uncategorised:
            yield from self._without_categories(facts, group)
        exposed: dict[Context, _Exposed] = {}
        at_any_level: dict[Context, list[_Bearer]] = {}
        for bearer in self._bearers(facts):
            if self._at_any_level(facts, [bearer]):
                at_any_level.setdefault(bearer.context.with_range(None), []).append(bearer)
                continue
            everybody = _open_to_all(bearer.level)
            if everybody:
                access, reaching = self._open(facts, bearer), set[str]()
            else:
                access, reaching = self._reaching(facts, bearer)
            if access is Access.NONE:
                continue
            entry = exposed.setdefault(
                bearer.context,
                _Exposed(bearer, access, bearer.owners),
            )
            entry.access = _more(entry.access, access)
            entry.reaching |= reaching
            entry.all_own &= bearer.owners
            entry.owners |= bearer.owners
            entry.paths.add(bearer.path)
            entry.evidence.append(Evidence(bearer.source, f"{bearer.path}: {bearer.context}"))
        for context, entry in exposed.items():
            if _open_to_all(entry.bearer.level):
                # All but each image's owners, and so, of several images, but who owns them all.
                entry.reaching = self._next(facts, context, entry) - entry.all_own
            yield self._exposed(facts, context, entry)
        for context, bearers in at_any_level.items():
            yield self._open_type(facts, context, bearers)

    def _at_any_level(self, facts: Facts, bearers: Sequence[_Bearer]) -> dict[str, Access]:
        """Return the guests that reach others' images whatever the levels, and what they may do."""
        reaching: dict[str, Access] = {}
        for bearer in bearers:
            for kind, names in facts.kinds.items():
                access = facts.asked(kind, bearer.context, bearer.image, Relation.INCOMPARABLE)
                if access is not None and access is not Access.NONE:
                    for name in names - bearer.owners:
                        reaching[name] = _more(reaching.get(name, Access.NONE), access)
        return reaching

    def _open_type(self, facts: Facts, context: Context, bearers: list[_Bearer]) -> Finding:
        """Tell of a type of images that the policy does not separate by levels."""
        reaching = self._at_any_level(facts, bearers)
        source = facts.confined_by_name[min(reaching)][0].text
        paths = tuple(sorted({bearer.path for bearer in bearers}))
        owners = tuple(sorted({name for bearer in bearers for name in bearer.owners}))
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=owners,
            reaches=owners,
            reaches_count=len(owners),
            paths=paths,
            labels=tuple(sorted({str(bearer.context) for bearer in bearers})),
            message=(
                f"{listed(paths)} of {listed(owners)} {one_or_many(paths, 'has', 'have')} the type "
                f"{context.type}, which the policy opens to all levels: "
                f"{several(len(reaching), 'running guest')} can {_most(reaching.values()).verb} "
                f"{one_or_many(paths, 'it', 'those of others')}"
            ),
            remedy=_remedy_for_type(facts, bearers[0], source),
            evidence=tuple(
                Evidence(bearer.source, f"{bearer.path}: {bearer.context}")
                for bearer in bearers[:_SHOWN]
            ),
        )

    def _next(self, facts: Facts, context: Context, entry: _Exposed) -> set[str]:
        """Return the running guests of kinds that may use an image without categories."""
        return {
            name
            for kind, names in facts.kinds.items()
            if facts.access(kind, context, entry.bearer.image, Relation.DOMINATES)
            not in (Access.NONE, None)
            for name in names
        }

    def _without_categories(self, facts: Facts, group: Group) -> Iterator[Finding]:
        confined = [facts.confined[position] for position in group.members]
        owners = facts.names(group.members)
        users = self._users(facts, confined)
        reaching = facts.names(
            position
            for position in set(facts.index.dominating(group.level)) - set(group.members)
            if facts.confined[position].kind in users
        )
        if not reaching and not _open_to_all(group.level):
            return
        reach = "any other guest can"
        if reaching:
            reach = f"{several(len(reaching), 'other running guest')} can"
        yield Finding(
            rule=self.ident,
            severity=self.severity,
            guests=owners if _open_to_all(group.level) else reaching,
            reaches=owners,
            reaches_count=len(owners),
            paths=tuple(
                sorted(
                    {
                        image.path
                        for one in confined
                        for image in one.guest.images
                        if image.path and image.mode is ImageMode.PRIVATE
                    }
                )
            ),
            labels=tuple(sorted({str(one.context) for one in confined})),
            message=(
                f"{listed(owners)} {one_or_many(owners, 'runs', 'run')} with the level "
                f"{confined[0].level}, which has no categories: {reach} read and write "
                f"{one_or_many(owners, 'its', 'their')} disks"
            ),
            remedy=new_level([one.guest for one in confined]),
            evidence=tuple(
                Evidence(one.source, f"{one.guest.name}: {one.text}") for one in confined[:_SHOWN]
            ),
        )

    def _users(self, facts: Facts, owners: list[Confined]) -> set[Context]:
        """Return the kinds of guests that may use images of some guests, levels apart."""
        contexts = {
            (context, image.kind): image
            for owner in owners
            for image in owner.guest.images
            if image.mode is ImageMode.PRIVATE
            for context in [
                facts.context(labelling(owner.guest, image, facts.inventory.host).context)
            ]
            if context is not None
        }
        return {
            kind
            for kind in facts.kinds
            if not contexts
            or any(
                facts.access(kind, context, image, Relation.DOMINATES) is not Access.NONE
                for (context, _), image in contexts.items()
            )
        }

    def _bearers(self, facts: Facts) -> Iterator[_Bearer]:
        for uses in facts.uses.values():
            if facts.shared(uses):
                continue
            for context, (source, use) in self._contexts(facts, uses).items():
                level = facts.level(context)
                if level is None:
                    continue
                yield _Bearer(
                    context=context,
                    level=level,
                    use=use,
                    owners=frozenset(use.guest.name for use in uses),
                    source=source,
                )

    def _contexts(self, facts: Facts, uses: list[Use]) -> dict[Context, tuple[str, Use]]:
        """Return what an image is labelled with, where that was seen, and the use to speak of.

        That is one context where the file was looked at; by their XML each of the guests that
        use it may have labelled it last. What is no context the kernel takes for unlabeled,
        which no guest may use.
        """
        label = facts.file(uses[0].image)
        if label is not None:
            seen = [(label.context, label.path, _first(uses))]
        else:
            seen = [
                (
                    labelling(use.guest, use.image, facts.inventory.host).context,
                    use.guest.source,
                    use,
                )
                for use in uses
                if use.guest.running
            ]
        contexts: dict[Context, tuple[str, Use]] = {}
        for text, source, use in seen:
            context = facts.context(text)
            if context is not None:
                contexts.setdefault(context, (source, use))
        return contexts

    def _owners(self, facts: Facts, bearer: _Bearer) -> list[Level]:
        """Return the levels of those of an image's owners that run."""
        return [
            confined.level
            for name in bearer.owners
            for confined in facts.confined_by_name.get(name, ())
        ]

    def _open(self, facts: Facts, bearer: _Bearer) -> Access:
        """Return what guests may do to an image without categories, if it is to be told of.

        It is a cause of its own, and open to whichever guest starts next, which will be of the
        kind of one that runs; unless its guest has no categories either, which is told of that
        guest.
        """
        owners = self._owners(facts, bearer)
        if owners and all(_open_to_all(owner) for owner in owners):
            return Access.NONE
        if not owners and facts.confined_by_name.keys() <= bearer.owners:
            return Access.NONE
        return _most(_access(facts, kind, bearer, Relation.DOMINATES) for kind in facts.kinds)

    def _reaching(self, facts: Facts, bearer: _Bearer) -> tuple[Access, set[str]]:
        """Return the running guests that reach an image with categories, and what they may do.

        Only those count whose own level does not tell that they reach it.
        """
        owners = self._owners(facts, bearer)
        reaching: set[str] = set()
        most = Access.NONE
        for position in facts.index.dominating(bearer.level):
            confined = facts.confined[position]
            if confined.guest.name in bearer.owners:
                continue
            if owners and all(confined.level.dominates(owner) for owner in owners):
                continue
            equal = confined.level == bearer.level
            relation = Relation.EQUAL if equal else Relation.DOMINATES
            access = _access(facts, confined.kind, bearer, relation)
            if access is not Access.NONE:
                reaching.add(confined.guest.name)
                most = _more(most, access)
        return most, reaching

    def _exposed(self, facts: Facts, context: Context, entry: _Exposed) -> Finding:
        everybody = _open_to_all(entry.bearer.level)
        reaching = tuple(sorted(entry.reaching))
        owners = tuple(sorted(entry.owners))
        paths = tuple(sorted(entry.paths))
        what = (
            f"{listed(paths)} of {listed(owners)} {one_or_many(paths, 'has', 'have')} the label "
            f"{context}"
        )
        use = f"can {entry.access.verb} {one_or_many(paths, 'it', 'them')}"
        if everybody:
            now = f" ({several(len(reaching), 'other')} running now)" if reaching else ""
            message = f"{what}, without categories: every guest{now} {use}"
        else:
            message = (
                f"{what}, whose level is not {one_or_many(owners, 'its guest', 'their guest')}'s: "
                f"{listed(reaching)} {use}"
            )
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=owners if everybody else reaching,
            reaches=owners,
            reaches_count=len(owners),
            paths=paths,
            labels=(str(context),),
            message=message,
            remedy=_remedy(facts, entry.bearer)
            + ("; likewise for the other images" if len(paths) > 1 else ""),
            evidence=tuple(entry.evidence[:_SHOWN]),
        )


def _access(facts: Facts, kind: Context, bearer: _Bearer, relation: Relation) -> Access:
    """Return what a kind of guest may do to the image; nothing where that is not decided."""
    return facts.access(kind, bearer.context, bearer.image, relation) or Access.NONE


def _most(accesses: Iterable[Access]) -> Access:
    most = Access.NONE
    for access in accesses:
        most = _more(most, access)
    return most


def _more(one: Access, other: Access) -> Access:
    return max(one, other, key=[Access.NONE, Access.READ, Access.WRITE].index)


def _open_to_all(level: Level) -> bool:
    """Tell whether every level dominates this one."""
    return not level.mask and level.sensitivity == 0


def _first(uses: list[Use]) -> Use:
    """Return the use to speak of: that of a running guest where there is one."""
    return next((use for use in uses if use.guest.running), uses[0])


def _stated(facts: Facts, bearer: _Bearer) -> bool:
    """Tell whether a seclabel of its own gives the image the context that it has."""
    own = bearer.image.seclabel
    return own is not None and facts.context(own.label) == bearer.context


def _remedy(facts: Facts, bearer: _Bearer) -> str:
    """Return how one image comes to have its guest's label."""
    guest, image = bearer.use.guest, bearer.image
    if _stated(facts, bearer):
        remedy = (
            f"{command('virsh', 'edit', guest.name)}, and take the <seclabel> out of the "
            f"<source> of {image.target or image.name}"
        )
        return f"{remedy}; then {restart(guest.name)}" if guest.running else remedy
    path = image.path or image.name
    own = labelling(guest, image, facts.inventory.host).context
    if own is not None and facts.context(own) != bearer.context:
        return f"{command('chcon', own, path)} while {guest.name} runs"
    return f"{command('restorecon', '-F', path)} while {guest.name} is off"


def _remedy_for_type(facts: Facts, bearer: _Bearer, source: str) -> str:
    """Return how images come to have a type that levels apply to."""
    if _stated(facts, bearer):
        return _remedy(facts, bearer)
    asked = command("svirt-label", "access", source, str(bearer.context))
    return (
        f"{asked} tells what exempts {bearer.context.type} in the policy: mend the policy module "
        f"that does, or give the images a type that levels apply to, such as svirt_image_t"
    )
