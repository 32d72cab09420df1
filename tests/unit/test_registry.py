"""What may be handed out, what is abandoned, and how the space is parted."""

from __future__ import annotations

from typing import Any

import pytest

from svirtlib.errors import AllocationError, CategoriesExhaustedError
from svirtlib.guests import FileLabel, Guest, Inventory, Process
from svirtlib.mls import Level
from svirtlib.registry import (
    Observation,
    Reservation,
    Wish,
    abandoned,
    check_count,
    choose,
    choose_exactly,
    observed,
    obstacle,
    propose_split,
)
from svirtlib.seclabel import Seclabel, SeclabelType

NOW = 1_000_000


def _levels(*texts):
    return [Level.parse(text) for text in texts]


def _reservation(text, **changes):
    return Reservation(**{"level": Level.parse(text), "domain": "d", "host": "here", **changes})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 5, 5), "no level of 2 categories can be drawn from the 1 of c5.c5"),
        ((2, 9, 5), "no interval of categories c9.c5"),
        ((2, 0, 1024), "no interval of categories c0.c1024"),
        ((0, 0, 9), "no level of 0 categories"),
    ],
)
def test_a_wish_that_nothing_fulfils_is_refused(arguments, message):
    with pytest.raises(AllocationError, match=message):
        Wish(*arguments)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("s0:c4,c7", True),
        ("s0:c4,c8", False),
        ("s0:c3,c7", False),
        ("s0:c4.c6", False),
        ("s0:c4", False),
        ("s1:c4,c7", False),
    ],
)
def test_which_levels_are_of_a_kind(text, fits):
    assert Wish(2, 4, 7).fits(Level.parse(text)) is fits


@pytest.mark.parametrize(
    ("wish", "count", "owner", "message"),
    [
        (Wish(), 0, None, "0 levels cannot"),
        (Wish(), 2, "uuid", "an owner has one level"),
        (Wish(2, 0, 7), 29, None, "29 of 28 labels wanted"),
    ],
)
def test_counts_that_nobody_can_have_are_refused(wish, count, owner, message):
    with pytest.raises(AllocationError, match=message):
        check_count(wish, count, owner)


def test_chosen_levels_are_unique_and_incomparable_with_all():
    others = _levels("s0:c0.c3", "s0:c9", "s1:c4.c6", "s3", "s0")
    taken = set(_levels("s0:c4,c7", "s0:c5,c7"))
    wish = Wish(2, 0, 9)
    chosen = choose(wish, 12, others, taken.intersection)
    assert chosen is not None
    assert len(set(chosen)) == 12
    in_use = [level for level in (*others, *taken) if level.mask]
    assert all(level.incomparable_with(other) for level in chosen for other in in_use)
    assert all(wish.fits(level) for level in chosen)


def test_where_too_few_are_free_none_are_chosen():
    assert choose(Wish(2, 0, 2), 3, _levels("s0:c0"), lambda levels: ()) is None
    with pytest.raises(CategoriesExhaustedError):
        choose_exactly(Wish(2, 0, 2), 3, _levels("s0:c0"))
    assert choose_exactly(Wish(2, 0, 2), 1, _levels("s0:c0")) == _levels("s0:c1,c2")


@pytest.mark.parametrize(
    ("text", "owner", "found"),
    [
        ("s0:c1,c2", None, "s0:c1,c2 is reserved (web)"),
        ("s0:c1.c3", None, "s0:c1,c2 is reserved (web)"),
        ("s0:c1", None, "s0:c1,c2 is reserved (web)"),
        ("s0:c8,c9", None, "s0:c8,c9 is in use (guest db)"),
        ("s0:c8,c9", "uuid", None),
        ("s0:c8.c10", "uuid", "s0:c8,c9 is in use (guest db)"),
        ("s0:c1,c3", None, None),
    ],
)
def test_what_keeps_a_level_from_being_reserved(text, owner, found):
    reservations = [_reservation("s0:c1,c2", name="web")]
    observations = [Observation(Level.parse("s0:c8,c9"), "guest db", "uuid")]
    assert obstacle(Level.parse(text), owner, reservations, observations) == found


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"owner": "gone"}, True),
        ({"owner": "gone", "created": NOW - 10}, False),
        ({"owner": "gone", "host": "there"}, False),
        ({"owner": "there"}, False),
        ({}, False),
        ({"expires": NOW}, True),
        ({"expires": NOW + 1}, False),
        ({"owner": "there", "expires": NOW - 1, "host": "there"}, True),
    ],
)
def test_which_reservations_nobody_needs(changes, gone):
    reservation = _reservation("s0:c1,c2", **changes)
    rules: dict[str, Any] = {"host": "here", "now": NOW, "grace": 60}
    found = abandoned([reservation], set(), {"there"}, **rules)
    assert found == ([reservation] if gone else [])
    # What is in use stays whatever else holds.
    assert abandoned([reservation], {reservation.level}, {"there"}, **rules) == []


def test_no_owner_counts_as_gone_where_not_all_are_known():
    reservation = _reservation("s0:c1,c2", owner="gone")
    assert abandoned([reservation], set(), None, host="here", now=NOW, grace=0) == []


def _guest(name, label, running=True, type=SeclabelType.DYNAMIC, process=None):
    return Guest(
        name=name,
        uuid=f"uuid-{name}",
        running=running,
        virt_type="kvm",
        source="test",
        seclabels=(Seclabel(type=type, model="selinux", relabel=True, label=label),),
        process=process,
    )


def test_what_is_observed_on_a_host():
    svirt = "system_u:system_r:svirt_t:"
    image = "system_u:object_r:svirt_image_t:"
    inventory = Inventory(
        guests=(
            _guest("dynamic", f"{svirt}s0:c2,c1"),
            _guest("off", f"{svirt}s0:c3,c4", running=False),
            _guest("static", f"{svirt}s0:c5,c6", running=False, type=SeclabelType.STATIC),
            _guest("twin", f"{svirt}s0:c5,c6", type=SeclabelType.STATIC),
            _guest("bare", f"{svirt}s0"),
            _guest("drifted", None, process=Process(1, f"{svirt}s0:c7,c8", "/proc")),
        ),
        files=(
            FileLabel("/a", "1", f"{image}s0:c1,c2"),
            FileLabel("/stale", "2", f"{image}s0:c9,c10"),
            FileLabel("/none", "3", None),
            FileLabel("/odd", "4", "no label"),
        ),
    )
    processes = [("process 7", "system_u:system_r:container_t:s0:c11,c12")]
    found = {str(entry.level): entry for entry in observed(inventory, processes)}
    assert {text: (entry.what, entry.owner) for text, entry in found.items()} == {
        "s0:c1,c2": ("/a, guest dynamic", "uuid-dynamic"),
        "s0:c5,c6": ("guest static, guest twin", None),
        "s0:c7,c8": ("guest drifted", "uuid-drifted"),
        "s0:c9,c10": ("/stale", None),
        "s0:c11,c12": ("process 7", None),
    }


@pytest.mark.parametrize(
    ("statics", "guests", "dynamic", "misplaced"),
    [
        ([], 0, (0, 511), []),
        (["s0:c600,c700"], 10, (0, 511), []),
        (["s0:c300,c700"], 10, (0, 511), []),
        (["s0:c300,c400"], 10, (0, 400 - 1), []),
        (["s0:c1,c2"], 10, (0, 511), ["s0:c1,c2"]),
        (["s0:c0.c1023", "s0:c5"], 10, (0, 511), ["s0:c0.c1023", "s0:c5"]),
        # The dynamic part stays large enough.
        (["s0:c300,c301"], 2000, (0, 511), ["s0:c300,c301"]),
    ],
)
def test_how_the_space_is_parted(statics, guests, dynamic, misplaced):
    split = propose_split(_levels(*statics), dynamic_guests=guests)
    assert split.dynamic == dynamic
    assert split.static == (dynamic[1] + 1, 1023)
    assert split.misplaced == tuple(_levels(*misplaced))
    assert split.daemon_range == f"s0-s0:c0.c{dynamic[1]}"
