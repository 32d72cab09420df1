"""Equal and dominating levels: the shape of the answer, on small inputs worked by hand."""

from __future__ import annotations

import gc

import pytest

from svirtlib.errors import InvalidLevelError, LabelSpaceError
from svirtlib.mls import LabelSpace, Level
from svirtlib.relations import Cause, DominanceIndex, Group, Holders, relate


def level(text: str) -> Level:
    return Level.parse(text)


def assert_unrelated(levels: list[str]) -> None:
    found = relate(levels)
    assert (list(found.collisions), found.exposures, found.uncategorised) == ([], (), ())


def test_nothing_at_all() -> None:
    assert_unrelated([])


def test_incomparable_levels_are_related_in_no_way() -> None:
    assert_unrelated(["s0:c1,c2", "s0:c2,c3", "s0:c9"])


def test_spellings_of_one_level_collide() -> None:
    """Sets are compared, never strings."""
    found = relate(["s0:c2,c1", "s0:c3,c4", "s0:c1.c2", level("s0:c1,c2"), "s0:c2,c1"])
    assert list(found.collisions) == [Group(level("s0:c1,c2"), (0, 2, 3, 4))]
    assert found.exposures == ()


def test_collisions_stand_in_the_order_of_their_first_holders() -> None:
    found = relate(["s0:c9", "s0:c1", "s0:c5", "s0:c1", "s0:c9"])
    assert [str(group.level) for group in found.collisions] == ["s0:c9", "s0:c1"]


def test_collisions_are_a_sequence() -> None:
    found = relate(["s0:c1", "s0:c1", "s0:c2,c3", "s0:c3,c2", "s0:c4"]).collisions
    assert len(found) == 2
    assert found[-1] == Group(level("s0:c2,c3"), (2, 3))
    assert list(found[:1]) == [Group(level("s0:c1"), (0, 1))]
    with pytest.raises(IndexError):
        found[2]


def test_a_wide_level_is_one_exposure() -> None:
    found = relate(["s0:c1,c2", "s0:c0.c1023", "s0:c3,c4", "s0:c1,c2", "s0:c0.c1023"])
    (exposure,) = found.exposures
    assert exposure.by is Cause.DOMINATING
    assert exposure.level == level("s0:c0.c1023")
    assert exposure.reaching == Holders(2, 1, (1, 4))
    assert exposure.reached == Holders(3, 2, (0, 2, 3))


def test_a_narrow_level_is_one_exposure() -> None:
    found = relate(["s0:c9,c10", "s0:c9", "s0:c1,c9", "s0:c9,c700"])
    (exposure,) = found.exposures
    assert exposure.by is Cause.DOMINATED
    assert exposure.level == level("s0:c9")
    assert exposure.reaching == Holders(3, 3, (0, 2, 3))
    assert exposure.reached == Holders(1, 1, (1,))


def test_a_finding_is_complete_even_where_another_tells_the_same() -> None:
    """The wide level's finding lists the narrow one too, though the narrow has its own."""
    found = relate(["s0:c0.c1023", "s0:c9", "s0:c9,c10", "s0:c9,c11", "s0:c20,c21"])
    wide, narrow = found.exposures
    assert (wide.by, wide.reached.members) == (Cause.DOMINATING, (1, 2, 3, 4))
    assert (narrow.by, narrow.reaching.members) == (Cause.DOMINATED, (0, 2, 3))


def test_positions_are_cut_and_counts_are_not() -> None:
    levels = ["s0:c0.c1023"] * 3 + [f"s0:c{n},c{n + 1}" for n in range(0, 40, 2)]
    (exposure,) = relate(levels, cap=4).exposures
    assert exposure.reaching == Holders(3, 1, (0, 1, 2))
    assert exposure.reached == Holders(20, 20, (3, 4, 5, 6))
    # The second holder of the first level, but not that of the last one, is among the lowest.
    (exposure,) = relate([levels[3], *levels, levels[-1]], cap=4).exposures
    assert exposure.reached == Holders(22, 20, (0, 4, 5, 6))


def test_counts_are_exact_where_many_share_a_level() -> None:
    """Holders of wide levels are counted in bitmaps, bit by bit of how many share a level."""
    levels = ["s0:c0.c1023"]
    for number in range(40):
        levels += [f"s0:c{number},c{number + 1}"] * (number % 9 + 1)
    (exposure,) = relate(levels).exposures
    assert exposure.reached == Holders(len(levels) - 1, 40, tuple(range(1, len(levels))))


def test_a_cap_is_no_negative_number() -> None:
    assert relate(["s0:c0.c9", "s0:c5,c6"], cap=0).exposures[0].reached == Holders(1, 1, ())
    with pytest.raises(ValueError, match="cap"):
        relate([], cap=-1)


@pytest.mark.parametrize("running", [True, False])
def test_the_garbage_collector_is_left_as_it_was(running: bool) -> None:
    was_running = gc.isenabled()
    try:
        (gc.enable if running else gc.disable)()
        relate(["s0:c1"])
        with pytest.raises(InvalidLevelError):
            relate(["s0:c1", "junk"])
        DominanceIndex(["s0:c1"])
        assert gc.isenabled() is running
    finally:
        (gc.enable if was_running else gc.disable)()


def test_the_holders_of_the_one_level_are_never_cut() -> None:
    levels = ["s0:c0.c1023"] * 3 + ["s0:c5"]
    (exposure,) = relate(levels, cap=1).exposures
    assert exposure.reaching.members == (0, 1, 2) or exposure.reached.members == (3,)
    assert exposure.reaching.count == 3


def test_levels_without_categories_are_told_apart() -> None:
    found = relate(["s0", "s0:c1", "s0", "s1", "s1:c0.c1023"])
    assert found.uncategorised == (Group(level("s0"), (0, 2)), Group(level("s1"), (3,)))
    assert list(found.collisions) == [Group(level("s0"), (0, 2))]
    (exposure,) = found.exposures
    assert (exposure.reaching.members, exposure.reached.members) == ((4,), (1,))


def test_dominance_needs_the_sensitivity_too() -> None:
    found = relate(["s0:c1,c2", "s1:c1", "s1:c1,c2"])
    assert sum(exposure.reached.count * exposure.reaching.count for exposure in found.exposures)
    pairs = {
        (high, low)
        for exposure in found.exposures
        for high in exposure.reaching.members
        for low in exposure.reached.members
    }
    assert pairs == {(2, 0), (2, 1)}


@pytest.mark.parametrize("text", ["", "s0:c1024", "s0:c5.c5", "s0-s0:c1", "s0:c1,c2\n", "c1"])
def test_text_that_is_no_level_is_named(text: str) -> None:
    with pytest.raises(InvalidLevelError) as caught:
        relate(["s0:c1,c2", text])
    assert caught.value.text == text
    with pytest.raises(InvalidLevelError):
        DominanceIndex(["s0:c1,c2", text])


def test_another_policy_has_other_names() -> None:
    space = LabelSpace(["low", "high"], ["red", "green", "blue"])
    found = relate(["low:red", "high:green,red", Level(0, (0,), space)], space=space)
    (collision,) = found.collisions
    assert str(collision.level) == "low:red"
    assert found.exposures[0].reaching.members == (1,)


def test_a_policy_that_forbids_categories_is_obeyed() -> None:
    space = LabelSpace(["low", "high"], ["red", "green"], allowed={"low": ["red"]})
    with pytest.raises(InvalidLevelError):
        relate(["high:red,green", "low:red,green"], space=space)
    (exposure,) = relate(["high:red,green", "low:red"], space=space).exposures
    assert (exposure.reaching.members, exposure.reached.members) == ((0,), (1,))


def test_levels_of_different_policies_are_refused() -> None:
    other = Level(0, (1,), LabelSpace.numbered(categories=8))
    with pytest.raises(LabelSpaceError):
        relate(["s0:c1", other])
    with pytest.raises(LabelSpaceError):
        DominanceIndex([other])
    index = DominanceIndex(["s0:c1"])
    with pytest.raises(LabelSpaceError):
        index.dominating(other)
    with pytest.raises(LabelSpaceError):
        index.dominated_by(other)


def test_who_dominates_an_image() -> None:
    index = DominanceIndex(["s0:c1,c2", "s0", "s0:c0.c1023", "s0:c2,c1", "s0:c3", "s1:c1,c2"])
    assert list(index.dominating(level("s0:c1,c2"))) == [0, 2, 3, 5]
    assert list(index.dominating(level("s0:c3"))) == [2, 4]
    assert list(index.dominating(level("s1:c3"))) == []
    assert list(index.dominating(level("s0"))) == [0, 1, 2, 3, 4, 5]
    assert list(index.dominated_by(level("s0:c1.c5"))) == [0, 1, 3, 4]
    assert list(index.dominated_by(level("s15:c0.c1023"))) == [0, 1, 2, 3, 4, 5]
    assert list(index.dominated_by(level("s0"))) == [1]
