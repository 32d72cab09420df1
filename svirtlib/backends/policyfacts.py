"""What a policy says of an inventory's contexts, put into the inventory for the checks.

The policy is asked about kinds of processes and images (``user:role:type``), once for each way
in which their levels can stand to each other, not about each pair of guests. The levels asked
with are made up; what the policy makes of them holds for all that stand so.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Optional, Union

from attr import evolve

from svirtlib.backends.policy import Policy, open_policy
from svirtlib.context import Context
from svirtlib.errors import BackendError, InvalidContextError, PolicyError
from svirtlib.filesystems import boolean_for
from svirtlib.guests import BooleanState, Guest, Inventory, Unreadable
from svirtlib.labelling import labelling
from svirtlib.mls import Relation
from svirtlib.policyfacts import DomainFacts, PolicyFacts, RefusedContext, TypeAccess
from svirtlib.seclabel import SeclabelType

__all__ = ["Opening", "domain_facts", "with_policy"]

#: What an image is to the policy: a file, or a block device.
_CLASSES = ("file", "blk_file")

#: Source's and target's levels, without the sensitivity, for each relation; of as few categories
#: as can be, as a policy may have no more.
_LEVELS = {
    Relation.EQUAL: ("c0", "c0"),
    Relation.DOMINATES: ("c0,c1", "c0"),
    Relation.DOMINATED: ("c0", "c0,c1"),
    Relation.INCOMPARABLE: ("c0", "c1"),
}
_OWN, _FOREIGN = _LEVELS[Relation.INCOMPARABLE]


class Opening:
    """A policy that is being opened while something else is waited for.

    Args:
        path: the policy; None for that of this machine.
    """

    def __init__(self, path: Optional[str] = None) -> None:
        self.path = path
        self._policy: Optional[Policy] = None
        self._error: Optional[Exception] = None
        # libsepol takes its time to read it, and leaves the interpreter to others meanwhile.
        self._thread = threading.Thread(target=self._open, daemon=True, name="policy")
        self._thread.start()

    def _open(self) -> None:
        try:
            self._policy = open_policy(self.path)
        except Exception as error:  # noqa: BLE001 - whoever wants the policy judges it
            self._error = error

    def policy(self) -> Optional[Policy]:
        """Return the policy, or None if none was given and this host has none.

        Raises:
            PolicyError: :attr:`path` is no policy.
            BackendError: the policy cannot be read, or there is no libsepol.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._policy


def with_policy(inventory: Inventory, opening: Opening) -> Inventory:
    """Return the inventory with what a policy says of it.

    Args:
        inventory: what was found.
        opening: the policy. Without any, the inventory stays as it is; one of this machine
            that is there and cannot be read becomes something unreadable in it.

    Raises:
        PolicyError: the named policy is none.
        BackendError: the named policy cannot be read, or there is no libsepol.
    """
    path = opening.path
    try:
        policy = opening.policy()
    except BackendError as error:
        if path is not None:
            raise
        gap = Unreadable("policy", f"not decided by policy: {error}")
        return evolve(inventory, unreadable=(*inventory.unreadable, gap))
    if policy is None:
        return inventory
    with policy:
        inventory = evolve(inventory, policy=_facts(policy, inventory))
        # Of this machine's own policy, what the kernel says now was noted before.
        return inventory if path is None else _with_booleans(inventory, policy)


def _with_booleans(inventory: Inventory, policy: Policy) -> Inventory:
    """Put the named policy's word on the booleans in place of this machine's."""
    wanted = {boolean_for(label.filesystem) for label in inventory.files if label.filesystem}
    names = sorted(name for name in wanted if name is not None)
    if not names:
        return inventory
    states = policy.booleans()
    return evolve(inventory, booleans=tuple(BooleanState(name, states.get(name)) for name in names))


def _facts(policy: Policy, inventory: Inventory) -> PolicyFacts:
    refused: dict[str, str] = {}
    beyond: set[str] = set()
    domains: dict[str, Context] = {}
    images: dict[str, Context] = {}
    for texts, known in (
        (_process_contexts(inventory), domains),
        (_image_contexts(inventory), images),
    ):
        # A guest's label stands in its XML, at its process and at its images.
        for text in dict.fromkeys(texts):
            try:
                context = Context.parse(text)
            except InvalidContextError:
                # label-invalid tells of it, unless the policy knows better.
                if policy.accepts(text):
                    beyond.add(text)
                continue
            if context.range is None or text in refused:
                continue
            if policy.accepts(context):
                known.setdefault(context.user_role_type, context)
            else:
                refused[text] = policy.refusal(text)
    accesses = [
        access
        for domain in sorted(domains)
        for image in sorted(images)
        for target_class in _CLASSES
        for access in _accesses(policy, domain, image, target_class)
    ]
    return PolicyFacts(
        source=policy.source,
        low_levels=any(
            _compares_low(policy, access)
            for access in accesses
            if access.relation is Relation.EQUAL
        ),
        domains=tuple(
            DomainFacts(
                domain,
                _is_bound(policy, domain, [one for one in accesses if one.source == domain]),
                policy.is_permissive(domains[domain].type),
            )
            for domain in sorted(domains)
        ),
        accesses=tuple(accesses),
        refused=tuple(RefusedContext(text, refused[text]) for text in sorted(refused)),
        beyond=tuple(sorted(beyond)),
    )


def domain_facts(policy: Policy, context: Context) -> Union[DomainFacts, RefusedContext]:
    """Return what a policy says of the context of a guest's process.

    The images that it is judged by are those of the policy that it may use.
    """
    text = str(context)
    if not policy.accepts(text):
        return RefusedContext(text, policy.refusal(text))
    domain = context.user_role_type
    return DomainFacts(domain, _is_bound(policy, domain, []), policy.is_permissive(context.type))


def _process_contexts(inventory: Inventory) -> Iterator[str]:
    for guest in inventory.guests:
        if guest.process is not None:
            yield guest.process.context
        seclabel = guest.seclabel
        if seclabel is None or seclabel.type is SeclabelType.NONE:
            continue
        if seclabel.label is not None and _takes_effect(guest):
            yield seclabel.label
        if seclabel.baselabel is not None and seclabel.type is SeclabelType.DYNAMIC:
            yield _with_level(seclabel.baselabel)


def _image_contexts(inventory: Inventory) -> Iterator[str]:
    for label in inventory.files:
        if label.context is not None:
            yield label.context
    for guest in inventory.guests:
        if guest.seclabel is not None and guest.seclabel.imagelabel is not None and guest.running:
            yield guest.seclabel.imagelabel
        for image in guest.images:
            if image.seclabel is not None and image.seclabel.label is not None:
                yield image.seclabel.label
            stated = labelling(guest, image, inventory.host).context if guest.running else None
            if stated is not None:
                yield stated


def _takes_effect(guest: Guest) -> bool:
    seclabel = guest.seclabel
    return guest.running or (seclabel is not None and seclabel.type is SeclabelType.STATIC)


def _with_level(baselabel: str) -> str:
    """Return a baselabel with a level: libvirt puts the one that it draws there."""
    return baselabel if baselabel.count(":") > 2 else f"{baselabel}:s0"


def _accesses(policy: Policy, domain: str, image: str, target_class: str) -> Iterator[TypeAccess]:
    for relation, (low, high) in _LEVELS.items():
        granted = _granted(policy, f"{domain}:s0:{low}", f"{image}:s0:{high}", target_class)
        if granted is None:
            continue
        yield TypeAccess(
            domain,
            image,
            target_class,
            relation,
            read={"open", "read"} <= granted,
            write={"open", "write"} <= granted,
        )


def _granted(policy: Policy, source: str, target: str, target_class: str) -> Optional[set[str]]:
    """Return the permissions that the policy grants, or None if it knows no such levels."""
    try:
        return set(policy.granted(source, target, target_class))
    except PolicyError:
        return None


def _is_bound(policy: Policy, domain: str, accesses: list[TypeAccess]) -> Optional[bool]:
    """Tell whether categories bind a domain; None if it can do nothing that would show it.

    Shown by what it may do to the images of this host; for guests without any to another process
    of its own kind; else to files of any type of the policy.
    """
    shown = [
        _shows_bound(policy, domain, target, target_class)
        for target, target_class in {(one.target, one.target_class) for one in accesses}
    ]
    if any(shown):
        return True
    if False in shown:
        return False
    own = _granted(policy, f"{domain}:s0:{_OWN}", f"{domain}:s0:{_OWN}", "process")
    others = _granted(policy, f"{domain}:s0:{_OWN}", f"{domain}:s0:{_FOREIGN}", "process")
    if own is None or others is None:
        return None
    if "signal" in own - others:
        return True
    for type_ in policy.types():
        bound = _shows_bound(policy, domain, f"system_u:object_r:{type_}", "file")
        if bound is not None:
            return bound
    return False if "signal" in own else None


def _shows_bound(policy: Policy, domain: str, target: str, target_class: str) -> Optional[bool]:
    """Tell whether what a domain may do to a target depends on categories.

    None where it may do nothing to it, and where that is the target's doing: some types are open
    to all levels.
    """
    own = _granted(policy, f"{domain}:s0:{_OWN}", f"{target}:s0:{_OWN}", target_class)
    source, foreign = f"{domain}:s0:{_OWN}", f"{target}:s0:{_FOREIGN}"
    others = _granted(policy, source, foreign, target_class)
    used = _used(own)
    if others is None or not used:
        return None
    if used - _used(others):
        return True
    from svirtlib.access import Cause

    answers = policy.explain(source, foreign, target_class, sorted(used)).answers
    if any(answer.cause is Cause.UNCONSTRAINED_TARGET for answer in answers):
        return None
    return False


def _used(granted: Optional[set[str]]) -> set[str]:
    """Return which of reading and writing permissions let a process do."""
    return set() if granted is None or "open" not in granted else granted & {"read", "write"}


def _compares_low(policy: Policy, access: TypeAccess) -> bool:
    """Tell whether a range reaches no further than its low level (MLS)."""
    if not access.read:
        return False
    granted = _granted(
        policy,
        f"{access.source}:s0-s0:{_OWN}",
        f"{access.target}:s0:{_OWN}",
        access.target_class,
    )
    return granted is not None and "read" not in granted
