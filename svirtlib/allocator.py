"""Hand out levels that no other holder can reach: each once, at random, over the whole space.

A level may be handed out only if it is incomparable with every level in use, not merely
different from it: who holds ``s0:c1.c5`` reaches the images of ``s0:c1,c2``. libvirt and
container engines compare texts, draw until they hit a free one, and never end when none is
left; here every label is known to be free or not, so that a draw takes the same time
however full the space is, and exhaustion is an error with numbers.

Levels without categories are comparable with every other one; nothing could be handed out
beside them, and what they reach is not for an allocator to mend (``svirt-label check``
reports guests that run so). They are passed over.

This module knows nothing of stores or of the system.
"""

from __future__ import annotations

import abc
import os
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from math import comb
from typing import Optional

from svirtlib.errors import AllocationError, CategoriesExhaustedError
from svirtlib.mls import DEFAULT_SPACE, CategorySet, LabelSpace, Level

__all__ = ["LevelAllocator"]

#: Up to so many labels the allocator keeps a few words for each. Above, labels in use are
#: few among all, so that drawing again when one is taken is as good.
_DENSE = 1 << 22

#: Words below this are below the last multiple of any bound up to _DENSE.
_SURELY_BELOW = 0xFFFFFFFF - _DENSE

#: Draws from a huge space before the allocator looks for a free label one by one.
_DRAWS = 1000

#: Labels of a huge space that the allocator looks at one by one before it gives up.
_LOOKS = 1 << 20


#: Looked up once: levels are made by the million.
_level = Level._of


class LevelAllocator:
    """Draws levels of one sensitivity with a fixed number of categories of one interval.

    Each free level is as likely as any other (the random numbers are the operating system's,
    fit for keys). For pairs, drawing, reserving and releasing one take constant time. Not
    safe for use by several threads at once.

    Args:
        size: how many categories a level has; libvirt's dynamic levels have two.
        first: number of the lowest category that may be drawn.
        last: number of the highest category that may be drawn; None for the space's last.
        sensitivity: number of the sensitivity.
        in_use: levels that others hold, of any size and sensitivity.
        space: the policy's label space.

    Raises:
        AllocationError: the interval holds fewer than *size* categories, or *size* is less
            than one.
        LabelSpaceError: the space lacks the sensitivity, or does not allow one of the categories
            with it, or levels are of another space.
    """

    def __init__(
        self,
        size: int = 2,
        *,
        first: int = 0,
        last: Optional[int] = None,
        sensitivity: int = 0,
        in_use: Iterable[Level] = (),
        space: LabelSpace = DEFAULT_SPACE,
    ) -> None:
        highest = len(space.categories) - 1
        last = highest if last is None else last
        if not 0 <= first <= last <= highest:
            raise AllocationError(
                f"no interval of categories c{first}.c{last}: the policy has c0 to c{highest}"
            )
        width = last - first + 1
        if size < 1 or width < size:
            raise AllocationError(
                f"no level of {size} categories can be drawn from the {width} of c{first}.c{last}"
            )
        self._lowest = Level(sensitivity, (), space)
        self._pool = CategorySet(range(first, last + 1), space).mask
        # What is drawn needs no check any more if the policy allows all of it.
        self._lowest.with_mask(self._pool)
        self._sensitivity = sensitivity
        self._space = space
        #: Levels that were reserved; what was handed out is known to the labels.
        self._holders: Counter[Level] = Counter()
        self._labels: _Labels
        if comb(width, size) <= _DENSE:
            self._labels = _Dense(first, width, size)
        else:
            self._labels = _Sparse(first, width, size)
        self._take = self._labels.take
        for level in in_use:
            self.reserve(level)

    @property
    def capacity(self) -> int:
        """How many different labels the categories make."""
        return self._labels.capacity

    @property
    def free(self) -> Optional[int]:
        """How many labels are free; None where the space is too large to tell."""
        return self._labels.free

    @property
    def in_use(self) -> tuple[Level, ...]:
        """The levels that were reserved or handed out and are not released, each once."""
        handed_out = (self._lowest.with_mask(mask) for mask in self._labels.taken())
        return tuple({**self._holders, **dict.fromkeys(handed_out)})

    def allocate(self) -> Level:
        """Hand out a free level, and reserve it.

        Raises:
            CategoriesExhaustedError: none is free.
        """
        mask = self._take()
        if mask is None:
            raise self._exhausted(1)
        return _level(self._sensitivity, mask, self._space)

    def allocate_many(self, count: int) -> list[Level]:
        """Hand out *count* free levels, or none at all.

        Raises:
            CategoriesExhaustedError: fewer than *count* are free.
        """
        if self.free is not None and count > self.free:
            raise self._exhausted(count)
        levels: list[Level] = []
        try:
            for _ in range(count):
                # Not extend(): what was taken must be known when the next one fails.
                levels.append(self.allocate())  # noqa: PERF401
        except CategoriesExhaustedError:
            for level in levels:
                self.release(level)
            raise self._exhausted(count) from None
        return levels

    def reserve(self, level: Level) -> None:
        """Take note that a holder has *level*, whatever it is; none comparable is handed out.

        A level may have several holders, and is free when each has released it.

        Raises:
            LabelSpaceError: the level is of another policy.
        """
        self._note(level, held=True)
        self._holders[level] += 1

    def release(self, level: Level) -> None:
        """Take note that a holder of *level* is gone.

        Raises:
            AllocationError: nobody holds it.
        """
        if level not in self._holders:
            # One that was handed out has no entry: half a million would fill the memory.
            if level == self._lowest.with_mask(level.mask) and self._labels.give_back(level.mask):
                return
            raise AllocationError(f"level {level} is not held, and cannot be released")
        self._note(level, held=False)
        self._holders[level] -= 1
        if not self._holders[level]:
            del self._holders[level]

    def _note(self, level: Level, *, held: bool) -> None:
        """Block, or free, all labels that are comparable with *level*."""
        lowest = self._lowest
        # Comparing the two also refuses a level of another policy.
        above = level.with_mask(0).dominates(lowest)
        below = lowest.dominates(level.with_mask(0))
        if not level.mask:
            return
        change = self._labels.block if held else self._labels.unblock
        change(
            level.mask & self._pool,
            subsets=above,
            # With a category outside the pool no label of the pool includes the level.
            supersets=below and not level.mask & ~self._pool,
        )

    def _exhausted(self, wanted: int) -> CategoriesExhaustedError:
        wide = [
            str(level)
            for level in self._holders
            if level.mask & self._pool == self._pool
            and level.sensitivity >= self._lowest.sensitivity
        ]
        reason = f"{wide[0]} is in use and dominates all of them" if wide else ""
        return CategoriesExhaustedError(wanted, self.capacity, self.free, reason)


class _Labels(abc.ABC):
    """The labels of one size, each free or blocked by any number of levels in use."""

    capacity: int

    @property
    @abc.abstractmethod
    def free(self) -> Optional[int]:
        """How many are free, if that is known."""

    @abc.abstractmethod
    def take(self) -> Optional[int]:
        """Block a free label, each as likely as any other; return its mask, None without one."""

    @abc.abstractmethod
    def give_back(self, mask: int) -> bool:
        """Undo one :meth:`take`; tell whether the mask had been taken at all."""

    @abc.abstractmethod
    def taken(self) -> Iterator[int]:
        """Yield the masks that were taken and not given back."""

    @abc.abstractmethod
    def block(self, mask: int, *, subsets: bool, supersets: bool) -> None:
        """Block the labels that *mask* includes, and those that include it."""

    @abc.abstractmethod
    def unblock(self, mask: int, *, subsets: bool, supersets: bool) -> None:
        """Undo one :meth:`block` with the same arguments."""


class _Numbers:
    """Uniform random integers from the operating system, fetched many at a time."""

    __slots__ = ("words",)

    _BATCH = 1024

    #: Integers from 0 to 2^32 - 1, each to be used once and taken from the end.
    words: list[int]

    def __init__(self) -> None:
        self.words = []

    def below(self, bound: int) -> int:
        """Return an integer from 0 to *bound* - 1; *bound* is at most 2^22."""
        while True:
            if not self.words:
                self.words = array("I", os.urandom(4 * self._BATCH)).tolist()
            word = self.words.pop()
            # Words above the last multiple of the bound would make low results more likely.
            if word < 0xFFFFFFFF - 0xFFFFFFFF % bound:
                return word % bound


class _Dense(_Labels):
    """Keeps all free labels in one array: a draw is a look at a random place of it.

    Labels are told by numbers. ``_order[:_free]`` are those of the free ones in no order, and
    ``_place`` tells where in ``_order`` a free one stands, so that it is taken out by putting
    the last one in its place. Of one that is not free, ``_place`` tells nothing: where it says,
    another one stands, or none. So a draw looks at few places of the memory, which far apart
    as they are would take most of its time.

    The number of a pair is ``low * width + high``, counted from the first category; not all
    numbers are labels then. Of another size it is the rank among all labels.
    """

    def __init__(self, first: int, width: int, size: int) -> None:
        self.capacity = comb(width, size)
        self._first = first
        self._width = width
        self._size = size
        if size == 2:
            self._order = array("I")
            self._place = array("I", bytes(4 * width * width))
            for number in range(0, width * width, width + 1):
                # The pairs with one low category, whose own number with itself this is.
                highs = range(number + 1, (number // width + 1) * width)
                start = len(self._order)
                self._order.extend(highs)
                self._place[highs.start : highs.stop] = array("I", range(start, start + len(highs)))
        else:
            self._order = array("I", range(self.capacity))
            self._place = array("I", self._order)
        self._free = self.capacity
        #: How many more levels block a label than the one that took it out; None as long as no
        #: label is blocked twice, which the draws themselves never do.
        self._more: Optional[array[int]] = None
        #: 1 for each label that levels in use block and :meth:`take` did not take.
        self._held = bytearray(len(self._place))
        #: Levels in use that block every label: told apart, or each would cost a full pass.
        self._block_all = 0
        self._numbers = _Numbers()
        self._powers = tuple(1 << first + number for number in range(width))

    @property
    def free(self) -> int:
        return 0 if self._block_all else self._free

    def take(self) -> Optional[int]:
        end = self._free
        if not end or self._block_all:
            return None
        # _Numbers.below and _take_out in place: half of the time would go into calls.
        words = self._numbers.words
        if words and words[-1] < _SURELY_BELOW:
            here = words.pop() % end
        else:
            here = self._numbers.below(end)
        order = self._order
        self._free = end = end - 1
        label = order[here]
        order[here] = last = order[end]
        self._place[last] = here
        if self._size != 2:
            return self._mask(label)
        powers = self._powers
        width = self._width
        return powers[label // width] | powers[label % width]

    def give_back(self, mask: int) -> bool:
        categories = tuple(category - self._first for category in _bits(mask))
        if len(categories) != self._size or not (
            categories[0] >= 0 and categories[-1] < self._width
        ):
            return False
        label = self._number(categories)
        if self._held[label] or self._is_free(label):
            return False
        # If levels in use block it too, it is theirs from now on.
        self._held[label] = 1
        self._unblock_one(label)
        return True

    def taken(self) -> Iterator[int]:
        others = bytearray(self._held)
        for label in self._order[: self._free]:
            others[label] = 1
        if self._size == 2:
            for number in range(0, self._width * self._width, self._width + 1):
                # What is no pair: a category with itself, or with a lower one.
                start = number // self._width * self._width
                others[start : number + 1] = b"\1" * (number + 1 - start)
        label = others.find(0)
        while label >= 0:
            yield self._mask(label)
            label = others.find(0, label + 1)

    def _is_free(self, label: int) -> bool:
        here = self._place[label]
        return here < self._free and self._order[here] == label

    def _take_out(self, label: int) -> None:
        """Let the last free label take the place of a free one."""
        here = self._place[label]
        self._free = end = self._free - 1
        self._order[here] = last = self._order[end]
        self._place[last] = here

    def _mask(self, label: int) -> int:
        if self._size == 2:
            low, high = divmod(label, self._width)
            return self._powers[low] | self._powers[high]
        mask = 0
        low = 0
        for chosen in range(self._size, 0, -1):
            # Labels that start with the category low come before those that start higher.
            while label >= (count := comb(self._width - low - 1, chosen - 1)):
                label -= count
                low += 1
            mask |= 1 << low
            low += 1
        return mask << self._first

    def _number(self, categories: tuple[int, ...]) -> int:
        """Return the number of a label, given its categories counted from the first one."""
        if self._size == 2:
            return categories[0] * self._width + categories[1]
        rank = 0
        previous = -1
        for place, category in enumerate(categories):
            rest = self._size - place - 1
            for skipped in range(previous + 1, category):
                rank += comb(self._width - skipped - 1, rest)
            previous = category
        return rank

    def _labels(self, mask: int, *, subsets: bool, supersets: bool) -> Iterator[int]:
        """Yield the number of every label that *mask* includes or that includes it."""
        categories = [category - self._first for category in _bits(mask)]
        count = len(categories)
        if subsets and count >= self._size:
            for chosen in combinations(categories, self._size):
                yield self._number(chosen)
        elif supersets and count <= self._size:
            others = [category for category in range(self._width) if category not in categories]
            for added in combinations(others, self._size - count):
                yield self._number(tuple(sorted((*categories, *added))))

    def block(self, mask: int, *, subsets: bool, supersets: bool) -> None:
        if subsets and _count(mask) == self._width:
            self._block_all += 1
            return
        for label in self._labels(mask, subsets=subsets, supersets=supersets):
            if self._is_free(label):
                self._take_out(label)
                self._held[label] = 1
                continue
            if self._more is None:
                self._more = array("I", bytes(4 * len(self._place)))
            self._more[label] += 1

    def unblock(self, mask: int, *, subsets: bool, supersets: bool) -> None:
        if subsets and _count(mask) == self._width:
            self._block_all -= 1
            return
        for label in self._labels(mask, subsets=subsets, supersets=supersets):
            self._unblock_one(label)

    def _unblock_one(self, label: int) -> None:
        if self._more is not None and self._more[label]:
            self._more[label] -= 1
            return
        self._held[label] = 0
        self._order[self._free] = label
        self._place[label] = self._free
        self._free += 1


class _Sparse(_Labels):
    """Remembers levels in use alone, and draws again when a label is blocked by one."""

    def __init__(self, first: int, width: int, size: int) -> None:
        self.capacity = comb(width, size)
        self._categories = range(first, first + width)
        self._size = size
        self._random = random.SystemRandom()
        self._taken: set[int] = set()
        #: Masks of the labels' own size.
        self._equal: Counter[int] = Counter()
        #: Smaller masks, by their number of categories: they block what includes them.
        self._narrow: dict[int, Counter[int]] = {}
        #: Larger masks, by each of their categories: they block what they include.
        self._wide: dict[int, Counter[int]] = {}

    @property
    def free(self) -> None:
        return None

    def take(self) -> Optional[int]:
        mask = self._draw()
        if mask is not None:
            self._taken.add(mask)
        return mask

    def give_back(self, mask: int) -> bool:
        if mask not in self._taken:
            return False
        self._taken.remove(mask)
        return True

    def taken(self) -> Iterator[int]:
        yield from self._taken

    def _draw(self) -> Optional[int]:
        for _ in range(_DRAWS):
            chosen = sorted(self._random.sample(self._categories, self._size))
            if not self._blocked(chosen):
                return _mask_of(chosen)
        # Nearly all is blocked. Which labels are free cannot be counted, but one can be
        # looked for, from a random order of the categories on.
        order = self._random.sample(self._categories, len(self._categories))
        for looks, combination in enumerate(combinations(order, self._size)):
            chosen = sorted(combination)
            if not self._blocked(chosen):
                return _mask_of(chosen)
            if looks >= _LOOKS:
                break
        return None

    def _blocked(self, chosen: list[int]) -> bool:
        mask = _mask_of(chosen)
        if mask in self._taken or mask in self._equal:
            return True
        for size, masks in self._narrow.items():
            if any(_mask_of(part) in masks for part in combinations(chosen, size)):
                return True
        if not self._wide:
            return False
        nothing: Counter[int] = Counter()
        rarest = min((self._wide.get(category, nothing) for category in chosen), key=len)
        return any(mask & wide == mask for wide in rarest)

    def block(self, mask: int, *, subsets: bool, supersets: bool) -> None:
        for masks in self._kept(mask, subsets=subsets, supersets=supersets):
            masks[mask] += 1

    def unblock(self, mask: int, *, subsets: bool, supersets: bool) -> None:
        for masks in self._kept(mask, subsets=subsets, supersets=supersets):
            masks[mask] -= 1
            if not masks[mask]:
                del masks[mask]
        # An empty counter costs a look at each draw.
        for index in (self._narrow, self._wide):
            for key in [key for key, masks in index.items() if not masks]:
                del index[key]

    def _kept(self, mask: int, *, subsets: bool, supersets: bool) -> Iterator[Counter[int]]:
        """Yield where a mask is remembered, so that it blocks what it should."""
        size = _count(mask)
        if size == self._size and (subsets or supersets):
            yield self._equal
        elif size < self._size and supersets:
            yield self._narrow.setdefault(size, Counter())
        elif size > self._size and subsets:
            for category in _bits(mask):
                yield self._wide.setdefault(category, Counter())


def _bits(mask: int) -> Iterator[int]:
    text = bin(mask)[:1:-1]
    place = text.find("1")
    while place >= 0:
        yield place
        place = text.find("1", place + 1)


def _count(mask: int) -> int:
    return bin(mask).count("1")


def _mask_of(categories: Iterable[int]) -> int:
    mask = 0
    for category in categories:
        mask |= 1 << category
    return mask
