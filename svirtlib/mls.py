"""Sensitivities, categories, levels and ranges, exactly as the kernel reads and prints them.

Grammar (kernel ``mls_context_to_sid``, libsepol ``mls_from_string``; both look every name
up in the policy, so there is no number parsing, no case folding and no white space)::

    range  = level [ "-" level ]         low - high; high must dominate low
    level  = sens [ ":" catset ]
    catset = item *( "," item )
    item   = cat [ "." cat ]             the second must stand higher than the first

Canonical text (kernel ``mls_sid_to_context``): categories ascend, a run of two is written
``c1,c2``, a run of three or more ``c1.c3``, and a range whose ends are equal is one level.

libsepol 3.4 is not the kernel in two things, and here the kernel is followed: it ignores
what follows a second ``-``, and it prints some sets with categories that they do not have
(``c62,c63,c200`` as ``c62,c191,c200``). This module knows nothing of contexts, XML or the system.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Callable, Optional, SupportsIndex, Union

from svirtlib.errors import InvalidLevelError, InvalidRangeError, LabelSpaceError

__all__ = [
    "DEFAULT_SPACE",
    "MAX_TEXT",
    "TOO_LONG",
    "CategorySet",
    "LabelSpace",
    "Level",
    "Range",
    "Relation",
]

#: Longest text, in characters, that is looked at. An extended attribute holds 64 KiB and
#: every other way into the kernel one page, so that no label is longer.
MAX_TEXT = 65536
#: The reason that is given for refusing a longer one.
TOO_LONG = f"longer than any label can be ({MAX_TEXT} characters)"

#: The largest prime below 2^64.
_HASH_PRIME = 2**64 - 59

_Names = Union[str, Sequence[str]]
_Choice = Callable[[int, int], int]


class Relation(enum.Enum):
    """How one level stands to another in the dominance order."""

    EQUAL = "equal"
    DOMINATES = "dominates"
    DOMINATED = "dominated"
    INCOMPARABLE = "incomparable"


class LabelSpace:
    """The names that a policy gives to its sensitivities and categories.

    *sensitivities* and *categories* are listed in the policy's order, lowest first; an
    entry is a name, or a sequence of the primary name and its aliases. *allowed* maps a
    sensitivity's primary name to the primary names of the categories that may be used with
    it (policy ``level`` statement); a sensitivity that is not in it may use all.

    Raises:
        LabelSpaceError: a name is declared twice, unknown in *allowed*, or not made of
            letters, digits and underscores. Policy compilers also take a hyphen, but the
            kernel then finds the name in no label, for it splits ranges there.
    """

    __slots__ = (
        "_allowed",
        "_bits",
        "_categories",
        "_category_names",
        "_key",
        "_plain",
        "_sensitivities",
        "_sensitivity_names",
    )

    def __init__(
        self,
        sensitivities: Sequence[_Names],
        categories: Sequence[_Names],
        allowed: Optional[Mapping[str, Iterable[str]]] = None,
    ) -> None:
        self._sensitivity_names, self._sensitivities = _index("sensitivity", sensitivities)
        self._category_names, places = _index("category", categories)
        self._bits = tuple(1 << place for place in range(len(self._category_names)))
        #: Every name and alias with its bit; bits compare as the places that they stand for.
        self._categories = {name: self._bits[place] for name, place in places.items()}
        everything = (1 << len(self._category_names)) - 1
        masks = [everything] * len(self._sensitivity_names)
        for name, usable in (allowed or {}).items():
            try:
                mask = 0
                for category in usable:
                    mask |= self._categories[category]
                masks[self._sensitivities[name]] = mask
            except KeyError as error:
                raise LabelSpaceError(
                    f"categories allowed with sensitivity {name!r}: unknown name {error}"
                ) from None
        self._allowed = tuple(masks)
        #: No aliases and nothing forbidden: text in the right order is canonical text.
        self._plain = (
            len(self._categories) == len(self._category_names)
            and len(self._sensitivities) == len(self._sensitivity_names)
            and all(mask == everything for mask in masks)
        )
        self._key = (
            tuple(self._sensitivities.items()),
            tuple(self._categories.items()),
            self._allowed,
        )

    @classmethod
    def numbered(cls, sensitivities: int = 16, categories: int = 1024) -> LabelSpace:
        """Return the space s0..s(*sensitivities* - 1), c0..c(*categories* - 1).

        The defaults are those of the MLS policies of Debian and Fedora; their MCS policies
        have the same categories and the one sensitivity s0.
        """
        return cls([f"s{n}" for n in range(sensitivities)], [f"c{n}" for n in range(categories)])

    @property
    def sensitivities(self) -> tuple[str, ...]:
        """Primary names of the sensitivities, lowest first."""
        return self._sensitivity_names

    @property
    def categories(self) -> tuple[str, ...]:
        """Primary names of the categories, in the policy's order."""
        return self._category_names

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelSpace):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Union[str, tuple[Any, ...]]:
        # By name, lest each pickle hold a thousand names and each copy be another space.
        return "DEFAULT_SPACE" if self is DEFAULT_SPACE else super().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return (
            f"<LabelSpace of {len(self._sensitivity_names)} sensitivities "
            f"and {len(self._category_names)} categories>"
        )


def _index(kind: str, entries: Sequence[_Names]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the primary names, and a map of every name to its place."""
    names: list[str] = []
    places: dict[str, int] = {}
    for place, entry in enumerate(entries):
        aliases = (entry,) if isinstance(entry, str) else tuple(entry)
        for name in aliases:
            if not (name.isascii() and name.isidentifier()):
                raise LabelSpaceError(f"{kind} name {_show(name)} can not stand in a label")
            if name in places:
                raise LabelSpaceError(f"{kind} name {name!r} is declared twice")
            places[name] = place
        if not aliases:
            raise LabelSpaceError(f"{kind} number {place} has no name")
        names.append(aliases[0])
    return tuple(names), places


#: The space that is meant where no policy says another: s0..s15, c0..c1023.
DEFAULT_SPACE = LabelSpace.numbered()


class CategorySet(Set[int]):
    """An immutable set of categories, each told by its place in the policy (c87 is 87).

    It is a :class:`collections.abc.Set`: ``<=`` is inclusion, ``| & - ^`` give category sets
    of the same policy, and it equals a frozenset of the same numbers. Its text is that of a
    level after the colon; the empty set's text is empty.

    Raises:
        LabelSpaceError: a number that *space* does not have, or sets of different policies.
    """

    __slots__ = ("_mask", "_space")

    _mask: int
    _space: LabelSpace

    def __init__(self, categories: Iterable[int] = (), space: LabelSpace = DEFAULT_SPACE) -> None:
        if isinstance(categories, CategorySet):
            _same_space(categories._space, space)
            mask = categories._mask
        else:
            mask = 0
            for category in categories:
                if not 0 <= category < len(space._bits):
                    raise LabelSpaceError(_no_number("category", category, space._bits))
                mask |= space._bits[category]
        self._mask = mask
        self._space = space

    @classmethod
    def parse(cls, text: str, space: LabelSpace = DEFAULT_SPACE) -> CategorySet:
        """Parse ``c1,c5.c9`` (or nothing at all: the empty set).

        Raises:
            InvalidLevelError: *text* is no category set of *space*.
        """
        if len(text) > MAX_TEXT:
            raise InvalidLevelError(text, TOO_LONG)
        return cls._of(_parse_categories(text, text, 0, space) if text else 0, space)

    @classmethod
    def _of(cls, mask: int, space: LabelSpace) -> CategorySet:
        self = object.__new__(cls)
        self._mask = mask
        self._space = space
        return self

    @property
    def mask(self) -> int:
        """The set as an integer in which bit *n* stands for category number *n*."""
        return self._mask

    def __contains__(self, category: object) -> bool:
        return isinstance(category, int) and category >= 0 and bool(self._mask >> category & 1)

    def __iter__(self) -> Iterator[int]:
        bits = bin(self._mask)[:1:-1]
        place = bits.find("1")
        while place >= 0:
            yield place
            place = bits.find("1", place + 1)

    def __len__(self) -> int:
        return bin(self._mask).count("1")

    def __bool__(self) -> bool:
        return self._mask != 0

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CategorySet):
            return self._mask == other._mask
        return super().__eq__(other)

    def __hash__(self) -> int:
        # The same as frozenset's, because the two compare equal.
        return self._hash()

    def __str__(self) -> str:
        return _format_categories(self._mask, self._space._category_names)

    def __repr__(self) -> str:
        return f"CategorySet.parse({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_category_set, (self._mask, self._space))

    # The operators inherited from collections.abc.Set would drop the space.
    def __and__(self, other: object) -> CategorySet:
        mask = self._operand(other)
        return NotImplemented if mask is None else self._of(self._mask & mask, self._space)

    def __or__(self, other: object) -> CategorySet:
        mask = self._operand(other)
        return NotImplemented if mask is None else self._of(self._mask | mask, self._space)

    def __xor__(self, other: object) -> CategorySet:
        mask = self._operand(other)
        return NotImplemented if mask is None else self._of(self._mask ^ mask, self._space)

    def __sub__(self, other: object) -> CategorySet:
        mask = self._operand(other)
        return NotImplemented if mask is None else self._of(self._mask & ~mask, self._space)

    def __rsub__(self, other: object) -> CategorySet:
        mask = self._operand(other)
        return NotImplemented if mask is None else self._of(mask & ~self._mask, self._space)

    __rand__ = __and__
    __ror__ = __or__
    __rxor__ = __xor__

    def _operand(self, other: object) -> Optional[int]:
        """Return the mask of another set of this space, or None if *other* is no set."""
        return CategorySet(other, self._space)._mask if isinstance(other, Set) else None


def _category_set(mask: int, space: LabelSpace) -> CategorySet:
    """Rebuild a pickled :class:`CategorySet`."""
    return CategorySet._of(mask, space)


#: Looked up once: levels are made by the million.
_new = object.__new__


class Level:
    """A sensitivity with a set of categories, such as ``s0:c87,c520``.

    Immutable and hashable. Dominance is only a partial order, so that levels have no ``<``;
    use :meth:`dominates` and :meth:`relation_to`, and :attr:`sort_key` to display them.
    """

    __slots__ = ("_mask", "_sensitivity", "_space", "_text")

    _sensitivity: int
    _mask: int
    _space: LabelSpace
    #: The canonical text once it is known.
    _text: Optional[str]

    def __init__(
        self,
        sensitivity: int = 0,
        categories: Iterable[int] = (),
        space: LabelSpace = DEFAULT_SPACE,
    ) -> None:
        """Make a level of numbers: ``Level(0, (87, 520))`` is ``s0:c87,c520``.

        Raises:
            LabelSpaceError: a number that *space* does not have, or a category that it
                does not allow with the sensitivity.
        """
        if not 0 <= sensitivity < len(space._sensitivity_names):
            raise LabelSpaceError(_no_number("sensitivity", sensitivity, space._sensitivity_names))
        mask = CategorySet(categories, space)._mask
        refused = mask & ~space._allowed[sensitivity]
        if refused:
            raise LabelSpaceError(
                _not_allowed(refused, space._sensitivity_names[sensitivity], space)
            )
        self._sensitivity = sensitivity
        self._mask = mask
        self._space = space
        self._text = None

    @classmethod
    def parse(cls, text: str, space: LabelSpace = DEFAULT_SPACE) -> Level:
        """Parse ``s0`` or ``s0:c1,c5.c9`` as the kernel does.

        Raises:
            InvalidLevelError: *text* is no level of *space*; its ``span`` tells which part.
        """
        if len(text) > MAX_TEXT:
            raise InvalidLevelError(text, TOO_LONG)
        self = object.__new__(cls)
        self._space = space
        self._text = None
        sensitivity_text, colon, catset = text.partition(":")
        sensitivity = space._sensitivities.get(sensitivity_text)
        if sensitivity is None:
            raise _no_sensitivity(text, sensitivity_text, space)
        self._sensitivity = sensitivity
        if not colon:
            self._mask = 0
            return self
        # Two single categories, the shape that libvirt draws, take a short cut.
        first, _, second = catset.partition(",")
        low = space._categories.get(first)
        high = space._categories.get(second)
        if low is not None and high is not None and space._plain:
            self._mask = low | high
            if low < high:
                self._text = text
            elif low > high:
                self._text = f"{sensitivity_text}:{second},{first}"
            return self
        mask = _parse_categories(text, catset, len(sensitivity_text) + 1, space)
        refused = mask & ~space._allowed[sensitivity]
        if refused:
            raise InvalidLevelError(
                text,
                _not_allowed(refused, sensitivity_text, space),
                (len(sensitivity_text) + 1, len(text)),
            )
        self._mask = mask
        return self

    @property
    def sensitivity(self) -> int:
        """Place of the sensitivity in the policy's order; s0 is 0."""
        return self._sensitivity

    @property
    def categories(self) -> CategorySet:
        """The categories, told by their places in the policy."""
        return CategorySet._of(self._mask, self._space)

    @property
    def mask(self) -> int:
        """The categories as an integer in which bit *n* stands for category number *n*."""
        return self._mask

    @property
    def space(self) -> LabelSpace:
        """The names that this level's numbers have."""
        return self._space

    @property
    def sort_key(self) -> tuple[int, tuple[int, ...]]:
        """A key to display levels in a stable order; it says nothing about dominance."""
        return (self._sensitivity, tuple(self.categories))

    def with_mask(self, mask: int, /) -> Level:
        """Return the level of the same sensitivity with other categories, told as a mask.

        Raises:
            LabelSpaceError: a category that the policy does not have, or does not allow with
                the sensitivity.
        """
        if mask & ~self._space._allowed[self._sensitivity]:
            raise LabelSpaceError(f"the policy allows no level {self} with the mask {mask:#x}")
        return Level._of(self._sensitivity, mask, self._space)

    @staticmethod
    def _of(sensitivity: int, mask: int, space: LabelSpace) -> Level:
        """Make a level of numbers that are known to be the space's."""
        level = _new(Level)
        level._sensitivity = sensitivity
        level._mask = mask
        level._space = space
        level._text = None
        return level

    def dominates(self, other: Level, /) -> bool:
        """Tell whether this level's sensitivity and categories include the other's.

        Raises:
            LabelSpaceError: the levels are of different policies.
        """
        if self._space is not other._space:
            _same_space(self._space, other._space)
        mask = other._mask
        return self._sensitivity >= other._sensitivity and self._mask & mask == mask

    def comparable_with(self, other: Level, /) -> bool:
        """Tell whether one of the two levels dominates the other."""
        return self.dominates(other) or other.dominates(self)

    def incomparable_with(self, other: Level, /) -> bool:
        """Tell whether neither level dominates the other: the two are kept apart."""
        return not self.comparable_with(other)

    def relation_to(self, other: Level, /) -> Relation:
        """Tell how this level stands to the other."""
        if self.dominates(other):
            return Relation.EQUAL if other.dominates(self) else Relation.DOMINATES
        return Relation.DOMINATED if other.dominates(self) else Relation.INCOMPARABLE

    def join(self, other: Level, /) -> Level:
        """Return the lowest level that dominates both (least upper bound).

        Raises:
            LabelSpaceError: the levels are of different policies, or their policy does not
                allow the categories of the one with the sensitivity of the other.
        """
        return self._combine(other, max, self._mask | other._mask)

    def meet(self, other: Level, /) -> Level:
        """Return the highest level that both dominate (greatest lower bound).

        Raises:
            LabelSpaceError: the levels are of different policies.
        """
        return self._combine(other, min, self._mask & other._mask)

    def _combine(self, other: Level, choose: _Choice, mask: int) -> Level:
        _same_space(self._space, other._space)
        return Level(
            choose(self._sensitivity, other._sensitivity),
            CategorySet._of(mask, self._space),
            self._space,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Level):
            return NotImplemented
        return (
            self._mask == other._mask
            and self._sensitivity == other._sensitivity
            and (self._space is other._space or self._space == other._space)
        )

    def __hash__(self) -> int:
        # An integer hashes to its remainder modulo 2^61 - 1, and powers of two repeat there
        # after 61: half a million pairs would share 1,891 values. Modulo this prime they
        # repeat so late that one in two hundred meets another.
        return hash((self._sensitivity, self._mask % _HASH_PRIME))

    def __str__(self) -> str:
        text = self._text
        if text is None:
            text = self._space._sensitivity_names[self._sensitivity]
            if self._mask:
                names = self._space._category_names
                text = f"{text}:{_format_categories(self._mask, names)}"
            self._text = text
        return text

    def __repr__(self) -> str:
        return f"Level.parse({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Level, (self._sensitivity, tuple(self.categories), self._space))


class Range:
    """A low and a high level, such as ``s0-s0:c0.c1023``; most have equal ends.

    Immutable and hashable. In MCS policies only the high level decides on access; the low
    one matters for the label of what a process creates, and in MLS policies.
    """

    __slots__ = ("_high", "_low")

    _low: Level
    _high: Level

    def __init__(self, low: Level, high: Optional[Level] = None) -> None:
        """Make a range of two levels, or of one that is both its ends.

        Raises:
            InvalidRangeError: *high* does not dominate *low*.
        """
        if high is None:
            high = low
        elif not high.dominates(low):
            raise InvalidRangeError(f"{low}-{high}", _not_dominating(low, high))
        self._low = low
        self._high = high

    @classmethod
    def parse(cls, text: str, space: LabelSpace = DEFAULT_SPACE) -> Range:
        """Parse ``s0:c1,c2`` or ``s0-s0:c0.c1023`` as the kernel does.

        Raises:
            InvalidRangeError: *text* is no range of *space*; its ``span`` tells which part.
        """
        if len(text) > MAX_TEXT:
            raise InvalidRangeError(text, TOO_LONG)
        low_text, dash, high_text = text.partition("-")
        self = object.__new__(cls)
        try:
            self._low = Level.parse(low_text, space)
        except InvalidLevelError as error:
            raise InvalidRangeError(text, error.reason, error.span) from None
        if not dash:
            self._high = self._low
            return self
        offset = len(low_text) + 1
        second = high_text.find("-")
        if second >= 0:
            raise InvalidRangeError(
                text, "more than one '-'", (offset + second, offset + second + 1)
            )
        try:
            self._high = Level.parse(high_text, space)
        except InvalidLevelError as error:
            span = None if error.span is None else (error.span[0] + offset, error.span[1] + offset)
            raise InvalidRangeError(text, error.reason, span) from None
        if not self._high.dominates(self._low):
            raise InvalidRangeError(
                text, _not_dominating(self._low, self._high), (offset, len(text))
            )
        return self

    @property
    def low(self) -> Level:
        """The low end."""
        return self._low

    @property
    def high(self) -> Level:
        """The high end: the one that access decisions of MCS policies look at."""
        return self._high

    def contains(self, other: Union[Level, Range], /) -> bool:
        """Tell whether the other lies inside: low below its low, high above its high.

        Raises:
            LabelSpaceError: the two are of different policies.
        """
        if isinstance(other, Level):
            return self._high.dominates(other) and other.dominates(self._low)
        return other._low.dominates(self._low) and self._high.dominates(other._high)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Range):
            return NotImplemented
        return self._low == other._low and self._high == other._high

    def __hash__(self) -> int:
        return hash((self._low, self._high))

    def __str__(self) -> str:
        if self._low == self._high:
            return str(self._low)
        return f"{self._low}-{self._high}"

    def __repr__(self) -> str:
        return f"Range.parse({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Range, (self._low, self._high))


def _same_space(one: LabelSpace, other: LabelSpace) -> None:
    if one is not other and one != other:
        raise LabelSpaceError("values of different policies can be neither compared nor combined")


def _no_number(kind: str, number: int, known: Sequence[object]) -> str:
    return f"no {kind} number {number}: the policy has {len(known)}, counted from 0"


def _not_dominating(low: Level, high: Level) -> str:
    return f"the high level {_cut(str(high))} does not dominate the low level {_cut(str(low))}"


def _no_sensitivity(text: str, name: str, space: LabelSpace) -> InvalidLevelError:
    if not text:
        return InvalidLevelError(text, "a level is missing", (0, 0))
    names = space._sensitivity_names
    known = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" if names else "none"
    if name != name.strip():
        reason = "white space"
    elif not name:
        reason = "a level starts with its sensitivity"
    else:
        reason = f"unknown sensitivity {_show(name)} (the policy has {known})"
    return InvalidLevelError(text, reason, (0, len(name)))


def _not_allowed(mask: int, sensitivity: str, space: LabelSpace) -> str:
    categories = _format_categories(mask, space._category_names)
    return f"the policy does not allow categories {_cut(categories)} with sensitivity {sensitivity}"


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."


def _show(name: str) -> str:
    return ascii(_cut(name))


def _parse_categories(text: str, catset: str, offset: int, space: LabelSpace) -> int:
    """Return the mask of *catset*, which stands at *offset* in *text*.

    Raises:
        InvalidLevelError: *catset* is no category set of *space*.
    """
    bits = space._categories
    mask = 0
    items = catset.split(",")
    for item in items:
        bit = bits.get(item)
        if bit is None:
            first, _, last = item.partition(".")
            low = bits.get(first)
            high = bits.get(last)
            if low is None or high is None or high <= low:
                # An equal item before this one would have been refused in its stead.
                start = offset + sum(len(earlier) + 1 for earlier in items[: items.index(item)])
                raise InvalidLevelError(text, _why_no_item(item, space), (start, start + len(item)))
            bit = high * 2 - low
        mask |= bit
    return mask


def _why_no_item(item: str, space: LabelSpace) -> str:
    """Say what is wrong with one item of a category set."""
    if not item:
        return "a category is missing"
    if any(character.isspace() for character in item):
        return "white space"
    first, dot, last = item.partition(".")
    if dot and not (first and last):
        return "a run of categories lacks an end"
    if first in space._categories and last in space._categories:
        return f"a run of categories must ascend ({last} does not stand above {first})"
    unknown = last if first in space._categories else first
    names = space._category_names
    known = f"the policy has {names[0]} to {names[-1]}" if names else "the policy has none"
    return f"unknown category {_show(unknown)} ({known})"


def _format_categories(mask: int, names: Sequence[str]) -> str:
    """Return the canonical text of a mask; see the module's docstring for the rule."""
    items = []
    while mask:
        # The highest run: bits start to end - 1.
        end = mask.bit_length()
        start = (mask ^ ((1 << end) - 1)).bit_length()
        if end - start == 1:
            items.append(names[start])
        else:
            mark = "," if end - start == 2 else "."
            items.append(f"{names[start]}{mark}{names[end - 1]}")
        mask &= (1 << start) - 1
    items.reverse()
    return ",".join(items)
