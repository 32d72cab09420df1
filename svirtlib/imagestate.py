"""What one image carries of labels and libvirt's owner attributes, and what of it is a leftover.

libvirt keeps, in extended attributes of an image that it labels, what it will put back, how many
guests hold the image, and when the host was started (``src/security/security_util.c``). A daemon
that lost its guest leaves them behind; the next start of a guest with another label then fails.
Worked out from values alone.
"""

from __future__ import annotations

import enum
import re
from typing import Optional

from attr import frozen

from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.guests import Guest, Inventory
from svirtlib.seclabel import SeclabelType

__all__ = ["MODELS", "GuestUse", "ImageState", "Owner", "Problem", "guest_uses", "remembered_owner"]

#: The security models whose driver keeps owner attributes.
MODELS = ("selinux", "dac")

#: The kernel's time of boot and libvirt's differ by what the clock was set right since.
_SAME_BOOT = 300

_OWNER = re.compile(r"\+([0-9]{1,10}):\+([0-9]{1,10})", re.ASCII)


class Problem(enum.Enum):
    """What is a leftover about an image that nobody uses, or wrong about any."""

    #: Owner attributes count guests, and nobody uses the image.
    LEAKED = "leaked-references"
    #: Owner attributes are there in part only, or hold no number.
    BROKEN = "broken-attributes"
    #: The label has the categories of a guest that does not run, and no definition asks for them.
    STALE_LEVEL = "stale-level"


@frozen
class Owner:
    """libvirt's owner attributes of one security model.

    Attributes:
        model: ``selinux`` or ``dac``.
        remembered: what libvirt will put back, or None.
        references: how many guests hold the image, as text, or None.
        timestamp: when the host was started, as text (seconds since 1970), or None.
    """

    model: str
    remembered: Optional[str] = None
    references: Optional[str] = None
    timestamp: Optional[str] = None

    @property
    def present(self) -> bool:
        """Whether there is any of them."""
        return (self.remembered, self.references, self.timestamp) != (None, None, None)

    @property
    def count(self) -> Optional[int]:
        """How many guests hold the image, or None where that is not said in a number."""
        text = self.references or ""
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def broken(self) -> bool:
        """Whether libvirt cannot make sense of them."""
        return self.present and (self.count is None or self.remembered is None)

    def of_this_boot(self, boot: Optional[int]) -> Optional[bool]:
        """Tell whether they were written since the host was started, or None if not known.

        libvirt takes attributes of another boot for none.
        """
        text = self.timestamp or ""
        if boot is None or not (text.isascii() and text.isdigit()):
            return None
        return abs(int(text) - boot) <= _SAME_BOOT


@frozen
class GuestUse:
    """A guest whose definition names the image.

    Attributes:
        name: the guest.
        running: whether it runs.
        target: as what it has the image.
        mode: ``private``, ``shareable`` or ``readonly``.
        level: text of the level that a static definition gives the image, or None.
    """

    name: str
    running: bool
    target: str
    mode: str
    level: Optional[str] = None


@frozen
class ImageState:
    """One image.

    Attributes:
        path: where it lies.
        label: its context as text, or None.
        owner: user and group.
        owners: libvirt's owner attributes, one for each model that has any.
        guests: guests whose definition names it.
        users: who uses it now, in words.
        boot: when the host was started (seconds since 1970), or None.
        unknown: why it is not known whether somebody uses it; empty where it is.
    """

    path: str
    label: Optional[str]
    owner: tuple[int, int]
    owners: tuple[Owner, ...] = ()
    guests: tuple[GuestUse, ...] = ()
    users: tuple[str, ...] = ()
    boot: Optional[int] = None
    unknown: tuple[str, ...] = ()

    @property
    def in_use(self) -> Optional[bool]:
        """Whether somebody uses it; None where that is not known."""
        if self.users:
            return True
        return None if self.unknown else False

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is a leftover; nothing is while somebody uses it, or may."""
        if self.in_use is not False:
            return ()
        found = []
        if any(owner.broken for owner in self.owners):
            found.append(Problem.BROKEN)
        if any(owner.count for owner in self.owners):
            found.append(Problem.LEAKED)
        if self._has_stale_level():
            found.append(Problem.STALE_LEVEL)
        return tuple(found)

    def _has_stale_level(self) -> bool:
        context = _parsed(self.label)
        if context is None or context.level is None or not context.level.mask:
            return False
        return str(context.level) not in {guest.level for guest in self.guests}

    def label_to_restore(self, by_rules: Optional[str]) -> Optional[str]:
        """Return the label that it should have again, or None where none is known.

        What libvirt remembers counts, unless that is a guest's label itself; then what the rules
        give the path.
        """
        for owner in self.owners:
            context = _parsed(owner.remembered) if owner.model == "selinux" else None
            if context is not None and (context.level is None or not context.level.mask):
                return str(context)
        return by_rules


def remembered_owner(owner: Owner) -> Optional[tuple[int, int]]:
    """Return user and group that libvirt's DAC driver remembers (``+107:+107``), or None."""
    match = _OWNER.fullmatch(owner.remembered or "") if owner.model == "dac" else None
    return None if match is None else (int(match[1]), int(match[2]))


def guest_uses(inventory: Inventory, names: frozenset[str]) -> tuple[GuestUse, ...]:
    """Return the guests whose definition names an image by one of *names*."""
    return tuple(
        GuestUse(
            name=guest.name,
            running=guest.running,
            target=image.target or image.use.value,
            mode=image.mode.value,
            level=_static_level(guest, None if image.seclabel is None else image.seclabel.label),
        )
        for guest in inventory.guests
        for image in guest.images
        if image.path in names
    )


def _static_level(guest: Guest, own: Optional[str]) -> Optional[str]:
    label = own
    seclabel = guest.seclabel
    if label is None and seclabel is not None and seclabel.type is SeclabelType.STATIC:
        label = seclabel.label
    context = _parsed(label)
    return None if context is None or context.level is None else str(context.level)


def _parsed(label: Optional[str]) -> Optional[Context]:
    try:
        return None if label is None else Context.parse(label)
    except InvalidContextError:
        return None
