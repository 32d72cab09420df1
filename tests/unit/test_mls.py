"""Levels, ranges and category sets: tables of examples, messages, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest

from svirtlib.errors import InvalidLevelError, InvalidRangeError, LabelError, LabelSpaceError
from svirtlib.mls import (
    DEFAULT_SPACE,
    MAX_TEXT,
    CategorySet,
    LabelSpace,
    Level,
    Range,
    Relation,
)

MCS = LabelSpace.numbered(1, 1024)
NAMED = LabelSpace(
    ["public", ("restricted", "r1"), ("secret", "s5")],
    [("apple", "malus"), "fig", "pear", "Quince"],
    allowed={"public": [], "restricted": ["apple", "pear"]},
)

# Text and how it is printed, as answered by a kernel with an MCS policy (s0, c0..c1023).
CANONICAL = [
    ("s0", "s0"),
    ("s0-s0", "s0"),
    ("s0:c1,c2", "s0:c1,c2"),
    ("s0:c2,c1", "s0:c1,c2"),
    ("s0:c1.c2", "s0:c1,c2"),
    ("s0:c1,c1,c2", "s0:c1,c2"),
    ("s0:c1,c1", "s0:c1"),
    ("s0:c1,c2,c3", "s0:c1.c3"),
    ("s0:c3,c1,c2", "s0:c1.c3"),
    ("s0:c1.c3", "s0:c1.c3"),
    ("s0:c1.c3,c2", "s0:c1.c3"),
    ("s0:c1.c3,c2.c5", "s0:c1.c5"),
    ("s0:c1,c2,c4,c5,c6", "s0:c1,c2,c4.c6"),
    ("s0:c0.c1023", "s0:c0.c1023"),
    ("s0:c0.c1023,c5", "s0:c0.c1023"),
    ("s0:c1022,c1023", "s0:c1022,c1023"),
    ("s0:c0,c1023", "s0:c0,c1023"),
    ("s0-s0:c0.c1023", "s0-s0:c0.c1023"),
    ("s0:c1-s0:c1", "s0:c1"),
    ("s0:c1-s0:c1,c2", "s0:c1-s0:c1,c2"),
    # Written out, these are 5 KiB: more than selinuxfs takes, less than an attribute holds.
    ("s0:" + ",".join(f"c{n}" for n in range(1024)), "s0:c0.c1023"),
]

# What the same kernel refuses, with the reason given here and the part that it is about.
REFUSED = [
    ("s0:c1-s0", "the high level s0 does not dominate the low level s0:c1", "s0"),
    ("s0:c1-s0:c2", "the high level s0:c2 does not dominate the low level s0:c1", "s0:c2"),
    ("s0:c5.c5", "a run of categories must ascend (c5 does not stand above c5)", "c5.c5"),
    ("s0:c5.c3", "a run of categories must ascend (c3 does not stand above c5)", "c5.c3"),
    ("s0:c01", "unknown category 'c01' (the policy has c0 to c1023)", "c01"),
    ("s00", "unknown sensitivity 's00' (the policy has s0)", "s00"),
    ("s0:c1024", "unknown category 'c1024' (the policy has c0 to c1023)", "c1024"),
    ("s1", "unknown sensitivity 's1' (the policy has s0)", "s1"),
    ("S0", "unknown sensitivity 'S0' (the policy has s0)", "S0"),
    ("s0:C1", "unknown category 'C1' (the policy has c0 to c1023)", "C1"),
    ("s0:1", "unknown category '1' (the policy has c0 to c1023)", "1"),
    ("c1", "unknown sensitivity 'c1' (the policy has s0)", "c1"),
    ("s0:", "a category is missing", ""),
    ("s0:c1,", "a category is missing", ""),
    ("s0:,c1", "a category is missing", ""),
    ("s0:c1,,c2", "a category is missing", ""),
    ("s0-", "a level is missing", ""),
    ("-s0", "a level is missing", ""),
    ("", "a level is missing", ""),
    (" s0", "white space", " s0"),
    ("s0 ", "white space", "s0 "),
    ("s0 :c1", "white space", "s0 "),
    ("s0:c1, c2", "white space", " c2"),
    ("s0 - s0:c1", "white space", "s0 "),
    ("s0:c1 c2", "white space", "c1 c2"),
    ("s0:c1\n", "white space", "c1\n"),
    ("s0:c1.c2.c3", "unknown category 'c2.c3' (the policy has c0 to c1023)", "c1.c2.c3"),
    ("s0:.c3", "a run of categories lacks an end", ".c3"),
    ("s0:c1.", "a run of categories lacks an end", "c1."),
    ("s0:c1:c2", "unknown category 'c1:c2' (the policy has c0 to c1023)", "c1:c2"),
    ("s0,c1", "unknown sensitivity 's0,c1' (the policy has s0)", "s0,c1"),
    ("s0.s0", "unknown sensitivity 's0.s0' (the policy has s0)", "s0.s0"),
    ("s0:c-1", "unknown category 'c' (the policy has c0 to c1023)", "c"),
    ("s0-s0-s0", "more than one '-'", "-"),
    ("s0-s0:c1-junk", "more than one '-'", "-"),
    ("s0-s0:c1-s0", "more than one '-'", "-"),
    ("SystemLow", "unknown sensitivity 'SystemLow' (the policy has s0)", "SystemLow"),
    ("SystemHigh", "unknown sensitivity 'SystemHigh' (the policy has s0)", "SystemHigh"),
    ("s0-SystemHigh", "unknown sensitivity 'SystemHigh' (the policy has s0)", "SystemHigh"),
    # Beyond the kernel's table.
    (":c1", "a level starts with its sensitivity", ""),
    ("s0:\u0661", "unknown category '\\u0661' (the policy has c0 to c1023)", "\u0661"),
    ("s0:c1\0", "unknown category 'c1\\x00' (the policy has c0 to c1023)", "c1\0"),
    ("s0:c1.c1024", "unknown category 'c1024' (the policy has c0 to c1023)", "c1.c1024"),
    ("s0:c9.c1024,x", "unknown category 'c1024' (the policy has c0 to c1023)", "c9.c1024"),
]


@pytest.mark.parametrize(("text", "canonical"), CANONICAL)
def test_range_is_printed_as_by_the_kernel(text, canonical):
    assert str(Range.parse(text, MCS)) == canonical
    assert str(Range.parse(text)) == canonical


@pytest.mark.parametrize(("text", "canonical"), [row for row in CANONICAL if "-" not in row[0]])
def test_level_is_printed_as_by_the_kernel(text, canonical):
    assert str(Level.parse(text, MCS)) == canonical
    if ":" in text:
        categories = text.partition(":")[2]
        assert str(CategorySet.parse(categories)) == canonical.partition(":")[2]


@pytest.mark.parametrize(("text", "reason", "part"), REFUSED)
def test_range_is_refused_as_by_the_kernel(text, reason, part):
    with pytest.raises(InvalidRangeError) as caught:
        Range.parse(text, MCS)
    assert_told(caught.value, text, reason, part)


@pytest.mark.parametrize(("text", "reason", "part"), [row for row in REFUSED if "-" not in row[0]])
def test_level_is_refused_as_by_the_kernel(text, reason, part):
    with pytest.raises(InvalidLevelError) as caught:
        Level.parse(text, MCS)
    assert_told(caught.value, text, reason, part)


def assert_told(error, text, reason, part):
    """Assert that an error has its text, reason and span, and hides what it was made of."""
    assert error.text == text
    assert error.reason == reason
    assert error.span is not None
    start, end = error.span
    assert text[start:end] == part
    assert str(error).endswith(f": {reason}")
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


def test_level_has_no_dash_in_it():
    """A range is no level, even where it is one of a single level."""
    with pytest.raises(InvalidLevelError):
        Level.parse("s0-s0")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("s0:c1,,c2", (6, 6)),
        ("s0:c1,", (6, 6)),
        ("s0:", (3, 3)),
        ("s0:c1,c1024,c2,c1024", (6, 11)),
        ("s0:c1-s0:c1,c9999", (12, 17)),
        ("s0-", (3, 3)),
        ("s0-s0-s0", (5, 6)),
        ("s0:c1-s0", (6, 8)),
    ],
)
def test_span_is_the_first_offending_part(text, span):
    with pytest.raises(InvalidRangeError) as caught:
        Range.parse(text)
    assert caught.value.span == span


def test_message_quotes_the_text():
    with pytest.raises(InvalidLevelError) as caught:
        Level.parse("s0:c5.c3\x1b[2J\n")
    assert str(caught.value) == "invalid level 's0:c5.c3\\x1b[2J\\n': white space"


def test_message_cuts_long_text_and_long_names():
    with pytest.raises(InvalidLevelError) as caught:
        Level.parse("s0:" + "y" * 5000)
    assert "(5003 characters)" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_message_cuts_long_levels():
    even = "s0:" + ",".join(f"c{n}" for n in range(0, 1024, 2))
    odd = "s0:" + ",".join(f"c{n}" for n in range(1, 1024, 2))
    with pytest.raises(InvalidRangeError) as caught:
        Range.parse(f"{even}-{odd}")
    assert "s0:c1,c3,c5" in caught.value.reason
    assert len(str(caught.value)) < 400


def test_error_survives_pickling():
    with pytest.raises(InvalidRangeError) as caught:
        Range.parse("s0:c1-s0")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert type(copied) is InvalidRangeError
    assert (copied.text, copied.span) == ("s0:c1-s0", (6, 8))
    assert str(copied) == str(caught.value)


# --- Absurd input: refused, never expanded --------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "s0:c2147483647",
        "s0:c0.c2147483647",
        "s0:c99999999999999999999999999999999",
        "s0:c1.c4294967297",
        "s2147483648",
        "s0:c" + "1" * 10**6,
        "s" + "9" * 10**6,
        "s0:c0.c" + "9" * 10**6,
        "," * 2**20,
        "s0:" + "," * 2**20,
        "s0:" + "c1," * 2**20,
        "s0:" + "c1," * 2**20 + "c1",
        "s0:" + "c0.c1023," * 2**17 + "c1",
        "." * 2**20,
        "-" * 2**20,
        ":" * 2**20,
        "s0:" + "." * 60_000,
        "s0:" + "," * 60_000,
        "s0" + ":" * 60_000,
        "s0" * 2**20,
        "s0-" * 2**20,
        " " * 2**20,
        "\0" * 2**20,
    ],
    ids=lambda text: f"{text[:12]!a}x{len(text)}",
)
def test_absurd_text_is_refused(text):
    for kind in (Level, Range, CategorySet):
        with pytest.raises(LabelError) as caught:
            kind.parse(text)
        assert len(str(caught.value)) < 1000


def test_longest_text_is_one_that_an_attribute_can_hold():
    """Beyond it nothing is looked at; up to it the rules decide."""
    longest = "s0:" + ",".join(["c1"] * ((MAX_TEXT - 3 + 1) // 3))
    longest += "0" * (MAX_TEXT - len(longest))
    assert len(longest) == MAX_TEXT
    assert Level.parse(longest) == Range.parse(longest).low
    for kind in (Level, Range):
        with pytest.raises(LabelError) as caught:
            kind.parse(longest + "0")
        assert caught.value.reason == f"longer than any label can be ({MAX_TEXT} characters)"
        assert caught.value.span is None
    categories = longest.partition(":")[2]
    assert len(CategorySet.parse(categories)) == len(Level.parse(longest).categories)
    with pytest.raises(InvalidLevelError):
        CategorySet.parse(categories + ",c1" * 10)


# --- Levels and ranges as values ------------------------------------------------------------


def test_level_of_numbers():
    level = Level(0, (520, 87))
    assert str(level) == "s0:c87,c520"
    assert level == Level.parse("s0:c87,c520")
    assert level.sensitivity == 0
    assert level.categories == {87, 520}
    assert level.mask == 1 << 87 | 1 << 520
    assert level.space is DEFAULT_SPACE
    assert str(Level()) == "s0"
    assert str(Level(15, range(1024))) == "s15:c0.c1023"


@pytest.mark.parametrize(
    ("sensitivity", "categories", "reason"),
    [
        (16, (), "no sensitivity number 16: the policy has 16, counted from 0"),
        (-1, (), "no sensitivity number -1: the policy has 16, counted from 0"),
        (0, (1, 1024), "no category number 1024: the policy has 1024, counted from 0"),
        (0, (-1,), "no category number -1: the policy has 1024, counted from 0"),
        (0, (2**31,), "no category number 2147483648: the policy has 1024, counted from 0"),
    ],
)
def test_level_of_numbers_that_the_policy_lacks(sensitivity, categories, reason):
    with pytest.raises(LabelSpaceError) as caught:
        Level(sensitivity, categories)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        ("s0", "s0", Relation.EQUAL),
        ("s0:c1.c3", "s0:c3,c2,c1", Relation.EQUAL),
        ("s0:c1,c2", "s0", Relation.DOMINATES),
        ("s0:c1,c2", "s0:c1", Relation.DOMINATES),
        ("s0:c1.c3", "s0:c1,c2", Relation.DOMINATES),
        ("s0:c0.c1023", "s0:c7,c1023", Relation.DOMINATES),
        ("s1", "s0", Relation.DOMINATES),
        ("s15:c0.c1023", "s0:c5", Relation.DOMINATES),
        ("s0:c1,c2", "s0:c1,c3", Relation.INCOMPARABLE),
        ("s0:c1", "s0:c2", Relation.INCOMPARABLE),
        ("s1", "s0:c1", Relation.INCOMPARABLE),
        ("s2:c1", "s1:c1,c2", Relation.INCOMPARABLE),
    ],
)
def test_dominance(one, other, relation):
    one, other = Level.parse(one), Level.parse(other)
    mirrored = {
        Relation.DOMINATES: Relation.DOMINATED,
    }.get(relation, relation)
    assert one.relation_to(other) is relation
    assert other.relation_to(one) is mirrored
    assert one.dominates(other) is (relation in (Relation.EQUAL, Relation.DOMINATES))
    assert other.dominates(one) is (relation is Relation.EQUAL)
    assert one.incomparable_with(other) is (relation is Relation.INCOMPARABLE)
    assert one.comparable_with(other) is (relation is not Relation.INCOMPARABLE)


@pytest.mark.parametrize(
    ("one", "other", "join", "meet"),
    [
        ("s0:c1,c2", "s0:c2,c3", "s0:c1.c3", "s0:c2"),
        ("s1:c1", "s0:c2", "s1:c1,c2", "s0"),
        ("s0", "s15:c0.c1023", "s15:c0.c1023", "s0"),
        ("s3:c5", "s3:c5", "s3:c5", "s3:c5"),
    ],
)
def test_join_and_meet(one, other, join, meet):
    one, other = Level.parse(one), Level.parse(other)
    assert str(one.join(other)) == join
    assert str(one.meet(other)) == meet


@pytest.mark.parametrize(
    ("outer", "inner", "inside"),
    [
        ("s0-s0:c0.c1023", "s0:c1,c2", True),
        ("s0-s0:c0.c1023", "s0-s0:c0.c1023", True),
        ("s0-s15:c0.c1023", "s0-s3:c5", True),
        ("s0:c1-s0:c1,c2", "s0:c1,c2", True),
        ("s0:c1-s0:c1,c2", "s0", False),
        ("s0:c1-s0:c1,c2", "s0:c1-s0:c1,c3", False),
        ("s0:c1", "s0:c1", True),
        ("s0:c1", "s0-s0:c1", False),
        ("s0-s0:c1", "s1", False),
    ],
)
def test_containment(outer, inner, inside):
    outer, inner = Range.parse(outer), Range.parse(inner)
    assert outer.contains(inner) is inside
    if inner.low == inner.high:
        assert outer.contains(inner.high) is inside


def test_range_of_levels():
    low, high = Level.parse("s0"), Level.parse("s0:c1,c2")
    both = Range(low, high)
    assert (both.low, both.high) == (low, high)
    assert str(both) == "s0-s0:c1,c2"
    assert Range(low) == Range(low, low) == Range.parse("s0-s0")
    assert both == Range.parse("s0-s0:c2,c1")
    with pytest.raises(InvalidRangeError) as caught:
        Range(high, low)
    assert caught.value.text == "s0:c1,c2-s0"
    assert caught.value.reason == "the high level s0 does not dominate the low level s0:c1,c2"


def test_sort_key_displays_by_number_not_by_letter():
    texts = ["s10", "s0:c10", "s2:c1", "s0:c9", "s0", "s0:c9,c10", "s2"]
    levels = sorted(map(Level.parse, texts), key=lambda level: level.sort_key)
    assert list(map(str, levels)) == ["s0", "s0:c9", "s0:c9,c10", "s0:c10", "s2", "s2:c1", "s10"]


@pytest.mark.parametrize(
    "value",
    [
        Level.parse("s0:c1,c2"),
        Range.parse("s0-s0:c1"),
        CategorySet((1, 2)),
        NAMED,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_can_not_be_changed(value):
    names = [name for name in dir(value) if not name.startswith("_")]
    assert names
    for name in [*names, "anything"]:
        with pytest.raises(AttributeError):
            setattr(value, name, None)
        with pytest.raises(AttributeError):
            delattr(value, name)


def test_combining_makes_new_values():
    one, other = Level.parse("s0:c1"), Level.parse("s1:c2")
    one.join(other)
    one.meet(other)
    categories = before = CategorySet((1,))
    categories |= {2}
    assert str(before) == "c1"
    assert (str(one), str(other)) == ("s0:c1", "s1:c2")


@pytest.mark.parametrize("value", [Level.parse("s0:c1"), Range.parse("s0:c1")])
def test_comparing_with_something_else_is_no_error(value):
    assert value != "s0:c1"
    assert value != 1
    assert value is not None
    assert value != None  # noqa: E711


def test_hashes_of_pairs_hardly_ever_meet():
    """Levels are keys of large dictionaries, which equal hashes make slow."""
    pairs = [Level(0, (one, other)) for one in range(0, 1024, 31) for other in range(one)]
    assert len({hash(pair) for pair in pairs}) > 0.98 * len(pairs)


def test_level_is_no_range_of_it():
    assert Level.parse("s0") != Range.parse("s0")


def test_repr_is_the_parsing_of_the_text():
    for value in (Level.parse("s0:c1"), Range.parse("s0-s0:c1"), CategorySet((1, 5))):
        assert eval(repr(value)) == value
    assert repr(Level.parse("s0:c2,c1")) == "Level.parse('s0:c1,c2')"
    assert repr(DEFAULT_SPACE) == "<LabelSpace of 16 sensitivities and 1024 categories>"


@pytest.mark.parametrize("value", [Level.parse("s0:c1,c2"), Range.parse("s0-s0:c1")])
def test_copies_stay_in_the_default_space_and_are_small(value):
    """Else a list of labels sent to another process takes its whole policy along."""
    pickled = pickle.dumps(value)
    assert len(pickled) < 200
    for other in (pickle.loads(pickled), copy.copy(value), copy.deepcopy(value)):
        level = other if isinstance(other, Level) else other.high
        assert other == value
        assert level.space is DEFAULT_SPACE


# --- Category sets --------------------------------------------------------------------------


def test_category_set_is_a_set():
    categories = CategorySet.parse("c5,c1.c3")
    assert categories == {1, 2, 3, 5}
    assert list(categories) == [1, 2, 3, 5]
    assert len(categories) == 4
    assert 5 in categories
    assert 4 not in categories
    foreign: list[object] = ["c5", None, -1, 2**70]
    assert not any(other in categories for other in foreign)
    assert categories >= {1, 5}
    assert categories | {4} == CategorySet(range(1, 6))
    assert categories - {1, 9} == {2, 3, 5}
    assert {1, 9} - categories == {9}
    assert categories ^ {1, 9} == {2, 3, 5, 9}
    assert hash(categories) == hash(frozenset((1, 2, 3, 5)))
    assert categories.mask == 0b101110
    assert not CategorySet()
    assert str(CategorySet()) == ""
    assert CategorySet.parse("") == frozenset()


def test_category_set_operators_keep_the_space():
    wide = LabelSpace.numbered(1, 5000)
    categories = CategorySet((4000, 4001), wide)
    for result in (
        categories - {4000},
        categories ^ {4000},
        categories & {4001},
        {4001} & categories,
    ):
        assert result == {4001}
        assert str(result) == "c4001"
    assert str(CategorySet((1,), NAMED) | {0}) == "apple,fig"


@pytest.mark.parametrize("other", [[1], (1,), "c1", 1, None])
def test_category_set_operators_refuse_what_is_no_set(other):
    for operate in (
        lambda: CategorySet((1,)) | other,
        lambda: CategorySet((1,)) & other,
        lambda: CategorySet((1,)) - other,
        lambda: CategorySet((1,)) ^ other,
        lambda: other - CategorySet((1,)),
    ):
        with pytest.raises(TypeError):
            operate()


def test_category_set_refuses_numbers_that_the_policy_lacks():
    for make in (lambda: CategorySet((1024,)), lambda: CategorySet() | {1024}):
        with pytest.raises(LabelSpaceError, match="no category number 1024: the policy has 1024"):
            make()


# --- Label spaces ---------------------------------------------------------------------------


def test_default_space_is_that_of_the_distributions_mls_policies():
    assert DEFAULT_SPACE.sensitivities == tuple(f"s{n}" for n in range(16))
    assert DEFAULT_SPACE.categories == tuple(f"c{n}" for n in range(1024))
    assert LabelSpace.numbered() == DEFAULT_SPACE
    assert hash(LabelSpace.numbered()) == hash(DEFAULT_SPACE)
    assert MCS != DEFAULT_SPACE
    assert DEFAULT_SPACE != "s0"


@pytest.mark.parametrize("text", ["s0-s15:c0.c1023", "s3:c1-s5:c1,c7", "s15"])
def test_default_space_has_sixteen_sensitivities(text):
    assert str(Range.parse(text)) == text
    with pytest.raises(InvalidRangeError):
        Range.parse(text, MCS)


@pytest.mark.parametrize("text", ["s5-s0", "s3:c1-s5", "s16"])
def test_ranges_over_sensitivities_that_are_none(text):
    with pytest.raises(InvalidRangeError):
        Range.parse(text)


def test_wide_space():
    wide = LabelSpace.numbered(16, 5000)
    assert str(Level.parse("s15:c4999,c4998,c0.c4997", wide)) == "s15:c0.c4999"
    with pytest.raises(InvalidLevelError, match="the policy has c0 to c4999"):
        Level.parse("s0:c5000", wide)


def test_narrow_space():
    assert str(Level.parse("s0", LabelSpace(["s0"], []))) == "s0"
    with pytest.raises(InvalidLevelError, match=r"unknown category 'c0' \(the policy has none\)"):
        Level.parse("s0:c0", LabelSpace(["s0"], []))
    with pytest.raises(
        InvalidLevelError, match=r"unknown sensitivity 's0' \(the policy has none\)"
    ):
        Level.parse("s0", LabelSpace([], []))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("public", "public"),
        ("r1", "restricted"),
        ("r1:malus", "restricted:apple"),
        ("restricted:pear,apple", "restricted:apple,pear"),
        ("s5:malus.pear", "secret:apple.pear"),
        ("s5:fig,malus", "secret:apple,fig"),
        ("secret:Quince,fig,apple,pear", "secret:apple.Quince"),
    ],
)
def test_named_space_prints_primary_names(text, canonical):
    assert str(Level.parse(text, NAMED)) == canonical


@pytest.mark.parametrize(
    ("text", "reason", "part"),
    [
        (
            "public:apple",
            "the policy does not allow categories apple with sensitivity public",
            "apple",
        ),
        (
            "r1:apple.pear",
            "the policy does not allow categories fig with sensitivity r1",
            "apple.pear",
        ),
        (
            "r1:Quince,apple,fig",
            "the policy does not allow categories fig,Quince with sensitivity r1",
            "Quince,apple,fig",
        ),
        ("secret:quince", "unknown category 'quince' (the policy has apple to Quince)", "quince"),
        ("s0", "unknown sensitivity 's0' (the policy has public to secret)", "s0"),
        (
            "secret:pear.malus",
            "a run of categories must ascend (malus does not stand above pear)",
            "pear.malus",
        ),
    ],
)
def test_named_space_refuses(text, reason, part):
    with pytest.raises(InvalidLevelError) as caught:
        Level.parse(text, NAMED)
    assert_told(caught.value, text, reason, part)


def test_both_ends_of_a_range_need_allowed_categories():
    with pytest.raises(InvalidRangeError, match="does not allow categories fig"):
        Range.parse("r1:fig-secret:fig", NAMED)
    with pytest.raises(InvalidRangeError, match="does not allow categories fig"):
        Range.parse("public-r1:fig", NAMED)


def test_level_of_numbers_that_the_policy_does_not_allow():
    with pytest.raises(LabelSpaceError) as caught:
        Level(1, (0, 1, 3), NAMED)
    assert str(caught.value) == (
        "the policy does not allow categories fig,Quince with sensitivity restricted"
    )


def test_join_that_the_policy_does_not_allow():
    with pytest.raises(LabelSpaceError, match="does not allow categories fig"):
        # As if of a policy that allows a category with a sensitivity but not with a higher one.
        Level.parse("a:fig", UPSIDE_DOWN).join(Level.parse("b", UPSIDE_DOWN))


UPSIDE_DOWN = LabelSpace(["a", "b"], ["fig"], allowed={"b": []})


@pytest.mark.parametrize(
    ("sensitivities", "categories", "allowed", "reason"),
    [
        (["s0", "s0"], [], None, "sensitivity name 's0' is declared twice"),
        (["s0"], ["c0", ("c1", "c0")], None, "category name 'c0' is declared twice"),
        (["s0"], [("c0", "c0")], None, "category name 'c0' is declared twice"),
        ([""], [], None, "sensitivity name '' can not stand in a label"),
        (["s0"], [()], None, "category number 0 has no name"),
        (["s0"], ["c0", "c.1"], None, "category name 'c.1' can not stand in a label"),
        (["s-0"], [], None, "sensitivity name 's-0' can not stand in a label"),
        (["s0"], ["c,1"], None, "category name 'c,1' can not stand in a label"),
        (["s:0"], [], None, "sensitivity name 's:0' can not stand in a label"),
        (["s0 "], [], None, "sensitivity name 's0 ' can not stand in a label"),
        (["s0"], ["caf\xe9"], None, "category name 'caf\\xe9' can not stand in a label"),
        (
            ["s0"],
            ["c0"],
            {"s0": ["c1"]},
            "categories allowed with sensitivity 's0': unknown name 'c1'",
        ),
        (
            ["s0"],
            ["c0"],
            {"s1": ["c0"]},
            "categories allowed with sensitivity 's1': unknown name 's1'",
        ),
    ],
)
def test_names_that_make_no_space(sensitivities, categories, allowed, reason):
    with pytest.raises(LabelSpaceError) as caught:
        LabelSpace(sensitivities, categories, allowed)
    assert str(caught.value) == reason


def test_values_of_different_policies():
    one, other = Level.parse("s0:c1"), Level.parse("s0:c1", MCS)
    assert one != other
    with pytest.raises(LabelSpaceError, match="of different policies"):
        one.dominates(other)
    # The same names make the same policy.
    assert one == Level.parse("s0:c1", LabelSpace.numbered())
    assert one.dominates(Level.parse("s0", LabelSpace.numbered()))


def test_copied_space_is_the_same_policy():
    copied = pickle.loads(pickle.dumps(NAMED))
    assert copied == NAMED
    assert copy.deepcopy(NAMED) == NAMED
    assert Level.parse("secret", copied).dominates(Level.parse("public", NAMED))
    assert pickle.loads(pickle.dumps(DEFAULT_SPACE)) is DEFAULT_SPACE
    assert copy.deepcopy(DEFAULT_SPACE) is DEFAULT_SPACE
