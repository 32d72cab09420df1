"""What several checks need to know of an inventory, worked out once.

A fact that cannot be worked out becomes an entry of :attr:`Facts.undecided`, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Optional, Union

from attr import frozen

from svirtlib.context import Context
from svirtlib.errors import InvalidContextError, quote
from svirtlib.guests import (
    FileLabel,
    Guest,
    Image,
    ImageKind,
    ImageMode,
    Inventory,
    Unreadable,
)
from svirtlib.mls import Level, Relation
from svirtlib.relations import DominanceIndex, Relations, relate
from svirtlib.seclabel import SeclabelType
from svirtlib.standard_types import Access, access_of_guests, bound_by_categories

if TYPE_CHECKING:
    from svirtlib.policyfacts import DomainFacts, TypeAccess

__all__ = ["SUBJECTS", "Confined", "Facts", "Unconfined", "Use"]

#: How many guests a finding names on each side, unless more are asked for.
SUBJECTS = 10_000

#: Kinds of guests whose processes libvirt labels; other hypervisors have no process of ours.
_LABELLED_VIRT_TYPES = frozenset({"kvm", "qemu", "kqemu", "hvf", "lxc"})


@frozen
class Confined:
    """A running guest that SELinux confines.

    Attributes:
        guest: the guest.
        context: its process's context; the kernel's word where there is one, else libvirt's.
        level: the high level of the context.
        text: the context as it was written there.
        source: where that was seen.
    """

    guest: Guest
    context: Context
    level: Level
    text: str
    source: str

    @property
    def kind(self) -> Context:
        """The context without its range: what a policy's rules look at."""
        return self.context.with_range(None)


@frozen
class Unconfined:
    """A running guest that categories do not bind.

    Attributes:
        guest: the guest.
        cause: why; the same text for all guests with that cause.
        context: its context as text, or None where it has none that we know.
        source: where that was seen.
    """

    guest: Guest
    cause: str
    context: Optional[str]
    source: str


@frozen
class Use:
    """One guest's use of one image."""

    guest: Guest
    image: Image


class Facts:
    """An inventory with what follows from it; everything is worked out when first asked.

    Attributes:
        inventory: what was found.
        cap: how many guests are listed on the far side of a relation, at most.
    """

    def __init__(self, inventory: Inventory, *, cap: int = SUBJECTS) -> None:
        self.inventory = inventory
        self.cap = cap
        self._contexts: dict[str, Union[Context, InvalidContextError]] = {}

    def _parsed(self, text: str) -> Union[Context, InvalidContextError]:
        """Parse a context once: one text stands in many places, and each rule looks at it."""
        parsed = self._contexts.get(text)
        if parsed is None:
            try:
                parsed = Context.parse(text)
            except InvalidContextError as error:
                parsed = error
            self._contexts[text] = parsed
        return parsed

    def context(self, text: Optional[str]) -> Optional[Context]:
        """Return the context that a text is, or None for one that is none, or for no text."""
        parsed = None if text is None else self._parsed(text)
        return parsed if isinstance(parsed, Context) else None

    def fault(self, text: str) -> Optional[InvalidContextError]:
        """Return why a text is no context, or None if it is one."""
        parsed = self._parsed(text)
        return parsed if isinstance(parsed, InvalidContextError) else None

    def same(self, one: str, other: str) -> bool:
        """Tell whether two texts are one context, however they are written."""
        return one == other or (
            self.fault(one) is None and self.context(one) == self.context(other)
        )

    @cached_property
    def running(self) -> tuple[Guest, ...]:
        """The guests that run."""
        return tuple(guest for guest in self.inventory.guests if guest.running)

    @cached_property
    def _sorted_out(self) -> tuple[list[Confined], list[Unconfined], list[Unreadable]]:
        confined: list[Confined] = []
        unconfined: list[Unconfined] = []
        undecided: list[Unreadable] = []
        for guest in self.running:
            outcome = self._sort_out(guest)
            if isinstance(outcome, Confined):
                confined.append(outcome)
                if self.bound(outcome.context) is None:
                    undecided.append(
                        Unreadable(
                            f"guest {guest.name}",
                            f"not decided: {self._why_not_bound} whether categories bind the type "
                            f"{outcome.context.type}; taken as bound",
                            guest.name,
                        )
                    )
            elif isinstance(outcome, Unconfined):
                unconfined.append(outcome)
            else:
                undecided.append(outcome)
        return confined, unconfined, undecided

    def _sort_out(self, guest: Guest) -> Confined | Unconfined | Unreadable:
        seclabel = guest.seclabel
        if guest.process is not None:
            text, source = guest.process.context, guest.process.source
        elif seclabel is not None and seclabel.type is SeclabelType.NONE:
            return Unconfined(
                guest,
                "the SELinux seclabel is of type 'none'",
                None,
                _where(guest, seclabel.line),
            )
        elif seclabel is None or seclabel.label is None:
            return self._without_label(guest)
        else:
            text, source = seclabel.label, _where(guest, seclabel.line)
        context = self._parsed(text)
        if isinstance(context, InvalidContextError):
            policy = self.inventory.policy
            why = str(context)
            if policy is not None and text in policy.beyond:
                why = f"the policy takes {quote(text)}, and names of its level are not known here"
            return Unreadable(
                f"guest {guest.name}", f"its label cannot be compared: {why}", guest.name
            )
        if self.bound(context) is False:
            return Unconfined(
                guest,
                f"categories do not bind processes of the type {context.type}",
                str(context),
                source,
            )
        level = self.level(context)
        if level is None:
            return Unreadable(
                f"guest {guest.name}",
                f"its label has no level and cannot be compared: {quote(text)}",
                guest.name,
            )
        return Confined(guest, context, level, text, source)

    # --- What the policy says, or where there is none, what all policies do -------------------

    @cached_property
    def domains(self) -> dict[str, DomainFacts]:
        """What the policy says of guests' processes, by ``user:role:type``; empty without one."""
        policy = self.inventory.policy
        return {} if policy is None else {facts.domain: facts for facts in policy.domains}

    @cached_property
    def _accesses(self) -> dict[tuple[str, str, str, Relation], TypeAccess]:
        policy = self.inventory.policy
        return {
            (one.source, one.target, one.target_class, one.relation): one
            for one in (() if policy is None else policy.accesses)
        }

    @property
    def _why_not_bound(self) -> str:
        if self.inventory.policy is None:
            return "no policy was asked"
        return "nothing that the guest may use here shows"

    def domain(self, context: Context) -> Optional[DomainFacts]:
        """Return what the policy says of a process's type, or None where it was not asked."""
        return self.domains.get(context.user_role_type)

    def bound(self, context: Context) -> Optional[bool]:
        """Tell whether categories bind a process; None where that is not decided."""
        facts = self.domain(context)
        if facts is not None and facts.bound is not None:
            return facts.bound
        return bound_by_categories(context.type)

    def level(self, context: Context) -> Optional[Level]:
        """Return the level of a context that is compared; None where it has none."""
        if context.range is None:
            return None
        low = self.inventory.policy is not None and self.inventory.policy.low_levels
        return context.range.low if low else context.range.high

    def access(
        self, source: Context, target: Context, image: Image, relation: Relation
    ) -> Optional[Access]:
        """Return what a process may do to an image, or None where that is not decided.

        Args:
            source: the process's context.
            target: the image's context.
            image: the image.
            relation: how the process's level stands to the image's.
        """
        asked = self.asked(source, target, image, relation)
        return access_of_guests(target.type) if asked is None else asked

    def asked(
        self, source: Context, target: Context, image: Image, relation: Relation
    ) -> Optional[Access]:
        """Return what the policy says a process may do to an image; None where it was not asked.

        It takes what :meth:`access` does.
        """
        target_class = "blk_file" if image.kind is ImageKind.BLOCK else "file"
        key = (source.user_role_type, target.user_role_type, target_class, relation)
        found = self._accesses.get(key)
        if found is None:
            return None
        if found.write:
            return Access.WRITE
        return Access.READ if found.read else Access.NONE

    def process(self, guest: Guest) -> Optional[Context]:
        """Return the context of a guest's process, or the one it will have; None if not known."""
        if guest.process is not None:
            return self.context(guest.process.context)
        return None if guest.seclabel is None else self.context(guest.seclabel.label)

    def policy_lets(
        self, process: Context, image: Image, context: Context, *, at_best: bool = False
    ) -> Optional[bool]:
        """Tell whether the policy lets a process use an image; None where it was not asked.

        Args:
            process: the process's context.
            image: the image; it is written to unless it is read-only.
            context: the image's context.
            at_best: whatever their levels are: at equal ones, would it?
        """
        own, level = self.level(process), self.level(context)
        if own is None or level is None:
            return None
        relation = Relation.EQUAL if at_best else own.relation_to(level)
        access = self.asked(process, context, image, relation)
        if access is None or access is Access.WRITE:
            return None if access is None else True
        return access is Access.READ and image.mode is ImageMode.READONLY

    def _without_label(self, guest: Guest) -> Unconfined | Unreadable:
        """Decide on a running guest whose XML states no label."""
        what = f"guest {guest.name}"
        if not guest.known_to_libvirt:
            return Unreadable(
                what,
                f"libvirt does not know it, and the context of its process could not be read from "
                f"{guest.source}; run as root",
                guest.name,
            )
        if guest.virt_type == "test":
            return Unreadable(
                what,
                "its label is not known: libvirt's test driver keeps static labels only; read a "
                "folder of 'virsh dumpxml' output with --xml instead",
                guest.name,
            )
        if guest.virt_type not in _LABELLED_VIRT_TYPES:
            return Unreadable(
                what,
                f"not judged: libvirt gives no SELinux label to guests of the type "
                f"{quote(guest.virt_type)}",
                guest.name,
            )
        if guest.seclabel is not None:
            return Unreadable(
                what,
                "its label is not known: it runs, and its XML has a seclabel without <label>; "
                "dump it with 'virsh dumpxml' (without --inactive)",
                guest.name,
            )
        if any(seclabel.model == "apparmor" for seclabel in guest.seclabels):
            return Unreadable(what, "not judged: AppArmor confines it, not SELinux", guest.name)
        return Unconfined(
            guest,
            "no SELinux label from libvirt, as its security driver is off or "
            "security_default_confined is 0",
            None,
            guest.source,
        )

    @property
    def confined(self) -> list[Confined]:
        """Running guests that SELinux confines, in the inventory's order."""
        return self._sorted_out[0]

    @property
    def unconfined(self) -> list[Unconfined]:
        """Running guests that categories do not bind, in the inventory's order."""
        return self._sorted_out[1]

    @property
    def undecided(self) -> list[Unreadable]:
        """Running guests that could not be judged, or not in full."""
        return self._sorted_out[2]

    @cached_property
    def relations(self) -> Relations:
        """Equal and dominating levels; positions are those of :attr:`confined`."""
        return relate([confined.level for confined in self.confined], cap=self.cap)

    @cached_property
    def index(self) -> DominanceIndex:
        """Answers which of :attr:`confined` dominate a level."""
        return DominanceIndex([confined.level for confined in self.confined])

    @cached_property
    def confined_by_name(self) -> dict[str, list[Confined]]:
        """:attr:`confined` by name, which in documents of several hosts may repeat."""
        named: dict[str, list[Confined]] = {}
        for confined in self.confined:
            named.setdefault(confined.guest.name, []).append(confined)
        return named

    @cached_property
    def kinds(self) -> dict[Context, set[str]]:
        """Names of :attr:`confined` by their contexts without ranges."""
        kinds: dict[Context, set[str]] = {}
        for confined in self.confined:
            kinds.setdefault(confined.kind, set()).add(confined.guest.name)
        return kinds

    def names(self, positions: Iterable[int]) -> tuple[str, ...]:
        """Return the sorted names of the confined guests at *positions*."""
        confined = self.confined
        return tuple(sorted(confined[position].guest.name for position in positions))

    @cached_property
    def _files(self) -> dict[str, FileLabel]:
        return {label.path: label for label in self.inventory.files if label.seen}

    def file(self, image: Image) -> Optional[FileLabel]:
        """Return what the host says of an image, or None where it was not asked."""
        return None if image.path is None else self._files.get(image.path)

    def identity(self, image: Image) -> str:
        """Return a text that two images share exactly when they are one."""
        label = self.file(image)
        return image.name if label is None else label.identity

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """All uses of each image, by its identity; guests in the inventory's order."""
        uses: dict[str, list[Use]] = {}
        for guest in self.inventory.guests:
            for image in guest.images:
                uses.setdefault(self.identity(image), []).append(Use(guest, image))
        return uses

    def shared(self, uses: Iterable[Use]) -> bool:
        """Tell whether an image is meant for several guests: shareable, or read-only for one."""
        return any(
            use.image.mode is not ImageMode.PRIVATE or use.image.shared_on_purpose for use in uses
        )

    def labels(self) -> Iterator[tuple[Guest, str, str]]:
        """Yield every context that a guest's XML states: guest, what it is for, its text.

        Seclabels of type none have no label that takes effect, and of a baselabel only the
        type does; both are left out, as are other security models.
        """
        for guest in self.inventory.guests:
            seclabel = guest.seclabel
            if seclabel is not None and seclabel.type is not SeclabelType.NONE:
                if seclabel.label is not None and (
                    guest.running or seclabel.type is SeclabelType.STATIC
                ):
                    yield guest, "label", seclabel.label
                if seclabel.imagelabel is not None and guest.running:
                    yield guest, "imagelabel", seclabel.imagelabel
            for image in guest.images:
                if image.seclabel is not None and image.seclabel.label is not None:
                    yield guest, f"label of {image.target or image.name}", image.seclabel.label


def _where(guest: Guest, line: Optional[int]) -> str:
    return guest.source if line is None else f"{guest.source}:{line}"
