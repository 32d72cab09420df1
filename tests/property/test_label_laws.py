"""The laws that label values obey.

Levels under dominance are a lattice, wherever the policy allows every category with every
sensitivity; what must hold of text is that of mcs_context_to_sid in the kernel.
"""

from __future__ import annotations

import copy
import itertools
import operator
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    FREE_SPACES,
    NAMED_SPACE,
    NUMBERS,
    SMALL_SPACE,
    SPACES,
    any_text,
    contexts,
    level,
    levels,
    not_ascii,
    ranges,
    spaces,
    spellings,
    texts,
    values,
    white_space,
)

from svirtlib.context import Context
from svirtlib.errors import (
    InvalidContextError,
    InvalidLevelError,
    InvalidRangeError,
    LabelError,
    LabelSpaceError,
)
from svirtlib.mls import CategorySet, Level, Range, Relation

ERRORS = {
    CategorySet: InvalidLevelError,
    Level: InvalidLevelError,
    Range: InvalidRangeError,
    Context: InvalidContextError,
}


def parse(kind, text, space):
    """Return the value and no error, or no value and the error."""
    try:
        return kind.parse(text, space), None
    except LabelError as error:
        return None, error


# --- Text -----------------------------------------------------------------------------------


@given(values)
def test_parsing_inverts_printing(drawn):
    """parse(str(value)) == value."""
    value, space = drawn
    assert type(value).parse(str(value), space) == value


@given(texts)
def test_printing_is_idempotent(drawn):
    """str(parse(text)) is canonical: parsed and printed again, it stays."""
    kind, text, space = drawn
    once = str(kind.parse(text, space))
    assert str(kind.parse(once, space)) == once == text


@given(st.data(), level())
def test_spelling_is_irrelevant(data, level):
    """Order, repetition, aliases and the cut into runs make no other level."""
    text = data.draw(spellings(level))
    parsed = Level.parse(text, level.space)
    assert parsed == level
    assert hash(parsed) == hash(level)
    assert str(parsed) == str(level)
    assert parsed.mask == level.mask


@given(levels(2))
def test_text_is_equal_iff_levels_are(drawn):
    one, other = drawn
    assert (str(one) == str(other)) is (one == other)


@given(level())
def test_canonical_text_follows_the_rule(level):
    """Categories ascend; a run of two is c1,c2 and one of three or more c1.c3."""
    names = level.space.categories
    items: list[str] = []
    for _, members in itertools.groupby(enumerate(sorted(level.categories)), lambda p: p[1] - p[0]):
        run = [names[place] for _, place in members]
        items += run if len(run) < 3 else [f"{run[0]}.{run[-1]}"]
    sensitivity = level.space.sensitivities[level.sensitivity]
    assert str(level) == (f"{sensitivity}:{','.join(items)}" if items else sensitivity)


@given(ranges(1))
def test_range_is_printed_as_low_and_high_iff_they_differ(drawn):
    (value,) = drawn
    single = value.low == value.high
    assert str(value) == (str(value.low) if single else f"{value.low}-{value.high}")
    assert Range.parse(f"{value.low}-{value.high}", value.low.space) == value


@given(texts, st.data())
def test_white_space_is_refused(drawn, data):
    """No parser trims, skips or splits at white space."""
    kind, text, space = drawn
    place = data.draw(st.integers(0, len(text)))
    with pytest.raises(LabelError):
        kind.parse(text[:place] + data.draw(white_space) + text[place:], space)


@given(texts, st.data())
def test_text_that_is_not_ascii_is_refused(drawn, data):
    """Neither digits of other scripts nor letters that look alike are taken."""
    kind, text, space = drawn
    place = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(place, min(len(text), place + 1)))
    with pytest.raises(LabelError):
        kind.parse(text[:place] + data.draw(not_ascii) + text[end:], space)


@given(st.sampled_from(list(ERRORS)), any_text | texts.map(lambda drawn: drawn[1]), spaces)
def test_any_text_is_parsed_or_refused_with_the_one_error(kind, text, space):
    """What is raised has the whole text, names a part of it, and fits on one line."""
    value, error = parse(kind, text, space)
    if error is None:
        assert kind.parse(str(value), space) == value
        return
    assert type(error) is ERRORS[kind]
    assert error.text == text
    assert error.__context__ is None or error.__suppress_context__
    assert str(error).isascii()
    assert str(error).isprintable()
    if error.span is not None:
        start, end = error.span
        assert 0 <= start <= end <= len(text)


@given(texts, st.data())
def test_any_damage_to_a_label_is_parsed_or_refused(drawn, data):
    """Cutting, doubling and inserting raise nothing but the one error."""
    kind, text, space = drawn
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    piece = data.draw(st.sampled_from([*":,.-0_", "", text[start:end], text, "c0", "s0", "-s0"]))
    damaged = text[:start] + piece + data.draw(st.sampled_from([text[start:], text[end:]]))
    value, error = parse(kind, damaged, space)
    if error is None:
        assert kind.parse(str(value), space) == value
    else:
        assert type(error) is ERRORS[kind]
        assert error.text == damaged


# --- Dominance ------------------------------------------------------------------------------


@given(levels(2))
def test_dominance_is_inclusion(drawn):
    """One dominates the other iff its sensitivity is as high and it has all categories."""
    one, other = drawn
    assert one.dominates(other) is (
        one.sensitivity >= other.sensitivity
        and frozenset(one.categories) >= frozenset(other.categories)
    )


@given(level())
def test_dominance_is_reflexive(level):
    assert level.dominates(level)


@given(levels(2))
def test_dominance_is_antisymmetric(drawn):
    one, other = drawn
    assert (one.dominates(other) and other.dominates(one)) is (one == other)


@given(levels(3))
def test_dominance_is_transitive(drawn):
    for high, middle, low in itertools.permutations(drawn):
        if high.dominates(middle) and middle.dominates(low):
            assert high.dominates(low)


@given(levels(2))
def test_levels_are_incomparable_iff_neither_dominates(drawn):
    one, other = drawn
    neither = not one.dominates(other) and not other.dominates(one)
    assert one.incomparable_with(other) is neither
    assert one.comparable_with(other) is not neither


MIRRORED = {
    Relation.EQUAL: Relation.EQUAL,
    Relation.DOMINATES: Relation.DOMINATED,
    Relation.DOMINATED: Relation.DOMINATES,
    Relation.INCOMPARABLE: Relation.INCOMPARABLE,
}


@given(levels(2))
def test_relation_is_what_dominance_says_in_both_directions(drawn):
    one, other = drawn
    relation = one.relation_to(other)
    assert other.relation_to(one) is MIRRORED[relation]
    assert (relation is Relation.EQUAL) is (one == other)
    assert (relation is Relation.INCOMPARABLE) is one.incomparable_with(other)
    assert (relation in (Relation.EQUAL, Relation.DOMINATES)) is one.dominates(other)


@given(ranges(2))
def test_levels_and_ranges_have_no_order(drawn):
    """Dominance is partial: an operator that sorts would invent the rest."""
    one, other = drawn
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        with pytest.raises(TypeError):
            compare(one, other)
        with pytest.raises(TypeError):
            compare(one.low, other.high)


@given(levels(5))
def test_sort_key_orders_levels_totally(drawn):
    """Any order of the same levels is sorted into the same one."""
    ordered = sorted(drawn, key=lambda level: level.sort_key)
    backwards = drawn[::-1]
    assert sorted(backwards, key=lambda level: level.sort_key) == ordered
    for one, other in itertools.combinations(drawn, 2):
        assert (one.sort_key == other.sort_key) is (one == other)


# --- Join and meet --------------------------------------------------------------------------


@given(levels(3, FREE_SPACES))
def test_join_is_the_least_upper_bound(drawn):
    """A level dominates the join iff it dominates both."""
    one, other, third = drawn
    join = one.join(other)
    assert join.dominates(one)
    assert join.dominates(other)
    assert third.dominates(join) is (third.dominates(one) and third.dominates(other))


@given(levels(3))
def test_meet_is_the_greatest_lower_bound(drawn):
    """A level is dominated by the meet iff both dominate it; every policy allows a meet."""
    one, other, third = drawn
    meet = one.meet(other)
    assert one.dominates(meet)
    assert other.dominates(meet)
    assert meet.dominates(third) is (one.dominates(third) and other.dominates(third))


@given(levels(2, FREE_SPACES))
def test_join_and_meet_are_commutative(drawn):
    one, other = drawn
    assert one.join(other) == other.join(one)
    assert one.meet(other) == other.meet(one)


@given(levels(3, FREE_SPACES))
def test_join_and_meet_are_associative(drawn):
    one, other, third = drawn
    assert one.join(other).join(third) == one.join(other.join(third))
    assert one.meet(other).meet(third) == one.meet(other.meet(third))


@given(level())
def test_join_and_meet_are_idempotent(level):
    assert level.join(level) == level
    assert level.meet(level) == level


@given(levels(2, FREE_SPACES))
def test_join_and_meet_absorb_each_other(drawn):
    one, other = drawn
    assert one.join(one.meet(other)) == one
    assert one.meet(one.join(other)) == one


@given(levels(2, FREE_SPACES))
def test_join_and_meet_say_what_dominance_says(drawn):
    """One dominates the other iff it is their join, and iff the other is their meet."""
    one, other = drawn
    assert (one.join(other) == one) is one.dominates(other)
    assert (one.meet(other) == other) is one.dominates(other)


@given(levels(2, [NAMED_SPACE]))
def test_join_is_refused_iff_the_policy_does_not_allow_it(drawn):
    one, other = drawn
    sensitivity = max(one.sensitivity, other.sensitivity)
    union = one.categories | other.categories
    try:
        expected = Level(sensitivity, union, NAMED_SPACE)
    except LabelSpaceError:
        with pytest.raises(LabelSpaceError):
            one.join(other)
    else:
        assert one.join(other) == expected


# --- Ranges ---------------------------------------------------------------------------------


@given(levels(2))
def test_two_levels_are_a_range_iff_the_high_one_dominates(drawn):
    low, high = drawn
    if high.dominates(low):
        assert Range(low, high) == Range.parse(f"{low}-{high}", low.space)
    else:
        with pytest.raises(InvalidRangeError):
            Range(low, high)
        with pytest.raises(InvalidRangeError):
            Range.parse(f"{low}-{high}", low.space)


@given(ranges(2), st.data())
def test_range_contains_what_lies_between_its_ends(drawn, data):
    """A range contains a level iff its high dominates it and it dominates the low."""
    one, other = drawn
    inner = data.draw(st.sampled_from([one.low, one.high, other.low, other.high]))
    inside = one.high.dominates(inner) and inner.dominates(one.low)
    assert one.contains(inner) is inside
    assert one.contains(Range(inner)) is inside


@given(ranges(2))
def test_range_contains_another_iff_it_contains_both_ends(drawn):
    one, other = drawn
    assert one.contains(other) is (one.contains(other.low) and one.contains(other.high))


@given(ranges(3))
def test_containment_is_a_partial_order(drawn):
    """Reflexive, antisymmetric and transitive."""
    one, other, third = drawn
    assert one.contains(one)
    assert (one.contains(other) and other.contains(one)) is (one == other)
    if one.contains(other) and other.contains(third):
        assert one.contains(third)


# --- Category sets --------------------------------------------------------------------------


def category_sets(count):
    """A space and *count* sets of its categories' numbers."""
    return st.one_of(*[st.tuples(st.just(space), *[NUMBERS[space]] * count) for space in SPACES])


@given(category_sets(2))
def test_category_set_operators_are_those_of_frozenset(drawn):
    """Among themselves, and with a plain set on either side; the space is kept."""
    space, one, other = drawn
    for operate in (operator.and_, operator.or_, operator.sub, operator.xor):
        expected = operate(one, other)
        for result in (
            operate(CategorySet(one, space), CategorySet(other, space)),
            operate(CategorySet(one, space), other),
            operate(one, CategorySet(other, space)),
        ):
            assert isinstance(result, CategorySet)
            assert result == expected
            assert Level(len(space.sensitivities) - 1, result, space).categories == expected


COMPARISONS = (operator.eq, operator.ne, operator.le, operator.lt, operator.ge, operator.gt)


@given(category_sets(2))
def test_category_set_comparisons_are_those_of_frozenset(drawn):
    space, one, other = drawn
    for left, right in ((one, other), (one, one), (one & other, one), (one | other, one)):
        for compare in COMPARISONS:
            expected = compare(left, right)
            assert compare(CategorySet(left, space), CategorySet(right, space)) is expected
            assert compare(CategorySet(left, space), right) is expected
            assert compare(left, CategorySet(right, space)) is expected


@given(category_sets(2))
def test_category_set_is_read_as_a_frozenset(drawn):
    """Length, truth, membership, order of iteration, disjointness, hash."""
    space, one, other = drawn
    categories = CategorySet(one, space)
    assert len(categories) == len(one)
    assert bool(categories) is bool(one)
    assert list(categories) == sorted(one)
    assert categories.isdisjoint(CategorySet(other, space)) is one.isdisjoint(other)
    assert hash(categories) == hash(one)
    assert {categories: "found"}[one] == "found"
    for place in (*other, -1, len(space.categories), 2**70):
        assert (place in categories) is (place in one)
    assert categories.mask == sum(1 << place for place in one)


@given(category_sets(1), st.randoms(use_true_random=False))
def test_category_set_forgets_order_and_repetition(drawn, random):
    space, one = drawn
    shuffled = [*one, *one]
    random.shuffle(shuffled)
    assert CategorySet(shuffled, space) == CategorySet(one, space)
    assert Level(len(space.sensitivities) - 1, shuffled, space).categories == one


# --- Values ---------------------------------------------------------------------------------


@given(values | contexts.map(lambda context: (context, None)))
def test_copies_and_pickles_are_equal(drawn):
    value, _ = drawn
    copies = [pickle.loads(pickle.dumps(value, protocol)) for protocol in range(2, 6)]
    for other in (copy.copy(value), copy.deepcopy(value), *copies):
        assert type(other) is type(value)
        assert other == value
        assert hash(other) == hash(value)
        assert str(other) == str(value)


@given(values, values)
def test_equal_values_have_equal_hashes(one, other):
    if one[0] == other[0]:
        assert hash(one[0]) == hash(other[0])


@given(values)
def test_values_equal_no_text(drawn):
    value, _ = drawn
    assert value != str(value)
    assert str(value) != value


@given(level([SMALL_SPACE]), level([NAMED_SPACE]))
def test_values_of_different_policies_are_not_mixed(one, other):
    """They are unequal, and every relation between them is refused, not guessed."""
    assert one != other
    assert Range(one) != Range(other)
    for relate in (
        lambda: one.dominates(other),
        lambda: one.comparable_with(other),
        lambda: one.incomparable_with(other),
        lambda: one.relation_to(other),
        lambda: one.join(other),
        lambda: one.meet(other),
        lambda: Range(one, other),
        lambda: Range(one).contains(other),
        lambda: Range(one).contains(Range(other)),
        lambda: one.categories & other.categories,
        lambda: one.categories | other.categories,
        lambda: one.categories - other.categories,
        lambda: one.categories ^ other.categories,
        lambda: Level(0, other.categories, SMALL_SPACE),
    ):
        with pytest.raises(LabelSpaceError):
            relate()


@given(contexts)
def test_context_is_printed_as_its_parts(context):
    parts = [context.user, context.role, context.type]
    if context.range is not None:
        parts.append(str(context.range))
    assert str(context) == ":".join(parts)
