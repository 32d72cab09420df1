"""Which sets of a large family include which.

A set is an integer mask (bit *n* stands for element *n*) and is told by its number. Most
families that are met here consist of sets of two elements, drawn at random, so that:

* a set of two is kept as one small number and found in one look-up;
* a set of up to :data:`NARROW` elements is filed under the two of its elements that are
  rarest in the family. What lies inside another such set is found by looking up every two
  elements of that other set;
* what lies inside a larger set is found for the whole family at once, in a bitmap: an
  integer in which bit *n* stands for set number *n*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Callable, Optional

__all__ = ["NARROW", "Family", "bitmap", "elements", "flags", "popcount"]

#: The most elements of a set whose elements are looked up two by two. Beyond it, those
#: look-ups (n * n / 2) cost more than the bitmaps of the elements that the set lacks.
NARROW = 32

#: The most bits of bitmaps that are kept for a second use: 64 MiB.
KEPT_BITS = 1 << 29

#: Number of bits that are set; the method is new in Python 3.10.
popcount: Callable[[int], int] = getattr(int, "bit_count", lambda number: bin(number).count("1"))

_FLAGS = bytes.maketrans(b"01", b"\0\1")


def elements(mask: int) -> Iterator[int]:
    """Yield the places of the bits that are set in *mask*, ascending."""
    bits = bin(mask)[:1:-1]
    place = bits.find("1")
    while place >= 0:
        yield place
        place = bits.find("1", place + 1)


def flags(mask: int) -> bytes:
    """Return *mask* as one octet for each bit, the lowest first, which is 0 or 1.

    With itertools.compress() that is quicker than :func:`elements` where many bits are set.
    """
    return bin(mask)[:1:-1].encode("ascii").translate(_FLAGS)


def bitmap(places: Iterable[int], size: int) -> int:
    """Return the integer in which the bits at *places*, all below *size*, are set."""
    # Setting bits in an integer would copy it each time.
    octets = bytearray(size + 7 >> 3)
    for place in places:
        octets[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(octets, "little")


class Family:
    """Different sets, none of them empty, each with a number.

    *width* is the number of elements: they are 0 to *width* - 1. *pairs* maps sets of two,
    written ``low * width + high``, to their numbers; *sets* maps the numbers of all others
    to their masks (sets of two may be among them). All numbers are below *size*. The family
    takes *pairs* over.
    """

    __slots__ = (
        "_columns",
        "_filed",
        "_inner",
        "_inside_wide",
        "_pairs_with",
        "_width",
        "everything",
        "masks",
        "narrow",
        "pairs",
        "sets_with",
        "singles",
        "singles_bitmap",
        "size",
        "wide",
    )

    #: Element of each set of one -> its number.
    singles: dict[int, int]
    #: ``low * width + high`` of each set of two -> its number.
    pairs: dict[int, int]
    #: Number of each set of three or more -> its mask.
    masks: dict[int, int]
    #: Number of each set of three to NARROW -> its elements, ascending.
    narrow: dict[int, list[int]]
    #: Numbers of the sets of more than NARROW.
    wide: set[int]
    #: Per element: the numbers of the sets of three or more that have it.
    sets_with: list[list[int]]
    #: The bitmap of all numbers that are taken.
    everything: int
    #: The bitmap of the numbers of the sets of one.
    singles_bitmap: int
    #: All numbers are below it.
    size: int

    #: Sets of three to NARROW, under ``low * width + high`` of their two rarest elements.
    _filed: dict[int, list[int]]
    #: What inside_wide() has found.
    _inside_wide: dict[int, int]

    def __init__(
        self, width: int, pairs: dict[int, int], sets: Mapping[int, int], size: int
    ) -> None:
        self._width = width
        self.size = size
        if len(pairs) + len(sets) == size:
            self.everything = (1 << size) - 1
        else:
            self.everything = bitmap([*pairs.values(), *sets], size)
        self.singles = {}
        self.pairs = pairs
        self.masks = {}
        self.narrow = {}
        self.wide = set()
        self.sets_with = [[] for _ in range(width)]
        for number, mask in sets.items():
            inside = list(elements(mask))
            if len(inside) == 1:
                self.singles[inside[0]] = number
            elif len(inside) == 2:
                self.pairs[inside[0] * width + inside[1]] = number
            else:
                self.masks[number] = mask
                for element in inside:
                    self.sets_with[element].append(number)
                if len(inside) <= NARROW:
                    self.narrow[number] = inside
                else:
                    self.wide.add(number)
        frequency = [len(numbers) for numbers in self.sets_with]
        self._filed = defaultdict(list)
        for number, inside in self.narrow.items():
            low, high = sorted(sorted(inside, key=frequency.__getitem__)[:2])
            self._filed[low * width + high].append(number)
        self.singles_bitmap = bitmap(self.singles.values(), size)
        self._pairs_with: Optional[list[list[int]]] = None
        self._columns: Optional[list[int]] = None
        self._inner: Optional[dict[int, list[int]]] = None
        self._inside_wide = {}

    @property
    def pairs_with(self) -> Sequence[list[int]]:
        """Per element: the numbers of the sets of two that have it."""
        if self._pairs_with is None:
            lists: list[list[int]] = [[] for _ in range(self._width)]
            for code, number in self.pairs.items():
                low, high = divmod(code, self._width)
                lists[low].append(number)
                lists[high].append(number)
            self._pairs_with = lists
        return self._pairs_with

    @property
    def inner(self) -> Mapping[int, Sequence[int]]:
        """Per narrow set that has any: the other sets of two or more inside it."""
        if self._inner is None:
            self._inner = {}
            for number, inside in self.narrow.items():
                found = self._found_inside(inside, self.masks[number])
                if len(found) > 1:
                    found.remove(number)
                    self._inner[number] = found
        return self._inner

    def _found_inside(self, inside: Sequence[int], mask: int) -> list[int]:
        """Return the sets of two to NARROW inside that of the elements *inside*."""
        width = self._width
        codes = {low * width + high for low, high in combinations(inside, 2)}
        found = [self.pairs[code] for code in self.pairs.keys() & codes]
        masks = self.masks
        for code in self._filed.keys() & codes:
            found += [number for number in self._filed[code] if masks[number] & ~mask == 0]
        return found

    def with_element(self, element: int) -> Sequence[int]:
        """Return the numbers of the sets of two or more that have *element*."""
        return self.pairs_with[element] + self.sets_with[element]

    def strict_subsets(self, number: int, mask: int) -> Sequence[int]:
        """Return the numbers of the other sets inside *mask*, which is not that of a wide set."""
        inside = self.narrow.get(number, elements(mask))
        return [*self.inner.get(number, ()), *self._singles_in(inside)]

    def _singles_in(self, inside: Iterable[int]) -> list[int]:
        return [self.singles[element] for element in inside if element in self.singles]

    def inside_wide(self, number: int) -> int:
        """Return the bitmap of the other sets inside the wide set *number*."""
        found = self._inside_wide.get(number)
        if found is None:
            found = self._inside(self.masks[number]) & ~(1 << number)
            # A bitmap has size/8 octets; a million guests and some wide levels are met, any
            # number of both are not, but must not exhaust the memory.
            if len(self._inside_wide) * self.size < KEPT_BITS:
                self._inside_wide[number] = found
        return found

    def _inside(self, mask: int) -> int:
        """Return the bitmap of the sets inside *mask*."""
        if self._columns is None:
            both = zip(self.pairs_with, self.sets_with)
            self._columns = [bitmap(two + more, self.size) for two, more in both]
            for element, number in self.singles.items():
                self._columns[element] |= 1 << number
        outside = 0
        for element in elements(~mask & ((1 << self._width) - 1)):
            outside |= self._columns[element]
        return self.everything & ~outside

    def supersets(self, mask: int) -> Iterable[int]:
        """Return the numbers of the sets that include *mask*, itself too, in no order."""
        inside = list(elements(mask))
        if not inside:
            return elements(self.everything)
        if len(inside) == 1:
            itself = self.singles.get(inside[0])
            return [*self.with_element(inside[0]), *([] if itself is None else [itself])]
        fewest = min((self.sets_with[element] for element in inside), key=len)
        masks = self.masks
        found = [number for number in fewest if masks[number] & mask == mask]
        if len(inside) == 2:
            number = self.pairs.get(inside[0] * self._width + inside[1])
            if number is not None:
                found.append(number)
        return found

    def subsets(self, mask: int) -> Iterable[int]:
        """Return the numbers of the sets inside *mask*, itself too, in no order."""
        inside = list(elements(mask))
        if len(inside) > NARROW:
            return elements(self._inside(mask))
        return self._found_inside(inside, mask) + self._singles_in(inside)
