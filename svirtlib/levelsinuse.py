"""The levels that a host's guests and files have: what a new one must be kept apart from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from attr import frozen

from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.guests import Guest, Inventory
from svirtlib.mls import Level
from svirtlib.seclabel import SeclabelType
from svirtlib.standard_types import bound_by_categories

__all__ = ["InUse", "UsedLevel", "levels_in_use"]


@frozen
class UsedLevel:
    """A level with categories that something has.

    Attributes:
        level: the level; of a range the high end, which MCS policies compare.
        holder: what has it, for messages.
        process: a guest has it; else a file alone, which reaches nobody.
    """

    level: Level
    holder: str
    process: bool = True


@frozen
class InUse:
    """What a new level has to be kept apart from.

    Attributes:
        levels: those that have categories.
        notes: guests that no choice of a level keeps apart.
        unknown: what could not be read, so that the comparison misses it.
    """

    levels: tuple[UsedLevel, ...] = ()
    notes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def levels_in_use(inventory: Inventory, *, besides: Optional[Guest] = None) -> InUse:
    """Return the levels that guests have, defined or running, and that images have.

    Args:
        inventory: where to look.
        besides: the guest for which a level is wanted: its present one is no obstacle.
    """
    levels: dict[UsedLevel, None] = {}
    notes: dict[str, None] = {}
    unknown = {f"{entry.what}: {entry.reason}": None for entry in inventory.unreadable}
    own_paths: set[Optional[str]] = set()
    other_paths: set[Optional[str]] = set()
    for guest in inventory.guests:
        paths = {image.path for image in guest.images}
        if besides is not None and _same_guest(guest, besides):
            own_paths |= paths
            continue
        other_paths |= paths
        for text in _contexts_of(guest, unknown):
            _take(text, guest.name, levels, notes, unknown)
        for image in guest.images:
            if image.seclabel is not None and image.seclabel.label is not None:
                _take_file(image.seclabel.label, f"an override of guest {guest.name}", levels)
    for file in inventory.files:
        if file.context is not None and (file.path in other_paths or file.path not in own_paths):
            _take_file(file.context, file.path, levels)
    return InUse(tuple(levels), tuple(notes), tuple(unknown))


def _same_guest(one: Guest, other: Guest) -> bool:
    if one.uuid is not None and other.uuid is not None:
        return one.uuid == other.uuid
    return one.name == other.name


def _contexts_of(guest: Guest, unknown: dict[str, None]) -> Iterator[str]:
    seclabel = guest.seclabel
    stated = None if seclabel is None else seclabel.label
    if guest.process is not None:
        yield guest.process.context
    elif (
        guest.running
        and stated is None
        and (seclabel is None or seclabel.type is not SeclabelType.NONE)
    ):
        unknown[f"guest {guest.name}: it runs, and its document states no label"] = None
    if (
        stated is not None
        and seclabel is not None
        and (guest.running or seclabel.type is SeclabelType.STATIC)
    ):
        yield stated


def _take(
    text: str,
    name: str,
    levels: dict[UsedLevel, None],
    notes: dict[str, None],
    unknown: dict[str, None],
) -> None:
    try:
        context = Context.parse(text)
    except InvalidContextError as error:
        unknown[f"guest {name}: {error}"] = None
        return
    if bound_by_categories(context.type) is False:
        notes[
            f"guest {name} runs as {context.type}, which categories do not bind: no level keeps "
            f"it away from this guest's images"
        ] = None
    elif context.level is None or not context.level.categories:
        notes[f"guest {name} has no categories: no level keeps this guest away from its images"] = (
            None
        )
    else:
        levels[UsedLevel(context.level, f"guest {name}")] = None


def _take_file(text: str, holder: str, levels: dict[UsedLevel, None]) -> None:
    try:
        level = Context.parse(text).level
    except InvalidContextError:
        # The kernel shows such a file to nobody (unlabeled_t).
        return
    if level is not None and level.categories:
        levels[UsedLevel(level, holder, process=False)] = None
