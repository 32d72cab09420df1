"""Hypothesis strategies for labels.

Levels that are drawn together are of one space and near each other, so that all relations
between them come up; categories come in runs as well as one by one.
"""

from __future__ import annotations

import functools
import itertools
import operator
import string

from hypothesis import strategies as st

from svirtlib.context import Context
from svirtlib.mls import DEFAULT_SPACE, CategorySet, LabelSpace, Level, Range

#: So small that equal levels, and levels that include each other, are no rare luck.
SMALL_SPACE = LabelSpace.numbered(3, 5)
#: Names in no alphabetical order, aliases, and categories that go with some sensitivities.
NAMED_SPACE = LabelSpace(
    ["public", ("restricted", "r1", "internal"), ("secret", "s2"), "secrets"],
    ["pear", ("apple", "malus"), "Apple", ("fig", "f_1", "f1"), "app", "quince", "z9", "z"],
    allowed={"public": [], "restricted": ["pear", "Apple", "z9"], "secret": ["pear", "fig", "z"]},
)

#: In these all categories go with all sensitivities, so that any two levels have a join.
FREE_SPACES = (DEFAULT_SPACE, SMALL_SPACE)
SPACES = (*FREE_SPACES, NAMED_SPACE)
spaces = st.sampled_from(SPACES)

#: User, role or type.
names = st.builds(
    operator.add,
    st.sampled_from(string.ascii_letters),
    st.text(alphabet=f"{string.ascii_letters}{string.digits}_.-", max_size=6),
)

#: All that Python takes for white space, and some that only looks like it.
white_space = st.sampled_from([*" \t\n\r\v\f\x1c\x85\xa0\u2003\u2028\u3000", "\u200b", "\ufeff"])
not_ascii = st.characters(min_codepoint=128)

#: Text of the letters that labels are made of; most of it is none.
label_like = st.text(alphabet="sc0123459:,.-_ SC\t\né\u0661", max_size=30)
any_text = st.text() | label_like


def _runs(size):
    """Sets of numbers below *size*, as runs that may touch and overlap."""
    run = st.builds(
        lambda start, length: range(start, min(start + length, size)),
        st.integers(0, size - 1),
        st.sampled_from([1, 1, 1, 2, 3, 4, 64, size]),
    )
    return st.lists(run, max_size=5).map(lambda runs: frozenset(itertools.chain(*runs)))


#: For each space, sets of its category numbers.
NUMBERS = {space: _runs(len(space.categories)) for space in SPACES}


@st.composite
def levels(draw, count, spaces=SPACES):
    """A tuple of *count* levels of one space."""
    space = draw(st.sampled_from(spaces))
    # Built before the levels are, that they can be near each other.
    pool = [draw(NUMBERS[space]) for _ in range(2)]
    pool += [pool[0] | pool[1], pool[0] & pool[1], frozenset()]
    return tuple(_level(draw, space, pool) for _ in range(count))


def _level(draw, space, pool):
    sensitivity = draw(st.integers(0, len(space.sensitivities) - 1))
    categories = CategorySet(draw(st.sampled_from(pool)), space)
    categories &= _usable(space, sensitivity)
    return Level(sensitivity, categories, space)


@functools.cache
def _usable(space, sensitivity):
    """The categories that a policy allows with a sensitivity."""
    mask = space._allowed[sensitivity]
    return CategorySet((n for n in range(len(space.categories)) if mask >> n & 1), space)


def level(spaces=SPACES):
    return levels(1, spaces).map(operator.itemgetter(0))


@st.composite
def ranges(draw, count, spaces=SPACES):
    """A tuple of *count* ranges of one space."""
    drawn = draw(levels(2 * count, spaces))
    result = []
    for one, other in zip(drawn[::2], drawn[1::2]):
        low, high = (other, one) if one.dominates(other) else (one, other)
        # Where neither dominates, what both have is a low level for either.
        result.append(Range(low if high.dominates(low) else low.meet(high), high))
    return tuple(result)


def range_(spaces=SPACES):
    return ranges(1, spaces).map(operator.itemgetter(0))


contexts = st.builds(Context, names, names, names, st.none() | range_())

#: Any label value, with its space.
values = st.one_of(
    level().map(lambda value: (value, value.space)),
    range_().map(lambda value: (value, value.low.space)),
    level().map(lambda value: (value.categories, value.space)),
    st.builds(
        lambda user, role, type_, value: (Context(user, role, type_, value), value.low.space),
        *(names, names, names, range_()),
    ),
)
#: The class, the canonical text and the space of any label value.
texts = values.map(lambda drawn: (type(drawn[0]), str(drawn[0]), drawn[1]))


@functools.cache
def _category_names(space):
    """For each category its name and its aliases."""
    result: list[list[str]] = [[] for _ in space.categories]
    for name, bit in space._categories.items():
        result[bit.bit_length() - 1].append(name)
    return result


@st.composite
def spellings(draw, level):
    """A text for *level*: its categories in any order, cut into any runs, some repeated."""
    space = level.space
    item_names = _category_names(space)
    categories = sorted(level.categories)
    items = []
    start = 0
    while start < len(categories):
        end = start
        while (
            end + 1 < len(categories)
            and categories[end + 1] == categories[end] + 1
            and draw(st.integers(0, 9))
        ):
            end += 1
        first = draw(st.sampled_from(item_names[categories[start]]))
        last = draw(st.sampled_from(item_names[categories[end]]))
        items.append(first if start == end else f"{first}.{last}")
        # The next may begin where this one ends, or inside of it.
        start = end + 1 if start == end else draw(st.sampled_from([end + 1, end, start + 1]))
        if len(items) > 40:
            items.extend(item_names[category][0] for category in categories)
            break
    if items:
        items += draw(st.lists(st.sampled_from(items), max_size=3))
    sensitivities = [
        name for name, place in space._sensitivities.items() if place == level.sensitivity
    ]
    sensitivity = draw(st.sampled_from(sensitivities))
    return ":".join(filter(None, [sensitivity, ",".join(draw(st.permutations(items)))]))
