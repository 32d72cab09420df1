"""Who holds which level, on one host or on many that share storage: values and decisions.

A *registry* keeps reservations, which are promises: a level is reserved for one owner in a
*domain*, the set of hosts whose guests can reach the same storage, and no other reservation
of that domain is comparable with it. It also keeps observations, what a host was last seen to
use by itself (libvirt's dynamic labels, containers, labels left on images); nothing that is
comparable with one of them is handed out, but nobody promised that they differ.

Two levels of one sensitivity and one number of categories are comparable only if they are
equal, so that for them a unique constraint of the store decides; all others are compared
here. Stores are opened by :mod:`svirtlib.backends.store`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from math import comb
from typing import Callable, Optional, Protocol

from attr import frozen

from svirtlib.allocator import LevelAllocator
from svirtlib.context import Context
from svirtlib.errors import AllocationError, CategoriesExhaustedError, InvalidContextError
from svirtlib.guests import Guest, Inventory
from svirtlib.mls import DEFAULT_SPACE, Level
from svirtlib.seclabel import SeclabelType
from svirtlib.standard_types import bound_by_categories

__all__ = [
    "Observation",
    "Registry",
    "Reservation",
    "Split",
    "Wish",
    "abandoned",
    "choose",
    "choose_exactly",
    "observed",
    "propose_split",
]

#: Candidates that are drawn, besides some for each level wanted, before all levels in use are
#: fetched: at 99.9 % full one of a thousand candidates is free.
_DRAWS = 8192

#: Fewest categories that a part of the space is proposed to have: 8,128 pairs.
_LEAST_PART = 128


@frozen
class Wish:
    """What kind of level is wanted.

    Attributes:
        size: how many categories it has.
        first: number of the lowest category that it may have.
        last: number of the highest one.
        sensitivity: number of its sensitivity.

    Raises:
        AllocationError: no level is of this kind.
    """

    size: int = 2
    first: int = 0
    last: int = 1023
    sensitivity: int = 0

    def __attrs_post_init__(self) -> None:
        highest = len(DEFAULT_SPACE.categories) - 1
        if not 0 <= self.first <= self.last <= highest:
            raise AllocationError(
                f"no interval of categories c{self.first}.c{self.last}: there are c0 to c{highest}"
            )
        width = self.last - self.first + 1
        if not 1 <= self.size <= width:
            raise AllocationError(
                f"no level of {self.size} categories can be drawn from the {width} of "
                f"c{self.first}.c{self.last}"
            )

    @property
    def capacity(self) -> int:
        """How many different levels are of this kind."""
        return comb(self.last - self.first + 1, self.size)

    def fits(self, level: Level) -> bool:
        """Tell whether a level is of this kind."""
        return (
            level.sensitivity == self.sensitivity
            and len(level.categories) == self.size
            and level.mask >> (self.last + 1) == 0
            and level.mask & ((1 << self.first) - 1) == 0
        )

    def __str__(self) -> str:
        sensitivity = DEFAULT_SPACE.sensitivities[self.sensitivity]
        return f"{self.size} of {sensitivity}:c{self.first}.c{self.last}"


@frozen
class Reservation:
    """A level that is promised to somebody.

    Attributes:
        level: the level.
        domain: name of the set of hosts among which it is unique.
        owner: UUID of the guest that it is for, or None.
        name: name of the guest, or None.
        purpose: what it is for, in words.
        host: the host that asked.
        created: when, in seconds since 1970.
        expires: when the lease ends, or None where it has no end.
    """

    level: Level
    domain: str
    owner: Optional[str] = None
    name: Optional[str] = None
    purpose: Optional[str] = None
    host: str = ""
    created: int = 0
    expires: Optional[int] = None


@frozen
class Observation:
    """A level that something on a host was seen to have.

    Attributes:
        level: the level.
        what: the guest, process or file.
        owner: UUID of the guest that has it, where one alone does.
    """

    level: Level
    what: str
    owner: Optional[str] = None


class Registry(Protocol):
    """A store of reservations and observations of one domain.

    Each call is one transaction: it is done, and durable, when the call returns; an exception
    says that nothing was done, unless its text says otherwise.
    """

    domain: str
    host: str

    def allocate(
        self,
        wish: Wish,
        count: int = 1,
        *,
        owner: Optional[str] = None,
        name: Optional[str] = None,
        purpose: Optional[str] = None,
        lease: Optional[int] = None,
    ) -> list[Reservation]:
        """Reserve *count* levels that are comparable with none in use; all or none.

        With an owner, who has at most one level in a domain, the call can be repeated: it
        returns the level that the owner has, its lease renewed.

        Raises:
            CategoriesExhaustedError: fewer are free.
            AllocationError: the owner has a level of another kind, or more than one was
                asked for it.
            BackendError: the store cannot be used.
        """

    def reserve(
        self,
        level: Level,
        *,
        owner: Optional[str] = None,
        name: Optional[str] = None,
        purpose: Optional[str] = None,
        lease: Optional[int] = None,
    ) -> Reservation:
        """Reserve this level.

        Raises:
            AllocationError: one that is comparable with it is reserved or in use.
            BackendError: the store cannot be used.
        """

    def release(self, *, level: Optional[Level] = None, owner: Optional[str] = None) -> Reservation:
        """End the reservation of a level, or that of an owner, and return what it was.

        Raises:
            AllocationError: there is none.
            BackendError: the store cannot be used.
        """

    def reservations(self) -> list[Reservation]:
        """Return all reservations of the domain, in order of their levels.

        Raises:
            BackendError: the store cannot be used.
        """

    def observe(
        self, observations: Sequence[Observation], *, complete: bool, dry_run: bool = False
    ) -> list[str]:
        """Take note of what this host uses; return what of it contradicts reservations.

        Args:
            observations: what was seen.
            complete: it is all that there is: what was noted of this host before is dropped.
            dry_run: change nothing.

        Raises:
            BackendError: the store cannot be used.
        """

    def collect(
        self, owners: Optional[Collection[str]], *, grace: int, dry_run: bool = False
    ) -> list[Reservation]:
        """Drop reservations that nobody needs (see :func:`abandoned`), and return them.

        Raises:
            BackendError: the store cannot be used.
        """

    def close(self) -> None:
        """End the connection to the store."""


def choose(
    wish: Wish,
    count: int,
    others: Collection[Level],
    taken: Callable[[Sequence[Level]], Collection[Level]],
) -> Optional[list[Level]]:
    """Draw free levels, each as likely as any other; None if too few were hit.

    Args:
        wish: the kind of level.
        count: how many.
        others: the levels in use that have another sensitivity or number of categories.
        taken: tells which of some candidates are in use themselves.
    """
    lowest = Level(wish.sensitivity)
    categories = range(wish.first, wish.last + 1)
    below = [o.mask for o in others if o.mask and o.sensitivity <= wish.sensitivity]
    above = [o.mask for o in others if o.sensitivity >= wish.sensitivity]
    draw = random.SystemRandom().sample
    chosen: dict[Level, None] = {}
    draws = min(8 * count + _DRAWS, 20 * wish.capacity)
    batch = count + count // 8 + 3
    while draws > 0:
        candidates: dict[Level, None] = {}
        for _ in range(batch):
            mask = 0
            for category in draw(categories, wish.size):
                mask |= 1 << category
            if any(mask & narrow == narrow for narrow in below):
                continue
            if any(mask & wide == mask for wide in above):
                continue
            candidates[lowest.with_mask(mask)] = None
        in_use = taken(list(candidates))
        for level in candidates:
            if level not in in_use:
                chosen[level] = None
                if len(chosen) == count:
                    return list(chosen)
        draws -= batch
        batch = min(2 * batch, max(draws, 1))
    return None


def choose_exactly(wish: Wish, count: int, in_use: Iterable[Level]) -> list[Level]:
    """Draw free levels, given all that are in use.

    Raises:
        CategoriesExhaustedError: fewer than *count* are free.
    """
    allocator = LevelAllocator(
        wish.size,
        first=wish.first,
        last=wish.last,
        sensitivity=wish.sensitivity,
        in_use=dict.fromkeys(in_use),
    )
    return allocator.allocate_many(count)


def check_count(wish: Wish, count: int, owner: Optional[str]) -> None:
    """Refuse what no registry can grant.

    Raises:
        AllocationError: see its text.
    """
    if count < 1:
        raise AllocationError(f"{count} levels cannot be handed out")
    if owner is not None and count != 1:
        raise AllocationError(f"an owner has one level in a domain, not {count}")
    if count > wish.capacity:
        raise CategoriesExhaustedError(count, wish.capacity, wish.capacity)


def obstacle(
    level: Level,
    owner: Optional[str],
    reservations: Iterable[Reservation],
    observations: Iterable[Observation],
) -> Optional[str]:
    """Tell what keeps an owner from reserving a level, or None if nothing does."""
    for reservation in reservations:
        if level.comparable_with(reservation.level):
            holder = reservation.name or reservation.owner or reservation.purpose or "nobody named"
            return f"{reservation.level} is reserved ({holder})"
    for observation in observations:
        if level.comparable_with(observation.level) and (
            owner is None or observation.owner != owner or observation.level != level
        ):
            return f"{observation.level} is in use ({observation.what})"
    return None


def abandoned(
    reservations: Iterable[Reservation],
    in_use: Collection[Level],
    owners: Optional[Collection[str]],
    *,
    host: str,
    now: int,
    grace: int,
) -> list[Reservation]:
    """Return the reservations that nobody needs any more.

    Those are: leases that ended; and what this host reserved for a guest that it does not
    have, unless that is so fresh that the guest may yet be defined. A level that was seen in
    use stays, whatever its reservation says.

    Args:
        reservations: of one domain.
        in_use: levels that any host of the domain was seen to use.
        owners: UUIDs of the guests that exist on this host or that were seen on another of
            the domain; None where not all of them are known.
        host: this host.
        now: the time.
        grace: seconds for which a guest need not exist yet.
    """
    found = []
    for reservation in reservations:
        if reservation.level in in_use:
            continue
        expired = reservation.expires is not None and reservation.expires <= now
        ownerless = (
            owners is not None
            and reservation.owner is not None
            and reservation.host == host
            and reservation.owner not in owners
            and reservation.created + grace <= now
        )
        if expired or ownerless:
            found.append(reservation)
    return found


def observed(inventory: Inventory, processes: Iterable[tuple[str, str]] = ()) -> list[Observation]:
    """Return the levels that a host uses: of guests, running or static; of images; of processes.

    Levels without categories are left out: they are comparable with every level, and no
    choice of another one keeps a guest apart from them.

    Args:
        inventory: the host's guests and images.
        processes: contexts of other processes, containers above all, with a name for each.
    """
    holders: dict[Level, dict[str, Optional[str]]] = {}

    def take(text: str, what: str, owner: Optional[str]) -> None:
        level = _level(text)
        if level is not None and level.mask:
            holders.setdefault(level, {})[what] = owner

    for guest in inventory.guests:
        for text in _contexts(guest):
            take(text, f"guest {guest.name}", guest.uuid)
        for image in guest.images:
            if image.seclabel is not None and image.seclabel.label:
                take(image.seclabel.label, f"guest {guest.name}", guest.uuid)
    for file in inventory.files:
        if file.context is not None:
            take(file.context, file.path, None)
    for name, text in processes:
        take(text, name, None)
    observations = []
    for level, names in holders.items():
        owners = {owner for owner in names.values() if owner is not None}
        observations.append(
            Observation(
                level=level,
                what=", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else ""),
                owner=owners.pop() if len(owners) == 1 else None,
            )
        )
    return observations


def _contexts(guest: Guest) -> Iterator[str]:
    if guest.process is not None:
        yield guest.process.context
    seclabel = guest.seclabel
    if (
        seclabel is not None
        and seclabel.label
        and (guest.running or seclabel.type is SeclabelType.STATIC)
    ):
        yield seclabel.label


def _level(text: str) -> Optional[Level]:
    """Return the level of a context that categories may bind."""
    try:
        context = Context.parse(text)
    except InvalidContextError:
        return None
    return None if bound_by_categories(context.type) is False else context.level


@frozen
class Split:
    """The categories in two parts: what libvirt draws from, and where static levels come from.

    Attributes:
        dynamic: lowest and highest category from which libvirt draws.
        static: lowest and highest category of static levels.
        misplaced: static levels in use that a pair of the dynamic part can be comparable with.
    """

    dynamic: tuple[int, int]
    static: tuple[int, int]
    misplaced: tuple[Level, ...]

    @property
    def daemon_range(self) -> str:
        """The range that libvirt's daemon must run with to draw from its part alone."""
        return f"s0-s0:c{self.dynamic[0]}.c{self.dynamic[1]}"

    @property
    def dynamic_pairs(self) -> int:
        """How many levels libvirt can draw."""
        return comb(self.dynamic[1] - self.dynamic[0] + 1, 2)

    @property
    def static_pairs(self) -> int:
        """How many static levels of two categories there are."""
        return comb(self.static[1] - self.static[0] + 1, 2)


def propose_split(statics: Iterable[Level], *, dynamic_guests: int = 0) -> Split:
    """Propose how to part the categories between libvirt's dynamic levels and static ones.

    libvirt draws from one interval, that of its own range; it takes the lower part, so that
    the sum of both is the whole space. The halves are equal unless the static levels in use
    ask for something else: then the cut is where the fewest of them must be changed. The
    dynamic part keeps at least 50 pairs for each dynamic guest, up to half the space: drawing
    again and again in a nearly full space is what libvirt does badly.

    Args:
        statics: the static levels in use or reserved.
        dynamic_guests: how many guests have dynamic levels.
    """
    levels = list(dict.fromkeys(statics))
    count = len(DEFAULT_SPACE.categories)
    middle = count // 2
    least = next(
        (cut for cut in range(_LEAST_PART, middle) if comb(cut, 2) >= 50 * dynamic_guests), middle
    )
    masks = [level.mask for level in levels]

    def cost(cut: int) -> tuple[int, int]:
        low = (1 << cut) - 1
        return (sum(_meets(mask, low) for mask in masks), abs(cut - middle))

    # Only the ends of static levels make a difference, and few cuts are worth a look.
    edges = {middle, least, count - _LEAST_PART}
    for mask in masks:
        numbers = [place for place in range(count) if mask >> place & 1]
        edges.update(numbers[:2])
        edges.update(number + 1 for number in numbers[:2])
    best = min((edge for edge in edges if least <= edge <= count - _LEAST_PART), key=cost)
    low = (1 << best) - 1
    return Split(
        dynamic=(0, best - 1),
        static=(best, count - 1),
        misplaced=tuple(level for level in levels if _meets(level.mask, low)),
    )


def _meets(mask: int, dynamic: int) -> bool:
    """Tell whether a pair of the categories *dynamic* can be comparable with a level."""
    inside = bin(mask & dynamic).count("1")
    return inside >= 2 or (inside > 0 and mask & ~dynamic == 0)
